"""The longest cached prefix first."""

from __future__ import annotations

from collections.abc import Sequence

from cloudchamber.core.policy import Integer, Policy
from cloudchamber.engine.model import ReqView, SchedulerPolicy, View


class LongestPrefixMatch(Policy, SchedulerPolicy):
    """Serve the request with most tokens in the prefix cache: SGLang's default. With a long queue, in order of arrival.

    A request whose prefix is not cached can wait for as long as others' are.

    Parameters
    ----------
    fcfs_above : int, default 128
        Length of the queue beyond which SGLang spares itself the matching.

    Reference: "SGLang: Efficient Execution of Structured Language Model Programs".
    """

    _constraints = {"fcfs_above": Integer(0)}

    def __init__(self, fcfs_above: int = 128) -> None:
        self.fcfs_above = fcfs_above

    def order(self, view: View, waiting: Sequence[ReqView]) -> Sequence[int]:
        """By cached tokens, preempted ones first, then by arrival."""
        if len(waiting) > self.fcfs_above:
            return super().order(view, waiting)
        return [r.id for r in sorted(waiting, key=lambda r: (not r.is_preempted, -r.n_cached_now, r.arrival, r.id))]
