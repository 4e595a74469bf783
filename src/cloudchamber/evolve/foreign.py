"""The Protocol of an imported evaluator.

A candidate is not a class of this Protocol but a whole program, as the evaluator's ``program_path`` takes it; the jail wraps program and
evaluator together behind this one verb.
"""

from __future__ import annotations

from typing import Protocol

from cloudchamber.core.messages import AnyFloat, Message


class Report(Message, frozen=True):
    """What an evaluator said of a program. All of it is untrusted: evaluator and program shared a process.

    Parameters
    ----------
    metrics : dict of str to float
    error : str
        Why it failed, in the evaluator's words; empty if it did not.
    text : str
        Whatever else it said.
    """

    metrics: dict[str, AnyFloat]
    error: str = ""
    text: str = ""


class Foreign(Protocol):
    """An evaluator with a program inside."""

    def evaluate(self, stage: str, seed: int) -> Report:
        """Evaluate the program: ``smoke`` runs the first stage only, or just compiles it; ``full`` runs everything."""
