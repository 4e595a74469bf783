# expect: input
"""Holds no policy at all."""
x = 1
