"""First come, first served."""

from __future__ import annotations

from collections.abc import Sequence

from cloudchamber.core.policy import Policy
from cloudchamber.engine.model import ReqView, SchedulerPolicy, View


class FCFS(Policy, SchedulerPolicy):
    """Serve requests in order of arrival, preempted ones first: the default of vLLM and SGLang's fallback.

    Examples
    --------
    >>> FCFS()
    FCFS()
    """

    def order(self, view: View, waiting: Sequence[ReqView]) -> Sequence[int]:
        """By arrival, preempted ones first: the default said aloud, so that a search that starts here has something to change."""
        return [r.id for r in sorted(waiting, key=lambda r: (not r.is_preempted, r.arrival, r.id))]
