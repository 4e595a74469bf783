"""What an LLM server computes next, what it keeps, and what it evicts."""
