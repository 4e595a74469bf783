"""Fast-forward: as many equal decode steps at once as nothing can disturb, to the bit what stepping would give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .seams import KVManager, Scheduled, StepPlan

if TYPE_CHECKING:
    from .core import EngineCore


def ends(core: EngineCore, plan: StepPlan, limit: float) -> np.ndarray | None:
    """Ends of the next equal decode steps that start before ``limit`` (s), shape (steps,); None where stepping is needed.

    In between there is no finish, no full pool, and no registered block that a waiting request may be hoping for. Durations are summed
    in the order of stepping.
    """
    durations = getattr(core.executor, "durations", None)
    if durations is None or core.executor.lookahead or len(plan.entries) != len(core.running):
        return None
    if not all(each.is_decode and each.request.tokens is None for each in plan.entries):
        return None
    steps = _steps_in_pool(core, plan, min(each.request.max_tokens - each.request.n_output for each in plan.entries))
    if steps < 2:
        return None
    _, _, decodes, context = plan.load()
    times = np.cumsum(np.concatenate(([core.clock.now()], durations(decodes, context, steps))))
    steps = int(np.searchsorted(times[:steps], limit))
    return times[1 : steps + 1] if steps > 1 else None


def _to_next_block(plan: StepPlan, size: int) -> np.ndarray:
    """For each entry the first later step that needs one more block."""
    return np.array([-each.end % size + 1 for each in plan.entries])


def _steps_in_pool(core: EngineCore, plan: StepPlan, most: int) -> int:
    size, first = core.kv.block_tokens, _to_next_block(plan, core.kv.block_tokens)
    if core.waiting and any(_knows_answer(each, size) for each in plan.entries):
        most = min(most, int(first.min()) - 1)
    available = core.kv.counts().available

    def fits(steps: int) -> bool:
        return int(np.maximum(0, (steps - 1 - first) // size + 1).sum()) <= available

    low, high = 1, most + 1  # one step has its blocks already
    if fits(most):
        return most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _knows_answer(each: Scheduled, size: int) -> bool:
    """Whether blocks of the answer will be registered."""
    return len(each.request.hashes) * size >= each.end


def grow(kv: KVManager, plan: StepPlan, steps: int) -> None:
    """Allocate the blocks of ``steps`` steps, and register those with a known hash, in the order in which stepping would."""
    size = kv.block_tokens
    first = _to_next_block(plan, size)
    events = [(step, False, place) for place in range(len(plan.entries)) for step in range(int(first[place]), steps, size)]
    for place, each in enumerate(plan.entries):
        if _knows_answer(each, size):  # a full block is registered one step before the next one is needed
            events += [(step - 1, True, place) for step in range(int(first[place]), steps + 1, size)]
    for step, is_full, i in sorted(events):
        each = plan.entries[i]
        if is_full:
            kv.commit(each.request, each.end + step)
        elif not kv.allocate(each.request, each.end + step):
            raise AssertionError("fast-forward ran out of blocks")  # a fault of _steps_in_pool, of no input
