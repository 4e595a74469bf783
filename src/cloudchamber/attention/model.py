"""The nouns of sparse attention: grids of tokens, blocks, which key blocks a query block reads, and who decides it."""

from __future__ import annotations

from typing import Protocol, Self

import msgspec
import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.messages import Message


class Grid(Message, frozen=True):
    """Where tokens lie in a video: ``frames`` of ``height`` x ``width`` tokens, raster order, after ``text`` tokens that lie nowhere.

    Raises
    ------
    InputError
        If a number is not a whole one of at least 1 (``text``: 0).
    """

    frames: int
    height: int = 1
    width: int = 1
    text: int = 0

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width", "text"):
            value = getattr(self, name)
            if type(value) is not int or value < (name != "text"):
                raise InputError(f"{name} of a grid must be a whole number of at least {int(name != 'text')}, got {value!r}.")

    @property
    def tokens(self) -> int:
        """Tokens in all, text included."""
        return self.text + self.frames * self.height * self.width

    def positions(self) -> np.ndarray:
        """Frame, row and column of every video token, shape (tokens - text, 3)."""
        axes = np.indices((self.frames, self.height, self.width), dtype=np.int32)
        return axes.reshape(3, -1).T.copy()


class Blocks(Message, frozen=True):
    """Tokens cut into blocks, each a run of neighbours after a permutation.

    Parameters
    ----------
    sizes : ndarray of int, shape (heads or 1, blocks)
        Tokens of each block; 0 is allowed.
    order : ndarray of int or None, shape (heads or 1, tokens)
        Token at each place; None: as they are.
    """

    sizes: np.ndarray
    order: np.ndarray | None = None

    @classmethod
    def uniform(cls, tokens: int, size: int) -> Self:
        """Blocks of ``size`` neighbours, the last one shorter where the length asks for it.

        Examples
        --------
        >>> Blocks.uniform(10, 4).sizes
        array([[4, 4, 2]], dtype=int32)
        """
        if size < 1 or tokens < 0:
            raise InputError(f"a block needs at least one token, got size {size} for {tokens} tokens.")
        sizes = np.full(-(-tokens // size), size, np.int32)
        if tokens % size:
            sizes[-1] = tokens % size
        return cls(sizes[None])

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return int(self.sizes[0].sum())

    @property
    def count(self) -> int:
        """Blocks."""
        return int(self.sizes.shape[1])

    def of_head(self, head: int) -> Self:
        """The blocks of one head."""
        if len(self.sizes) == 1:
            return self
        return type(self)(self.sizes[head : head + 1], None if self.order is None else self.order[head : head + 1])

    def inverse(self) -> np.ndarray | None:
        """Place of each token."""
        if self.order is None:
            return None
        places = np.empty_like(self.order)
        np.put_along_axis(places, self.order, np.broadcast_to(np.arange(places.shape[1], dtype=places.dtype), places.shape), axis=1)
        return places

    def starts(self) -> np.ndarray:
        """First place of each block, and the number of tokens at the end, shape (heads or 1, blocks + 1)."""
        found = np.zeros((len(self.sizes), self.count + 1), np.int64)
        np.cumsum(self.sizes, axis=1, out=found[:, 1:])
        return found


class Rows(Message, frozen=True):
    """Sets of key blocks in compressed rows: row h * (query blocks) + i holds what block i of head h names, in ascending order."""

    indptr: np.ndarray
    indices: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> Self:
        """Rows of a boolean array of shape (heads, query blocks, key blocks)."""
        flat = mask.reshape(-1, mask.shape[-1])
        indptr = np.zeros(len(flat) + 1, np.int32)
        np.cumsum(flat.sum(axis=1), out=indptr[1:])
        return cls(indptr, np.nonzero(flat)[1].astype(np.int32))

    def mask(self, columns: int) -> np.ndarray:
        """The boolean array again, shape (rows, columns)."""
        found = np.zeros((len(self.indptr) - 1, columns), bool)
        found[np.repeat(np.arange(len(found)), np.diff(self.indptr)), self.indices] = True
        return found

    def transpose(self, heads: int, columns: int) -> Self:
        """For each head and key block, the query blocks that name it."""
        return self.transposition(heads, columns)[0]

    def transposition(self, heads: int, columns: int) -> tuple[Self, np.ndarray]:
        """The transposed rows, and where each of their entries stands in these."""
        rows = (len(self.indptr) - 1) // max(heads, 1)
        row = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))
        key = (row // max(rows, 1)) * columns + self.indices
        order = np.argsort(key, kind="stable")
        indptr = np.zeros(heads * columns + 1, np.int32)
        np.cumsum(np.bincount(key, minlength=heads * columns), out=indptr[1:])
        return type(self)(indptr, (row[order] % max(rows, 1)).astype(np.int32)), order


class BlockIndex(Message, frozen=True):
    """Which key blocks each query block reads, for every head: what a selector answers and a kernel obeys.

    Parameters
    ----------
    rows : Rows
        Of ``heads`` x (query blocks) rows.
    q_sizes, k_sizes : ndarray of int, shape (heads or 1, blocks)
        Tokens of each block.
    heads : int
        Heads (of all sequences of the batch, one after another) that ``rows`` tells apart; 1: the same for all.
    log_weight : ndarray of float32 or None, shape (len(rows.indices),)
        Added to the logits of every key of a named block: log(1/p) where it was sampled with probability p.
    negligible : Rows or None
        Blocks that a correction leaves out as well.
    """

    rows: Rows
    q_sizes: np.ndarray
    k_sizes: np.ndarray
    heads: int = 1
    log_weight: np.ndarray | None = None
    negligible: Rows | None = None

    @classmethod
    def of(cls, mask: np.ndarray, q: Blocks, k: Blocks) -> Self:
        """Index of a boolean array, shape (heads or 1, query blocks, key blocks)."""
        heads = max(len(mask), len(q.sizes), len(k.sizes))  # blocks of their own size in each head need rows of their own
        return cls(Rows.of(np.broadcast_to(mask, (heads, *mask.shape[1:]))), q.sizes, k.sizes, heads)

    @property
    def q_blocks(self) -> int:
        """Query blocks of a head."""
        return int(self.q_sizes.shape[1])

    @property
    def k_blocks(self) -> int:
        """Key blocks of a head."""
        return int(self.k_sizes.shape[1])

    def density(self) -> float:
        """Share of all pairs of a query and a key that is computed, token by token."""
        q = np.broadcast_to(self.q_sizes, (self.heads, self.q_blocks)).astype(np.float64)
        k = np.broadcast_to(self.k_sizes, (self.heads, self.k_blocks)).astype(np.float64)
        row = np.repeat(np.arange(len(self.rows.indptr) - 1), np.diff(self.rows.indptr))
        pairs = q.ravel()[row] * k[row // max(self.q_blocks, 1), self.rows.indices]
        return float(pairs.sum() / max((q.sum(axis=1) * k.sum(axis=1)).sum(), 1.0))

    def to_mask(self) -> np.ndarray:
        """Every pair of a query and a key, shape (heads, queries, keys): for tests and pictures; it is as large as dense attention."""
        blocks = self.rows.mask(self.k_blocks).reshape(self.heads, self.q_blocks, self.k_blocks)
        q, k = (np.broadcast_to(each, (self.heads, each.shape[1])) for each in (self.q_sizes, self.k_sizes))
        return np.stack([np.repeat(np.repeat(blocks[h], q[h], axis=0), k[h], axis=1) for h in range(self.heads)])

    def transpose(self) -> Rows:
        """For each head and key block, the query blocks that read it: what a backward pass walks."""
        return self.rows.transpose(self.heads, self.k_blocks)

    def swapped(self) -> Self:
        """The index with queries and keys in each other's place."""
        rows, order = self.rows.transposition(self.heads, self.k_blocks)
        weight = None if self.log_weight is None else self.log_weight[order]
        return type(self)(rows, self.k_sizes, self.q_sizes, self.heads, weight)

    def validate(self, heads: int, q_tokens: int, k_tokens: int, *, may_be_empty: bool = False) -> None:
        """Check that it fits attention of so many heads, queries and keys.

        Raises
        ------
        InputError
            Naming what does not: sizes that do not sum to the length, an index out of range, a block named twice in a row (its keys would
            count twice), or a row without keys.
        """
        if self.heads not in (1, heads):
            raise InputError(f"the index is of {self.heads} heads, the tensors have {heads}; give one for all, or one each.")
        for name, sizes, tokens in (("query", self.q_sizes, q_tokens), ("key", self.k_sizes, k_tokens)):
            if sizes.ndim != 2 or len(sizes) not in (1, self.heads):
                raise InputError(f"sizes of {name} blocks must have the shape (1 or {self.heads}, blocks), got {sizes.shape}.")
            if (sizes < 0).any() or (sizes.sum(axis=1) != tokens).any():
                raise InputError(f"sizes of {name} blocks sum to {sizes.sum(axis=1).tolist()[:4]}, not to the {tokens} tokens there are.")
        for rows in (self.rows, self.negligible):
            if rows is not None:
                self._check(rows)
        if self.log_weight is not None and (self.log_weight.shape != self.rows.indices.shape or not np.isfinite(self.log_weight).all()):
            raise InputError(f"log_weight must be finite and of shape {self.rows.indices.shape}, got {self.log_weight.shape}.")
        if not may_be_empty:
            named = self._keys_of_rows()
            q = np.broadcast_to(self.q_sizes, (self.heads, self.q_blocks)).ravel()
            if ((named == 0) & (q > 0)).any():
                row = int(np.argmax((named == 0) & (q > 0)))
                raise InputError(
                    f"query block {row % self.q_blocks} of head {row // self.q_blocks} reads no key; give it one, or allow it by "
                    'on_empty="zero".'
                )

    def _check(self, rows: Rows) -> None:
        indptr, indices = rows.indptr, rows.indices
        if len(indptr) != self.heads * self.q_blocks + 1 or indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
            raise InputError(f"indptr must rise from 0 to {len(indices)} over {self.heads} x {self.q_blocks} rows, got {indptr.shape}.")
        if len(indices) and (indices.min() < 0 or indices.max() >= self.k_blocks):
            raise InputError(f"key blocks are 0 to {self.k_blocks - 1}, got {int(indices.min())} to {int(indices.max())}.")
        step = np.diff(indices) <= 0
        step[indptr[1:-1][(indptr[1:-1] > 0) & (indptr[1:-1] < len(indices))] - 1] = False  # from one row to the next
        if step.any():
            row = int(np.searchsorted(indptr, int(np.argmax(step)), side="right")) - 1
            raise InputError(
                f"row {row} does not name its key blocks in ascending order, each once: {indices[indptr[row] : indptr[row + 1]][:8]}."
            )

    def _keys_of_rows(self) -> np.ndarray:
        """Keys that each row reads."""
        k = np.broadcast_to(self.k_sizes, (self.heads, self.k_blocks))
        row = np.repeat(np.arange(self.heads * self.q_blocks), np.diff(self.rows.indptr))
        return np.bincount(row, k[row // max(self.q_blocks, 1), self.rows.indices], minlength=self.heads * self.q_blocks)


class AttentionSpec(Message, frozen=True):
    """What a selector knows before the trial: head dimension, block size, and the density it may spend."""

    head_dim: int
    block: int
    density: float


class Scene(Message, frozen=True):
    """What a selector sees: queries and keys of some heads, after the layout's permutation, and their blocks.

    Parameters
    ----------
    q, k : ndarray of float32, shape (heads, queries or keys, head dimension)
    q_blocks, k_blocks : Blocks
        Their ``order`` says which token of the model lies at each place.
    keep : int
        Key blocks that a query block may read on average.
    grid : Grid or None
        Where the tokens lie, if that is known.
    """

    q: np.ndarray
    k: np.ndarray
    q_blocks: Blocks
    k_blocks: Blocks
    keep: int
    grid: Grid | None = None

    def pooled(self, which: str = "q", how: str = "mean") -> np.ndarray:
        """Mean, max or min of each block, shape (heads, blocks, head dimension); 0 for an empty block."""
        x, blocks = (self.q, self.q_blocks) if which == "q" else (self.k, self.k_blocks)
        return pooled(x, blocks, how)


def text_blocks(scene: Scene) -> tuple[int, int]:
    """Leading blocks of queries and of keys that hold any text: these read everything and are read by all, whatever a selector says."""
    text = 0 if scene.grid is None else scene.grid.text
    if not text:
        return 0, 0
    rows, columns = (int((np.cumsum(each.sizes, axis=1) < text).sum(axis=1).max()) + 1 for each in (scene.q_blocks, scene.k_blocks))
    return rows, columns


def pooled(x: np.ndarray, blocks: Blocks, how: str = "mean") -> np.ndarray:
    """Mean, max or min over the tokens of each block, shape (heads, blocks, dimension); 0 for an empty block."""
    found = np.zeros((len(x), blocks.count, x.shape[2]), x.dtype)
    if len(blocks.sizes) not in (1, len(x)):
        raise InputError(f"blocks of {len(blocks.sizes)} heads do not fit {len(x)} heads.")
    size = int(blocks.sizes[0, 0]) if blocks.count else 0
    if size and len(blocks.sizes) == 1 and (blocks.sizes == size).all():  # the usual case, and several times faster
        cut = x.reshape(len(x), blocks.count, size, x.shape[2])
        return np.asarray(cut.mean(axis=2) if how == "mean" else _ufunc(how).reduce(cut, axis=2))
    starts = blocks.starts()
    for h in range(len(x)):
        sizes = blocks.sizes[h % len(blocks.sizes)]
        filled = np.flatnonzero(sizes)
        if len(filled):
            made = _ufunc(how).reduceat(x[h], starts[h % len(starts)][filled], axis=0)
            found[h, filled] = made / sizes[filled, None] if how == "mean" else made
    return found


def _ufunc(how: str) -> np.ufunc:
    """The function that pools two tokens."""
    return {"mean": np.add, "max": np.maximum, "min": np.minimum}[how]


class Selection(Message, frozen=True):
    """The answer: for each head, query block and key block whether it is computed; ``keep`` of each row on average at most.

    Parameters
    ----------
    mask : ndarray of bool, shape (heads or 1, query blocks, key blocks)
    """

    mask: np.ndarray


class Selector(Protocol):
    """Decides which key blocks each query block reads. See :class:`cloudchamber.core.policy.Policy` for a base class."""

    def reset(self, spec: AttentionSpec, rng: np.random.Generator) -> None:
        """Forget everything; called once before each trial."""
        ...

    def select(self, scene: Scene) -> Selection:
        """Return what is computed."""
        ...


def scale_of(head_dim: int) -> float:
    """The factor on logits: 1 / sqrt(head dimension)."""
    return 1.0 / float(np.sqrt(head_dim))


def changed(index: BlockIndex, **fields: object) -> BlockIndex:
    """The index with some fields replaced."""
    return msgspec.structs.replace(index, **fields)


def kept(scores: np.ndarray, keep: int) -> np.ndarray:
    """The ``keep`` largest of each row of scores as a mask, ties to the lower block.

    Examples
    --------
    >>> kept(np.array([[1.0, 3.0, 3.0, 0.0]]), 2)
    array([[False,  True,  True, False]])
    """
    count = scores.shape[-1]
    if not 0 < keep < count or np.isnan(scores).any():
        mask = np.zeros(scores.shape, bool)
        np.put_along_axis(mask, np.argsort(-scores, axis=-1, kind="stable")[..., :keep], True, axis=-1)
        return mask
    least = np.partition(scores, count - keep, axis=-1)[..., count - keep, None]  # a cut costs a fraction of a sort
    above, equal = scores > least, scores == least
    left = keep - above.sum(axis=-1, keepdims=True)
    return np.asarray(above | (equal & (np.cumsum(equal, axis=-1) <= left)))


def block_mass(q: np.ndarray, k: np.ndarray, q_blocks: Blocks, k_blocks: Blocks) -> np.ndarray:
    """Attention that the queries of each block pay to each key block, averaged over these queries: (heads, query blocks, key blocks)."""
    found = np.zeros((len(q), q_blocks.count, k_blocks.count))
    for h in range(len(q)):
        logits = (q[h] @ k[h].T).astype(np.float64) * scale_of(q.shape[2])
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        found[h] = pooled(_summed(p, k_blocks.of_head(h))[None], q_blocks.of_head(h))[0]
    return found


def _summed(p: np.ndarray, blocks: Blocks) -> np.ndarray:
    filled = np.flatnonzero(blocks.sizes[0])
    made = np.zeros((len(p), blocks.count))
    made[:, filled] = np.add.reduceat(p, blocks.starts()[0][filled], axis=1)
    return made
