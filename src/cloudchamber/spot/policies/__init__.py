"""Spot scheduling policies, one file per algorithm, baselines among them."""
