"""What no scheduler can beat: proven lower bounds on the mean latency, the work there is, and the hits there are to have.

Every bound is on the cost model's marginal seconds. A step lasts a and the marginal seconds of what is in it, and holds at most K
requests; so one second of clock does at most one second of marginal work, where each request that takes part counts a / K as its own.
That is a single machine with preemption, on which shortest remaining processing time first minimises the sum of completion times
over all schedules that know the future.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .model import EngineSpec
from .traces import Trace


@dataclass(frozen=True)
class Limits:
    """What bounds a trial.

    Parameters
    ----------
    mean_latency_s : float
        No policy's is lower.
    work_s : float
        Least marginal work of all requests together, with an unlimited cache; over the time from the first arrival to the last it is
        the load.
    span_s : float
        From the first arrival to the last.
    hit_share : float
        Share of full prompt blocks that an unlimited cache would hold.
    """

    mean_latency_s: float
    work_s: float
    span_s: float
    hit_share: float


def limits(trace: Trace, spec: EngineSpec) -> Limits:
    """Return the bounds of one trial."""
    serial, own = _least(trace, spec, None)
    best, work = _mean(trace, own, serial), float(own.sum())
    if trace.blocks is not None:
        charged = _least(trace, spec, _first_holders(trace))[1]  # each shared block paid for by its first holder
        best, work = max(best, _mean(trace, charged, serial)), float(charged.sum())
    return Limits(best, work, float(trace.arrival_s[-1] - trace.arrival_s[0]), trace.hit_share)


def srpt(arrival_s: np.ndarray, work_s: np.ndarray) -> np.ndarray:
    """Return completion times (s) under shortest remaining processing time first, arrivals in order."""
    ends = np.zeros(len(arrival_s))
    waiting: list[tuple[float, int]] = []
    now, i = 0.0, 0
    while waiting or i < len(arrival_s):
        if not waiting:
            now = max(now, float(arrival_s[i]))
        while i < len(arrival_s) and arrival_s[i] <= now:
            heapq.heappush(waiting, (float(work_s[i]), i))
            i += 1
        left, job = heapq.heappop(waiting)
        until = float(arrival_s[i]) if i < len(arrival_s) else np.inf
        if now + left <= until:
            now += left
            ends[job] = now
        else:
            heapq.heappush(waiting, (left - (until - now), job))
            now = until
    return ends


def _mean(trace: Trace, work_s: np.ndarray, serial_s: np.ndarray) -> float:
    """The better of two bounds for each part of the requests: alone on the engine, or together on one machine.

    Any part may be taken to the machine, the others costing it nothing; those whom SRPT delays most beyond their own minimum are
    tried in ever smaller numbers.
    """
    taken, best = np.ones(len(trace), dtype=bool), float(serial_s.sum())
    for _ in range(6):
        flow = srpt(trace.arrival_s[taken], work_s[taken]) - trace.arrival_s[taken]
        best = max(best, float(flow.sum() + serial_s[~taken].sum()))
        gains = flow > serial_s[taken]
        if gains.all() or not gains.any():
            break
        taken[np.flatnonzero(taken)[~gains]] = False
    return best / len(trace)


def _least(trace: Trace, spec: EngineSpec, payers: Sequence[tuple[float, float]] | None) -> tuple[np.ndarray, np.ndarray]:
    """Least seconds of each request alone on the engine, and least of the machine's; ``payers``: beside that, for shared blocks."""
    cost, size = spec.cost, spec.block_tokens
    together = min(spec.max_running, spec.token_budget)
    hits = _most_hits(trace, size)
    tokens = trace.n_input - hits
    prompt = cost.token_s * tokens + cost.attend_s * (trace.n_input.astype(float) ** 2 - hits.astype(float) ** 2) / 2
    steps = np.where(trace.n_output == 1, 1, -(-tokens // spec.token_budget) + trace.n_output - 1)  # one-token requests may come whole
    answer = np.array([_decodes(int(n), int(out), spec) for n, out in zip(trace.n_input, trace.n_output, strict=True)])
    work = prompt + answer
    extra = np.zeros(len(trace)) if payers is None else np.array(payers) @ np.array([[cost.token_s], [cost.attend_s]])[:, 0]
    return work + cost.step_s * steps, work + cost.step_s * steps / together + extra


def _decodes(n_input: int, n_output: int, spec: EngineSpec) -> float:
    """Least seconds for the tokens after the first: by decoding, or, after a preemption, by computing the last block's part again."""
    cost = spec.cost
    context = n_input + 1 + np.arange(n_output - 1, dtype=float)
    again = (context - 1) % spec.block_tokens + 1
    recomputed = cost.token_s * again + cost.attend_s * (context**2 - (context - again) ** 2) / 2
    return float(np.minimum(cost.decode_s + cost.read_s * context, recomputed).sum())


def _most_hits(trace: Trace, size: int) -> np.ndarray:
    """Tokens of each prompt that another request may have brought into the cache: the leading run of blocks that others have too."""
    hits = np.zeros(len(trace), dtype=np.int64)
    if trace.blocks is None:
        return hits
    holders: dict[int, int] = {}
    for each in trace.blocks:
        for block in set(each):
            holders[block] = holders.get(block, 0) + 1
    for i, each in enumerate(trace.blocks):
        usable = each[: (int(trace.n_input[i]) - 1) // size]
        hits[i] = size * next((k for k, block in enumerate(usable) if holders[block] == 1), len(usable))
    return hits


def _first_holders(trace: Trace) -> list[tuple[float, float]]:
    """For each request the tokens, and the tokens times their contexts, of shared blocks that it is the first to hold.

    A shared block is computed once at least, not before its first holder arrives, and before that holder is finished. Blocks that
    somebody pays for already (as its answer, or as the last block of its prompt) are left out.
    """
    assert trace.blocks is not None
    size, hits = trace.block_tokens, _most_hits(trace, trace.block_tokens)
    paid = {block for i, each in enumerate(trace.blocks) for block in each[int(hits[i]) // size :]}
    charged = []
    for i, each in enumerate(trace.blocks):
        mine = [k for k, block in enumerate(each[: int(hits[i]) // size]) if block not in paid]
        paid.update(each)
        charged.append((float(size * len(mine)), sum(size * (k * size + size / 2) for k in mine)))
    return charged
