"""Radial masks in the plane: squares around a token's place in place of bands of the raster, for any layout of blocks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cloudchamber.attention.model import AttentionSpec, BlockIndex, Blocks, Grid, Rows, Scene
from cloudchamber.core.errors import InputError
from cloudchamber.core.policy import Choice, Parameters, Real

from .masks import _grid_of
from .model import RadialSpec, bands
from .policies.paper import RadialPaper


class Grid2DRadial(Parameters):
    """The radial mask by distance in rows and columns: the larger of the two.

    In raster order a token's neighbour above lies a whole row away, so a narrow band sees along rows only. Here a token reads the square
    around its place that holds as many tokens as the paper's band at that distance in frames. A pair of blocks is read if the rule
    allows enough of its pairs of tokens; with :class:`~cloudchamber.attention.TileLayout` blocks are compact and few are read in part.

    Parameters
    ----------
    gamma : float, default 1.0
        Factor on the number of tokens in the square.
    least : float, default 0.35
        Share of the pairs of two blocks that must be allowed for them to be read.
    sink : {"first_frame", "none"}, default "first_frame"

    References
    ----------
    Radial Attention: O(n log n) Sparse Attention with Energy Decay for Long Video Generation, for the bands.
    """

    _constraints = {"gamma": Real(0, strict=True), "least": Real(0, 1), "sink": Choice("first_frame", "none")}

    def __init__(self, gamma: float = 1.0, *, least: float = 0.35, sink: str = "first_frame") -> None:
        self.gamma = gamma
        self.least = least
        self.sink = sink

    def reset(self, spec: AttentionSpec, rng: np.random.Generator) -> None:
        """Nothing to forget: masks are kept by shape."""

    def select(self, scene: Scene) -> BlockIndex:
        """The index of the scene's grid and blocks, the same object for the same of both.

        Raises
        ------
        InputError
            If the scene has no grid or another number of tokens, or blocks that differ between heads, or between queries and keys.
        """
        self.validate()
        grid, blocks = _grid_of(scene, "Grid2DRadial"), scene.q_blocks
        if len(blocks.sizes) > 1 or blocks.sizes.tobytes() != scene.k_blocks.sizes.tobytes():
            raise InputError("Grid2DRadial needs blocks that are the same for all heads, and for queries and keys.")
        return _index(grid, blocks.sizes.tobytes(), _bytes(blocks), self.gamma, self.least, self.sink == "first_frame")


def _bytes(blocks: Blocks) -> bytes | None:
    return None if blocks.order is None else np.asarray(blocks.order[0], np.int64).tobytes()


@lru_cache(maxsize=32)
def _index(grid: Grid, sizes: bytes, order: bytes | None, gamma: float, least: float, sink: bool) -> BlockIndex:
    cut = np.frombuffer(sizes, np.int32)
    places = np.arange(grid.tokens) if order is None else np.frombuffer(order, np.int64)
    share = allowed_share(grid, Blocks(cut[None], places[None]), gamma, sink=sink)
    mask = (share >= least) & (share > 0)
    text = len(cut) if grid.text >= grid.tokens else int(np.searchsorted(np.cumsum(cut), grid.text)) + 1 if grid.text else 0
    mask[:text], mask[:, :text] = True, True
    np.fill_diagonal(mask, True)
    return BlockIndex(Rows.of(mask[None]), cut[None], cut[None], 1)


def allowed_share(grid: Grid, blocks: Blocks, gamma: float = 1.0, *, sink: bool = True) -> np.ndarray:
    """Share of the pairs of video tokens of two blocks that the rule allows, (blocks, blocks); 0 where a block has none.

    Frames that blocks cut alike share their work, so a mask of many frames takes one small product for each distance.
    """
    f, s = grid.frames, grid.height * grid.width
    owner = np.empty(grid.tokens, np.int64)
    owner[blocks.order[0] if blocks.order is not None else np.arange(grid.tokens)] = np.repeat(np.arange(blocks.count), blocks.sizes[0])
    of_frame = owner[grid.text :].reshape(f, s)
    named = [np.unique(each, return_inverse=True) for each in of_frame]  # blocks of a frame, and which of them each place belongs to
    widths, apart = _radii(f, s, gamma), _apart(grid)
    found = np.zeros((blocks.count, blocks.count))
    known: dict[tuple[float, bytes, bytes], np.ndarray] = {}
    for i in range(f):
        for j in range(f):
            radius = np.inf if sink and j == 0 else widths[abs(i - j)]
            if radius < 0:
                continue
            (rows, at), (columns, to) = named[i], named[j]
            key = (float(radius), at.tobytes(), to.tobytes())
            if key not in known:
                known[key] = _counted(apart <= radius, at, to)
            found[np.ix_(rows, columns)] += known[key]
    tokens = np.bincount(of_frame.ravel(), minlength=blocks.count).astype(np.float64)
    return np.asarray(found / np.maximum(np.outer(tokens, tokens), 1.0))


def _radii(f: int, s: int, gamma: float) -> np.ndarray:
    """Largest distance that is read, for each distance in frames: the square has gamma times the band's tokens; -1 for none."""
    policy = RadialPaper()
    policy.reset(RadialSpec(f, s), np.random.default_rng(0))
    widths = bands(policy, f, s)
    side = np.sqrt(gamma * np.maximum(2.0 * widths - 1.0, 0.0))
    return np.where(widths >= s, np.inf, np.where(widths > 0, np.maximum((side - 1) / 2, 0.0), -1.0))


def _apart(grid: Grid) -> np.ndarray:
    """The larger of the distances in rows and in columns, of all places of a frame."""
    row, column = np.divmod(np.arange(grid.height * grid.width), grid.width)
    return np.asarray(np.maximum(np.abs(np.subtract.outer(row, row)), np.abs(np.subtract.outer(column, column))))


def _counted(allowed: np.ndarray, at: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Allowed pairs of places, summed over the blocks that own them."""
    rows = (at[:, None] == np.arange(at.max() + 1)).astype(np.float32)
    columns = (to[:, None] == np.arange(to.max() + 1)).astype(np.float32)
    return np.asarray(rows.T @ (allowed.astype(np.float32) @ columns))
