"""Layouts: the permutation that brings tokens which belong together into one block."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
from torch import Tensor

from cloudchamber.attention.model import Blocks, Grid
from cloudchamber.core.errors import InputError


@dataclass
class Carry:
    """What the parts of a sparse attention keep from one call to the next: each reads and writes its own field.

    Layers, and branches of guidance (the conditional and the unconditional pass), see other tokens: each has a carry of its own in
    ``places``, so that one object may travel through a whole model.

    Examples
    --------
    >>> carry = Carry()
    >>> carry.of(0.5, "text").layout = "centroids"
    >>> carry.of(0.5, "text").layout, carry.of(0.5, "no text").layout
    ('centroids', None)
    """

    layout: object = None
    selector: object = None
    correction: object = None
    places: dict[Hashable, Carry] = field(default_factory=dict, repr=False)

    def of(self, layer: float = 1.0, branch: Hashable = None) -> Carry:
        """The carry of a layer and a branch; where neither was told, this one."""
        return self if (layer, branch) == (1.0, None) else self.places.setdefault((layer, branch), Carry())


class Layout(Protocol):
    """Cuts queries and keys into blocks."""

    def arrange(self, q: Tensor, k: Tensor, grid: Grid | None, carry: Carry) -> tuple[Blocks, Blocks]:
        """Return the blocks of queries (1 or batch x heads rows) and of keys (1 or batch x key heads rows).

        q and k are (batch, heads, tokens, dimension), in the order of the model.
        """
        ...


class Raster:
    """Runs of neighbours in the order of the model; nothing is moved.

    Parameters
    ----------
    block : int, default 64
        Tokens of a block; the last may be shorter.
    """

    def __init__(self, block: int = 64) -> None:
        self.block = block

    def arrange(self, q: Tensor, k: Tensor, grid: Grid | None, carry: Carry) -> tuple[Blocks, Blocks]:
        """Uniform blocks of both."""
        return _uniform(q.shape[2], self.block), _uniform(k.shape[2], self.block)

    def __repr__(self) -> str:
        return f"Raster({self.block})"


class TileLayout:
    """Cuboids of a video: a block holds tokens near each other in time and in space, which attend to much the same.

    Tiles at the edge hold fewer tokens, and nothing is padded. Text tokens come first, as blocks of their own.

    Parameters
    ----------
    tile : tuple of int, default (4, 4, 4)
        Frames, rows and columns of a tile.
    """

    def __init__(self, tile: tuple[int, int, int] = (4, 4, 4)) -> None:
        self.tile = tile

    def arrange(self, q: Tensor, k: Tensor, grid: Grid | None, carry: Carry) -> tuple[Blocks, Blocks]:
        """The same tiles for queries and keys.

        Raises
        ------
        InputError
            Without a grid, or if its tokens are not those of q and k.
        """
        if grid is None:
            raise InputError("TileLayout needs to know where tokens lie: pass grid=Grid(frames, height, width).")
        if not q.shape[2] == k.shape[2] == grid.tokens:
            raise InputError(f"{grid} has {grid.tokens} tokens, q and k have {q.shape[2]} and {k.shape[2]}.")
        blocks = tiled(grid, tuple(self.tile))
        return blocks, blocks

    def __repr__(self) -> str:
        return f"TileLayout({self.tile})"


@lru_cache(maxsize=64)
def _uniform(tokens: int, block: int) -> Blocks:
    return Blocks.uniform(tokens, block)


@lru_cache(maxsize=64)
def tiled(grid: Grid, tile: tuple[int, ...]) -> Blocks:
    """Blocks of a grid cut into tiles, in raster order of tiles and of the tokens within each.

    Examples
    --------
    >>> blocks = tiled(Grid(1, 2, 3, text=1), (1, 2, 2))
    >>> blocks.sizes, blocks.order
    (array([[1, 4, 2]], dtype=int32), array([[0, 1, 2, 4, 5, 3, 6]]))
    """
    if len(tile) != 3 or any(type(side) is not int or side < 1 for side in tile):
        raise InputError(f"a tile has three sides of at least 1 (frames, rows, columns), got {tile}.")
    counts = [-(-side // step) for side, step in zip((grid.frames, grid.height, grid.width), tile, strict=True)]
    at = grid.positions() // np.array(tile)
    number = np.ravel_multi_index(tuple(at.T), tuple(counts))
    order = np.concatenate([np.arange(grid.text), grid.text + np.argsort(number, kind="stable")])
    text = Blocks.uniform(grid.text, math.prod(tile)).sizes[0]
    sizes = np.concatenate([text, np.bincount(number, minlength=math.prod(counts))]).astype(np.int32)
    return Blocks(sizes[None], order[None])
