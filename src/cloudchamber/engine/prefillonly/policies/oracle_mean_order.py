"""The best order there is for a handful of requests, by looking at all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from cloudchamber.core.errors import InputError
from cloudchamber.core.policy import Instance, Parameters
from cloudchamber.engine.model import ReqView, Upcoming, View
from cloudchamber.engine.prefillonly.policies.keeping import SuffixDiscard, _Keeping

MOST = 9  # requests: 362,880 orders


class OracleMeanOrder(_Keeping):
    """Serve in the order, and after the waits for requests yet to come, that make the mean latency least. It is told the future.

    It tries every order (those that cannot win are cut short) on a model of the prefix cache: least recently used out first, each
    prompt keeping what ``prefix_keep`` says. So it is the best of all orders *with that rule*, one request at a time.

    Of more than 9 requests it cannot try every order: it then serves the one that takes least time with what is cached now, as
    :class:`CalibratedSJF` with ``lam=0`` and the true cost does, and is no optimum.

    Parameters
    ----------
    prefix_keep : PrefixKeep, default SuffixDiscard()
    """

    _constraints = {"prefix_keep": Instance(Parameters)}
    clairvoyant = True

    def __init__(self, *, prefix_keep: Parameters = SuffixDiscard()) -> None:  # noqa: B008
        self.prefix_keep = prefix_keep

    def reset(self, spec: Any, rng: Any) -> None:
        """Find the order."""
        super().reset(spec, rng)
        if spec.future is None:
            raise InputError("OracleMeanOrder needs a trial whose requests are known, got no future.")
        self.is_exact_ = len(spec.future) <= MOST
        if not self.is_exact_:
            return
        self._best = float("inf")
        self._order: tuple[int, ...] = ()
        self._search((), tuple(spec.future), 0.0, 0.0, OrderedDict())
        self.turns_: list[int] = list(self._order)
        self.mean_s_ = self._best / len(spec.future)

    def order(self, view: View, waiting: Sequence[ReqView]) -> Sequence[int]:
        """By their place in the order found; of too many, by the time that each takes now."""
        if not self.is_exact_:
            return [r.id for r in sorted(waiting, key=lambda r: (self._seconds(r, r.n_cached_now), r.arrival, r.id))]
        place = {request: i for i, request in enumerate(self.turns_)}
        return sorted((r.id for r in waiting), key=place.__getitem__)

    def chunk(self, view: View, r: ReqView, budget: int) -> int:
        """Nothing before its turn."""
        return 0 if self.is_exact_ and r.id != self.turns_[0] else budget

    def on_admit(self, view: View, r: ReqView) -> None:
        """Its turn has come."""
        if self.is_exact_:
            self.turns_.remove(r.id)

    def _search(self, done: tuple[int, ...], left: tuple[Upcoming, ...], now: float, total: float, cache: OrderedDict[int, None]) -> None:
        if not left:
            if total < self._best:
                self._best, self._order = total, done
            return
        if total + self._least(left, now) >= self._best:
            return
        tried = []
        for job in left:
            after = cache.copy()
            end = max(now, job.arrival) + self._run(job, after)
            tried.append((end, job.id, job, after))
        for end, _, job, after in sorted(tried, key=lambda each: each[:2]):
            rest = tuple(each for each in left if each is not job)
            self._search((*done, job.id), rest, end, total + end - job.arrival, after)

    def _least(self, left: Sequence[Upcoming], now: float) -> float:
        """Less than the rest can add: each starts at once, with everything cached."""
        size = self.spec_.block_tokens
        return sum(max(0.0, now - job.arrival) + self._seconds(job, min(len(job.hashes), (job.n_input - 1) // size) * size) for job in left)

    def _seconds(self, job: Upcoming | ReqView, hit: int) -> float:
        miss = job.n_input - hit
        return float(self.spec_.cost.seconds(miss, miss * (hit + 0.5 * miss), 0, 0))

    def _run(self, job: Upcoming, cache: OrderedDict[int, None]) -> float:
        """Seconds of a job, and what it does to the cache, least recently used first."""
        size, pool = self.spec_.block_tokens, self.spec_.blocks
        usable = job.hashes[: (job.n_input - 1) // size]
        hits = next((i for i, block in enumerate(usable) if block not in cache), len(usable))
        kept = int(self.prefix_keep.keep_tokens(job.n_input, hits * size, pool * size, size))
        kept = min(max(kept, hits * size), pool * size)
        blocks = -(-job.n_input // size) if kept >= job.n_input else kept // size
        for block in job.hashes[:hits]:
            del cache[block]
        while len(cache) > pool - blocks:
            cache.popitem(last=False)
        for block in reversed(job.hashes[: min(blocks, job.n_input // size)]):
            if block in cache:  # computed anew though it was there: the older copy stays, where it was
                continue
            cache[block] = None
        return self._seconds(job, hits * size)
