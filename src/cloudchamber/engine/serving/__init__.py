"""An engine behind OpenAI's API: the thread that steps it, requests and answers as the API words them, HTTP, metrics."""
