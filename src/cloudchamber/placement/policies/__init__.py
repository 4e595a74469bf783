"""Policies of model placement, one file per algorithm."""
