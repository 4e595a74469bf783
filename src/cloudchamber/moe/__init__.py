"""Mixture-of-experts serving: where experts lie. :mod:`cloudchamber.moe.balance` replicates and places them."""
