"""Radial Attention as the paper writes it, and as its code runs."""

from __future__ import annotations

import math

from cloudchamber.attention.radial.policies.scaled import _Scaled
from cloudchamber.core.policy import Integer, Policy, Real


class RadialPaper(Policy):
    """Halve the width each time the distance in frames doubles; where it falls below one token, keep the diagonal of ever fewer frames.

    With g = 2^floor(log2 max(d, 1)): width s / g as long as that is a token, then width 1 for every ceil(g / s)-th frame. Attention to
    the first frame comes on top. There is no parameter, so it spends what it spends.

    References
    ----------
    Radial Attention: O(n log n) Sparse Attention with Energy Decay for Long Video Generation.
    """

    def width(self, d: int, f: int, s: int) -> float:
        """S / g, or a token."""
        g = _power(d)
        return s / g if g <= s else 1.0

    def keep(self, d: int) -> bool:
        """Every frame while the width is a token, then every ceil(g / s)-th."""
        g = _power(d)
        return d % -(-g // int(self.spec_.tokens)) == 0


class RadialBlock(_Scaled):
    """The rule of the published code: gamma scales the width, which is never below a block; far frames are thinned without it.

    Width s for d <= 1, else max(block, gamma 2^bits(s) / 2^bits(d)); with r = 2^bits(s) / 2^bits(d) below a block, only every
    (block // r)-th frame is kept. Bits, not logarithms, set the edges of the bands.

    Parameters
    ----------
    gamma : float, default 0.0
        Factor on the width (0.2, 0.95 and 1 are published); 0: the largest that meets the budget.
    block : int, default 1
        Tokens of a block.

    References
    ----------
    Radial Attention: O(n log n) Sparse Attention with Energy Decay for Long Video Generation.
    """

    _constraints = {"gamma": Real(0), "block": Integer(1)}

    def __init__(self, gamma: float = 0.0, block: int = 1) -> None:
        self.gamma = gamma
        self.block = block

    def shape(self, d: int, f: int, s: int, scale: float) -> float:
        """The code keeps |k - l| <= w, one more than w tokens on each side."""
        if d <= 1:
            return float(s)
        return 1 + max(self.block, scale * 2.0 ** (s.bit_length() - d.bit_length()))

    def keep(self, d: int) -> bool:
        """Thinned where the unscaled width is below a block."""
        r = 2.0 ** (self.spec_.tokens.bit_length() - d.bit_length())
        return d <= 1 or r >= self.block or d % math.floor(self.block / r) == 0


def _power(d: int) -> int:
    return 1 << (max(d, 1).bit_length() - 1)
