"""Policies of broadcasting, one file per algorithm."""
