"""Schedulers of an LLM server, one file each."""
