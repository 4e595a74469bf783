"""Tile selectors, one file each."""
