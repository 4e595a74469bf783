"""The shortest prompt first."""

from __future__ import annotations

from collections.abc import Sequence

from cloudchamber.core.policy import Policy
from cloudchamber.engine.model import ReqView, SchedulerPolicy, View


class ShortestPrompt(Policy, SchedulerPolicy):
    """Serve the request with the fewest prompt tokens to compute: shortest job first, as far as a prompt tells how long a job is.

    The answer's length is not known beforehand, so that this orders prefills only. Long prompts may starve.

    Examples
    --------
    >>> ShortestPrompt()
    ShortestPrompt()
    """

    def order(self, view: View, waiting: Sequence[ReqView]) -> Sequence[int]:
        """By prompt tokens that are not cached, preempted ones first."""
        return [r.id for r in sorted(waiting, key=lambda r: (not r.is_preempted, r.n_input - r.n_cached_now, r.arrival, r.id))]
