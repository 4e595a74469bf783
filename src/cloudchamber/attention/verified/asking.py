"""Asking a budget, and checking its answer."""

from __future__ import annotations

import math
from typing import Any, get_args

from cloudchamber.core.candidate import ask
from cloudchamber.core.errors import CandidateError

from .model import BudgetDecision, BudgetSpec, PilotStats, Reason

REASONS: tuple[Reason, ...] = get_args(Reason)


def asked(policy: Any, pilot: PilotStats, n_s: int, spec: BudgetSpec) -> BudgetDecision:
    """One decision, checked: in the simulator and in decoding alike, since a sample of another size than its weights say is silently wrong.

    Raises
    ------
    CandidateError
        If the answer is no decision, or not between the pilot and all residual keys, or the cap.
    """
    answer = ask(policy.budget, pilot, n_s)
    if not isinstance(answer, BudgetDecision) or type(answer.b) is not int or answer.reason not in REASONS:
        raise CandidateError(
            f"budget() must return BudgetDecision(b, reason, bound), a whole b and a reason of {', '.join(REASONS)}; got {answer!r}", "type"
        )
    least = min(pilot.b0, n_s)
    most = max(least, math.floor(spec.cap * n_s))
    if not least <= answer.b <= most:
        raise CandidateError(f"b is {answer.b}; it must be between the pilot's {least} and {most} keys", "type")
    return answer
