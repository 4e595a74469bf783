"""Budgets, one file each."""
