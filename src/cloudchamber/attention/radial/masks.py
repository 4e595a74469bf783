"""Masks as kernels take them: by tokens as the paper writes them, by blocks as its code runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from cloudchamber.attention.model import AttentionSpec, BlockIndex, Blocks, Grid, Rows, Scene
from cloudchamber.core.errors import InputError
from cloudchamber.core.policy import Choice, Integer, Parameters, Real

from .model import BandWidth, RadialSpec, bands
from .policies.paper import RadialPaper


def token_mask(policy: BandWidth, f: int, s: int, *, sink: bool = True) -> np.ndarray:
    """Every pair of tokens that a band rule reads, shape (f · s, f · s): for tests and pictures."""
    widths = bands(policy, f, s)
    frame, place = np.divmod(np.arange(f * s), s)
    apart = np.abs(np.subtract.outer(frame, frame))
    mask = np.abs(np.subtract.outer(place, place)) + 1 <= widths[apart]
    if sink:
        mask[:, frame == 0] = True
    return np.asarray(mask)


@lru_cache(maxsize=32)
def block_mask(
    f: int, s: int, block: int, gamma: float, *, sink: bool = True, text: int = 0, rule: tuple[float, float] = (1 / 3, 0.6)
) -> np.ndarray:
    """The published code's block mask, shape (blocks, blocks); read-only.

    For each pair of frames the band of its rule is laid at its true offset in a canvas of whole blocks; a block is kept iff more than
    ``rule[1]`` of those of its columns that hold anything are filled to more than ``rule[0]``, of the queries that exist: the last row of
    blocks may be shorter. The diagonal is kept too, and rows and columns of the ``text`` tokens in front of the video are all on.

    Raises
    ------
    InputError
        If a size is below 1, or gamma is not above 0.
    """
    if min(f, s, block) < 1 or text < 0 or not gamma > 0:
        raise InputError(f"frames, tokens and block must be at least 1 and gamma above 0, got {f}, {s}, {block} and {gamma}.")
    near = _apart(s)

    def local(d: int, from_first: bool) -> np.ndarray | None:
        if from_first and sink:
            return np.ones((s, s), bool)
        return near <= _width(d, s, block, gamma) if _is_kept(d, s, block) else None

    return _assembled(f, s, block, text, local, rule)


def _apart(s: int) -> np.ndarray:
    """Distance of any two places of a frame, in raster order."""
    places = np.arange(s)
    return np.abs(np.subtract.outer(places, places))


def _assembled(
    f: int, s: int, block: int, text: int, local: Callable[[int, bool], np.ndarray | None], rule: tuple[float, float]
) -> np.ndarray:
    """Blocks of a mask that is told for a pair of frames by how far apart they are and whether the keys are of the first; read-only."""
    n = f * s + text
    total = -(-n // block)
    found = np.zeros((total, total), bool)
    shrunk: dict[tuple[int, int, int, int], np.ndarray | None] = {}
    for i in range(f):
        above = text + i * s
        rows = n - (total - 1) * block if (above + s - 1) // block == total - 1 else block  # of the last block that the frame touches
        for j in range(f):
            before = text + j * s
            key = (abs(i - j) if j else -1 - i, above % block, before % block, rows)
            if key not in shrunk:
                mask = local(abs(i - j), j == 0)
                shrunk[key] = None if mask is None else _shrink(mask, key[1], key[2], block, rows, rule)
            small = shrunk[key]
            if small is not None:
                top, left = above // block, before // block
                found[top : top + len(small), left : left + small.shape[1]] |= small
    if text:
        last = -(-text // block)
        found[:last], found[:, :last] = True, True
    np.fill_diagonal(found, True)  # a query always reads its own block
    found.flags.writeable = False
    return found


def _width(d: int, s: int, block: int, gamma: float) -> float:
    return float(s) if d <= 1 else max(block, gamma * 2.0 ** s.bit_length() / 2.0 ** d.bit_length())


def _is_kept(d: int, s: int, block: int) -> bool:
    r = 2.0 ** s.bit_length() / 2.0 ** d.bit_length()
    return d <= 1 or r >= block or d % math.floor(block / r) == 0


def _shrink(local: np.ndarray, top: int, left: int, block: int, rows: int, rule: tuple[float, float]) -> np.ndarray:
    """Blocks that are kept of a mask laid at an offset; its last row of blocks has ``rows`` queries."""
    s = len(local)
    canvas = np.zeros((-(-(top + s) // block) * block, -(-(left + s) // block) * block), bool)
    canvas[top : top + s, left : left + s] = local
    filled = canvas.reshape(len(canvas) // block, block, canvas.shape[1] // block, block).sum(axis=1)
    height = np.full((len(filled), 1, 1), block)
    height[-1] = rows
    full = (filled > rule[0] * height).sum(axis=2)
    return np.asarray((filled > 0).any(axis=2) & (full > rule[1] * (filled > 0).sum(axis=2)))


class RadialSelector(Parameters):
    """A static mask for :class:`~cloudchamber.attention.SparseAttention`, planned once for every shape.

    Parameters
    ----------
    form : {"block", "paper"}, default "block"
        The published code's block mask, or the blocks that hold any pair of the paper's token mask.
    gamma : float, default 1.0
        Width factor of the block form: 0.2 and 0.95 are published for two models, 1 for longer clips.
    block : int, default 64
    sink : {"first_frame", "none"}, default "first_frame"

    References
    ----------
    Radial Attention: O(n log n) Sparse Attention with Energy Decay for Long Video Generation.
    """

    _constraints = {
        "form": Choice("block", "paper"), "gamma": Real(0, strict=True), "block": Integer(1), "sink": Choice("first_frame", "none"),
    }  # fmt: skip

    def __init__(self, form: str = "block", *, gamma: float = 1.0, block: int = 64, sink: str = "first_frame") -> None:
        self.form = form
        self.gamma = gamma
        self.block = block
        self.sink = sink

    def mask(self, f: int, s: int, text: int = 0) -> np.ndarray:
        """Blocks that are read, shape (blocks, blocks); the same array for the same shape."""
        self.validate()
        sink = self.sink == "first_frame"
        if self.form == "block":
            return block_mask(f, s, self.block, self.gamma, sink=sink, text=text)
        return _paper_blocks(f, s, self.block, sink, text)

    def reset(self, spec: AttentionSpec, rng: np.random.Generator) -> None:
        """Nothing to forget: masks are kept by shape."""

    def select(self, scene: Scene) -> BlockIndex:
        """The index of the scene's grid, the same object for the same shape.

        Raises
        ------
        InputError
            If the scene has no grid or another number of tokens, or is cut into other blocks than runs of this selector's.
        """
        grid = _grid_of(scene, "RadialSelector")
        for blocks in (scene.q_blocks, scene.k_blocks):
            if blocks.order is not None or not np.array_equal(blocks.sizes, Blocks.uniform(grid.tokens, self.block).sizes):
                raise InputError(f"RadialSelector's mask is of runs of {self.block} tokens: use layout=Raster({self.block}).")
        self.validate()
        return _index(self.form, grid.frames, grid.height * grid.width, self.block, self.gamma, self.sink, grid.text)


def _grid_of(scene: Scene, name: str) -> Grid:
    if scene.grid is None:
        raise InputError(f"{name} needs to know the grid: call the attention with grid=Grid(frames, height, width).")
    if not scene.q_blocks.tokens == scene.k_blocks.tokens == scene.grid.tokens:
        found = f"{scene.q_blocks.tokens} queries and {scene.k_blocks.tokens} keys"
        raise InputError(f"{scene.grid} has {scene.grid.tokens} tokens, but there are {found}.")
    return scene.grid


@lru_cache(maxsize=32)
def _index(form: str, f: int, s: int, block: int, gamma: float, sink: str, text: int) -> BlockIndex:
    mask = RadialSelector(form, gamma=gamma, block=block, sink=sink).mask(f, s, text)
    sizes = Blocks.uniform(f * s + text, block).sizes
    return BlockIndex(Rows.of(mask[None]), sizes, sizes, 1)


@lru_cache(maxsize=32)
def _paper_blocks(f: int, s: int, block: int, sink: bool, text: int) -> np.ndarray:
    policy = RadialPaper()
    policy.reset(RadialSpec(f, s, sink=sink), np.random.default_rng(0))
    widths, near = bands(policy, f, s), _apart(s)

    def local(d: int, from_first: bool) -> np.ndarray:
        return np.ones((s, s), bool) if from_first and sink else near + 1 <= widths[d]

    return _assembled(f, s, block, text, local, (0.0, 0.0))
