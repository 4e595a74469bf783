"""First come, first served within each priority."""

from __future__ import annotations

from collections.abc import Sequence

from cloudchamber.core.policy import Policy
from cloudchamber.engine.model import ReqView, SchedulerPolicy, View


class PriorityFCFS(Policy, SchedulerPolicy):
    """Serve lower ``priority`` numbers first, each in order of arrival; who has the highest number gives its blocks up first.

    vLLM's ``--scheduling-policy priority``. Nothing keeps a low priority from starving.

    Examples
    --------
    >>> PriorityFCFS()
    PriorityFCFS()
    """

    def order(self, view: View, waiting: Sequence[ReqView]) -> Sequence[int]:
        """By priority, preempted ones first, then by arrival."""
        return [r.id for r in sorted(waiting, key=lambda r: (r.priority, not r.is_preempted, r.arrival, r.id))]

    def victim(self, view: View, running: Sequence[ReqView]) -> int | None:
        """The least urgent, and of those the last admitted."""
        return max(enumerate(running), key=lambda each: (each[1].priority, each[0]))[1].id
