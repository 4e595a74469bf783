"""One step of decoding, token by token: each head reads its own keys, weighted, and nothing of the cache but those.

The query heads of a group walk the cache together, a stretch at a time, so a key row that several of them read comes from memory once.
A cache that is a view of a larger one is read where it lies.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from torch import Tensor

from cloudchamber.attention.kernels.plan import Plan
from cloudchamber.core.errors import InputError

READS_LITTLE = True  # inputs are neither looked through nor copied beforehand
STRETCH = 128  # keys that stay in cache while a group's heads read them
ORDERED = {"reassoc", "contract", "nsz", "arcp"}  # sums in any order; but NaN and infinity must be seen


@numba.njit(fastmath=ORDERED)
def _upto(tokens, t, end, limit):  # type: ignore[no-untyped-def] # pragma: no cover
    """The first entry from ``t`` on whose token is not below ``limit``."""
    while t < end and tokens[t] < limit:
        t += 1
    return t


@numba.njit(fastmath=ORDERED)
def _logits(row, k, first, step, tokens, bias, scale, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Scaled products with the keys of ``tokens`` into ``out``; their largest, NaN if one is not finite."""
    high, fine = np.float32(-np.inf), True
    for t in range(len(tokens)):
        key = k[first + tokens[t] * step :][: len(row)]
        s = np.float32(0.0)
        for d in range(len(row)):
            s += row[d] * key[d]
        s *= scale
        if len(bias):
            s += bias[t]
        out[t] = s
        fine &= np.isfinite(s)
        high = max(high, s)
    return high if fine else np.float32(np.nan)


@numba.njit(fastmath=ORDERED)
def _values(out, v, first, step, tokens, p):  # type: ignore[no-untyped-def] # pragma: no cover
    """Add the value rows of ``tokens`` by their shares: four at a time, or most of it were loads and stores of ``out``."""
    width, whole = len(out), len(tokens) // 4 * 4
    for t in range(0, whole, 4):
        a, b = v[first + tokens[t] * step :][:width], v[first + tokens[t + 1] * step :][:width]
        c, e = v[first + tokens[t + 2] * step :][:width], v[first + tokens[t + 3] * step :][:width]
        pa, pb, pc, pe = p[t], p[t + 1], p[t + 2], p[t + 3]
        for d in range(width):
            out[d] += pa * a[d] + pb * b[d] + pc * c[d] + pe * e[d]
    for t in range(whole, len(tokens)):
        a = v[first + tokens[t] * step :][:width]
        for d in range(width):
            out[d] += p[t] * a[d]


@numba.njit(nogil=True, cache=True, fastmath=ORDERED)
def _attend(q, k, v, k_steps, v_steps, indptr, tokens, bias, scale, group, first, last, out, lse, p, p_start):  # type: ignore[no-untyped-def] # pragma: no cover
    """Key heads ``first`` to ``last``; ``p`` receives each head's probabilities from ``p_start``. False: a logit is not finite."""
    shared = len(indptr) == 2
    at, high = np.zeros(group, np.int64), np.zeros(group, np.float32)
    for each in range(first, last):
        for values in (False, True):
            longest = 0
            for m in range(group):
                row = 0 if shared else each * group + m
                at[m] = indptr[row]
                if indptr[row + 1] > indptr[row]:
                    longest = max(longest, tokens[indptr[row + 1] - 1] + 1)
                if not values:
                    high[m] = -np.inf
                    out[each * group + m] = 0.0
            for limit in range(STRETCH, longest + STRETCH, STRETCH):
                for m in range(group):
                    n = each * group + m
                    row = 0 if shared else n
                    begin, end = at[m], _upto(tokens, at[m], indptr[row + 1], limit)
                    at[m] = end
                    some, shift = tokens[begin:end], p_start[n] - indptr[row]
                    room = p[shift + begin : shift + end]
                    if values:
                        _values(out[n], v, each * v_steps[0], v_steps[1], some, room)
                        continue
                    weights = bias[begin:end]
                    most = _logits(q[n], k, each * k_steps[0], k_steps[1], some, weights, scale, room)
                    if np.isnan(most):
                        return False
                    high[m] = max(high[m], most)
            if values:
                continue
            for m in range(group):
                n = each * group + m
                room = p[p_start[n] : p_start[n + 1]]
                total = np.float32(0.0)
                for t in range(len(room)):
                    room[t] = np.exp(room[t] - high[m])
                    total += room[t]
                room /= total
                lse[n] = high[m] + np.log(total) if len(room) else -np.inf
    return True


def _laid(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The memory from the first element to the last, and how far apart heads and tokens are; copied only where rows are scattered."""
    if x.stride(2) != 1 or min(x.stride()) < 0:
        x = x.contiguous()
    span = 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
    flat = torch.as_strided(x.detach(), (span,), (1,), x.storage_offset())
    return flat.numpy(), np.array(x.stride()[:2], np.int64)


def attend(
    q: Tensor, k: Tensor, v: Tensor, indptr: np.ndarray, tokens: np.ndarray, log_weight: np.ndarray | None, scale: float
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Output, log-sum-exp, and the probability of each token that each head reads.

    Parameters
    ----------
    q : Tensor of float32, shape (heads, dimension)
    k, v : Tensor of float32, shape (key heads, tokens, dimension)
    indptr : ndarray of int, shape (heads + 1,) or (2,)
        Where the tokens of each head begin; with two numbers all heads read the same.
    tokens : ndarray of int
        In ascending order for each head, each once; not checked here.
    log_weight : ndarray of float32 or None
        Of each token.

    Raises
    ------
    InputError
        If a logit is not finite: a query or a key that is read holds NaN or infinity, or they are too large for float32.
    """
    heads, group = len(q), len(q) // max(len(k), 1)
    indptr, tokens = np.ascontiguousarray(indptr, np.int64), np.ascontiguousarray(tokens, np.int64)
    lengths = np.broadcast_to(np.diff(indptr), (heads,))
    p_start = np.concatenate([[0], np.cumsum(lengths)])
    out, lse, p = q.new_empty(heads, v.shape[2]), q.new_empty(heads), np.empty(int(p_start[-1]), np.float32)
    bias = np.zeros(0, np.float32) if log_weight is None else np.ascontiguousarray(log_weight, np.float32)
    (keys, k_steps), (values, v_steps) = _laid(k), _laid(v)
    rows = q.detach().contiguous().numpy()
    threads = min(torch.get_num_threads(), len(k))
    cuts = np.linspace(0, len(k), max(threads, 1) + 1).astype(int)

    def work(part: int) -> bool:
        where = (np.float32(scale), group, cuts[part], cuts[part + 1])
        return bool(_attend(rows, keys, values, k_steps, v_steps, indptr, tokens, bias, *where, out.numpy(), lse.numpy(), p, p_start))

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            fine = all(list(pool.map(work, range(threads))))
    else:
        fine = work(0)
    if not fine:
        raise InputError(f"a logit is not finite: q of shape {tuple(q.shape)} or a key that is read holds NaN, infinity or huge numbers.")
    return out, lse, p


def _tokens(plan: Plan) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Rows of single keys, of one query a head."""
    blocks = plan.q_starts[:, 1:] > plan.q_starts[:, :-1]
    if (plan.q_starts[:, -1] != 1).any():
        raise InputError(f"the decode kernel takes one query a head, got {int(plan.q_starts[0, -1])}; use backend='native' or 'gather'.")
    which = np.argmax(blocks, axis=1)  # blocks without a query may stand beside the one that has it
    rows = np.array([plan.row(head, int(which[head if len(which) > 1 else 0])) for head in range(plan.index.heads)])
    length = (plan.stop - plan.start).astype(np.int64)
    before = np.concatenate([[0], np.cumsum(length)])
    bounds = before[plan.indptr]
    tokens = np.repeat(plan.start - before[:-1], length) + np.arange(before[-1])
    weight = None if plan.weight is None else np.repeat(plan.weight, length)
    if plan.index.q_blocks > 1:  # rows of empty blocks name keys that nobody reads
        kept = np.concatenate([np.arange(bounds[row], bounds[row + 1]) for row in rows])
        indptr = np.concatenate([[0], np.cumsum(bounds[rows + 1] - bounds[rows])])
        return indptr, tokens[kept], None if weight is None else weight[kept]
    return bounds, tokens, weight


def forward_with_mass(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Output, log-sum-exp, and the probability of every key, 0 where it is not read."""
    indptr, tokens, weight = _tokens(plan)
    out, lse, p = attend(q[:, 0], k, v, indptr, tokens, weight, scale)
    mass = np.zeros((len(q), k.shape[1]), np.float32)
    lengths = np.broadcast_to(np.diff(indptr), (len(q),))
    columns = tokens if len(indptr) > 2 or len(q) == 1 else np.tile(tokens, len(q))
    mass[np.repeat(np.arange(len(q)), lengths), columns] = p
    return out[:, None], lse[:, None], torch.from_numpy(mass)


def forward(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of one query a head."""
    out, lse, _ = attend(q[:, 0], k, v, *_tokens(plan), scale)
    return out[:, None], lse[:, None]
