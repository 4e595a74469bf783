"""What no scheduler can beat: proven lower bounds on the mean latency, the work there is, and the hits there are to have.

Every bound is on the cost model's marginal seconds. A step lasts a and the marginal seconds of what is in it, and holds at most K
requests; so one second of clock does at most one second of marginal work, where each request that takes part counts a / K as its own.
That is a single machine with preemption, on which shortest remaining processing time first minimises the sum of completion times
over all schedules that know the future.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import Counter
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


def limits(trace: Trace, spec: EngineSpec, machines: int = 1) -> Limits:
    """Return the bounds of one trial; several engines do no more than one that is as many times as fast."""
    cost, hits = spec.cost, _most_hits(trace, spec.block_tokens)
    serial, own = _least(trace, spec, hits)
    best, total = _mean(trace, trace.arrival_s, own / machines, serial), float(own.sum())
    if trace.blocks is not None:
        for spread in (False, True):
            since, tokens, attended = _charges(trace, hits, spread)
            work = own + cost.token_s * tokens + cost.attend_s * attended
            best, total = max(best, _mean(trace, since, work / machines, serial)), float(work.sum())
    return Limits(best, total, float(trace.arrival_s[-1] - trace.arrival_s[0]), trace.hit_share)


def least_work_s(trace: Trace, spec: EngineSpec) -> float:
    """Return the marginal seconds of all requests together, every shared block computed once."""
    hits = _most_hits(trace, spec.block_tokens)
    work = float(_least(trace, spec, hits)[1].sum())
    if trace.blocks is None:
        return work
    _, tokens, attended = _charges(trace, hits, spread=False)
    return work + spec.cost.token_s * float(tokens.sum()) + spec.cost.attend_s * float(attended.sum())


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


def _mean(trace: Trace, since_s: np.ndarray, work_s: np.ndarray, serial_s: np.ndarray) -> float:
    """The better of two bounds for each part of the requests: alone on the engine, or together on one machine.

    Any part may be taken to the machine, the others costing it nothing; those whom SRPT delays less than they need alone are left
    out, again and again.
    """
    taken, best = np.ones(len(trace), dtype=bool), float(serial_s.sum())
    for _ in range(6):
        chosen = np.flatnonzero(taken)
        chosen = chosen[np.argsort(since_s[chosen], kind="stable")]
        flow = srpt(since_s[chosen], work_s[chosen]) - trace.arrival_s[chosen]
        best = max(best, float(flow.sum() + serial_s[~taken].sum()))
        gains = flow > serial_s[chosen]
        if gains.all() or not gains.any():
            break
        taken[chosen[~gains]] = False
    return best / len(trace)


def _least(trace: Trace, spec: EngineSpec, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least seconds of each request alone on the engine, and least of the machine's, without the blocks it shares."""
    cost, together = spec.cost, min(spec.max_running, spec.token_budget)
    tokens = trace.n_input - hits
    prompt = cost.token_s * tokens + cost.attend_s * (trace.n_input.astype(float) ** 2 - hits.astype(float) ** 2) / 2
    steps = np.where(trace.n_output == 1, 1, -(-tokens // spec.token_budget) + trace.n_output - 1)  # one-token requests may come whole
    work = prompt + [_decodes(n, out, spec) for n, out in zip(trace.n_input.tolist(), trace.n_output.tolist(), strict=True)]
    return work + cost.step_s * steps, work + cost.step_s * steps / together


def _decodes(n_input: int, n_output: int, spec: EngineSpec) -> float:
    """Least seconds for the tokens after the first: by decoding, or, after a preemption, by computing the last block's part again."""
    if n_output == 1:
        return 0.0
    cost = spec.cost
    context = n_input + 1 + np.arange(n_output - 1, dtype=float)
    again = (context - 1) % spec.block_tokens + 1
    recomputed = cost.token_s * again + cost.attend_s * (context**2 - (context - again) ** 2) / 2
    return float(np.minimum(cost.decode_s + cost.read_s * context, recomputed).sum())


def _most_hits(trace: Trace, size: int) -> np.ndarray:
    """Tokens of each prompt that another request may have brought into the cache: the leading run of blocks that others have too.

    Who holds a block holds those before it, so that the run is found by bisection.
    """
    hits = np.zeros(len(trace), dtype=np.int64)
    if trace.blocks is None:
        return hits
    holders: Counter[int] = Counter()
    for each in trace.blocks:
        holders.update(each)
    for i, each in enumerate(trace.blocks):
        usable = min(len(each), (int(trace.n_input[i]) - 1) // size)
        hits[i] = size * bisect_left(each, True, 0, usable, key=lambda block: holders[block] == 1)
    return hits


def _charges(trace: Trace, hits: np.ndarray, spread: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who pays for shared blocks: from when on each request may be worked for, tokens, and Σ tokens x context.

    A shared block is computed once at least, not before its first holder arrives, and before any holder is finished. So it may be
    charged to its first holder; or spread over all, each of whom may then be worked for since the first one came. Blocks that somebody
    pays for already (as part of its answer, or as the last block of its prompt) are left out.
    """
    assert trace.blocks is not None
    size, since = trace.block_tokens, trace.arrival_s.copy()
    tokens, attended = np.zeros(len(trace)), np.zeros(len(trace))
    paid = {block for i, each in enumerate(trace.blocks) for block in each[int(hits[i]) // size :]}
    first: dict[int, int] = {}
    holders: Counter[int] = Counter()
    runs = [each[: int(hits[i]) // size] for i, each in enumerate(trace.blocks)]
    for run in runs:
        holders.update(run)
    for i, run in enumerate(runs):
        new = bisect_left(run, True, key=lambda block: block not in first)
        first.update((block, i) for block in run[new:])
        for k in range(0 if spread else new, len(run)):
            if run[k] not in paid:
                share = 1 / holders[run[k]] if spread else 1.0
                tokens[i] += share * size
                attended[i] += share * size * (k + 0.5) * size
                since[i] = min(since[i], trace.arrival_s[first[run[k]]])
    return since, tokens, attended
