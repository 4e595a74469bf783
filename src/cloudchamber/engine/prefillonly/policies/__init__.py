"""Schedulers of requests for one token, one file each, and what they are made of."""
