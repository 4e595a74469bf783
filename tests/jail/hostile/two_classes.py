# expect: input
"""Holds two policies."""
class A:
    def reset(self, rng): pass
    def guess(self, clue): pass


class B:
    def reset(self, rng): pass
    def guess(self, clue): pass
