"""First come, first served."""

from __future__ import annotations

from cloudchamber.core.policy import Policy
from cloudchamber.engine.model import SchedulerPolicy


class FCFS(Policy, SchedulerPolicy):
    """Serve requests in order of arrival, preempted ones first: the default of vLLM and SGLang's fallback.

    Examples
    --------
    >>> FCFS()
    FCFS()
    """
