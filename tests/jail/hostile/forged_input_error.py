# expect: input|crash
"""Raises the error that stops a whole study when a user makes it."""
from cloudchamber.core.errors import InputError

raise InputError("stop everything")
