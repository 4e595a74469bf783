"""How a run searches: what its store keeps, so that ``resume`` needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from cloudchamber.core.errors import InputError, unknown

from .archive import ARCHIVES
from .proposers import PROPOSERS


@dataclass(frozen=True)
class Settings:
    """How a run searches; kept in its store, so that ``resume`` needs nothing else.

    Parameters
    ----------
    start : str or None
        The policy to start from: a built-in's name, ``Name(key=value)``, or ``file.py:Class``. None: every built-in.
    workloads : tuple of str
        Names; empty: all that are not optional.
    trace : str or None
        The user's own trace instead.
    params : mapping of str to str
        ``--set`` of the trace or the workloads.
    siblings : bool
        Whether parts of the study's other policies may be spliced in. Without, what is found was not there before.
    proposers : tuple of str
    archive : {"mixed", "pareto", "top", "starts"}
    trials : tuple of int
        Per workload: for training, for validation, and for the held-out verdict.
    jail : str
        Level; ``auto`` is resolved when the run begins.
    seed : int or None
        Of everything random, the hidden trials included; None draws one.
    llm : mapping
        ``base_url``, ``model``, prices; never a key.
    """

    start: str | None = None
    workloads: tuple[str, ...] = ()
    trace: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    siblings: bool = True
    proposers: tuple[str, ...] = ("tune", "mutate", "splice")
    archive: str = "mixed"
    trials: tuple[int, int, int] = (6, 6, 24)
    jail: str = "auto"
    seed: int | None = None
    llm: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.proposers:
            if name not in PROPOSERS:
                raise unknown("proposer", name, PROPOSERS)
        if not self.proposers:
            raise InputError(f"name at least one proposer of {', '.join(PROPOSERS)}.")
        if self.archive not in ARCHIVES:
            raise unknown("archive", self.archive, ARCHIVES)
        if len(self.trials) != 3 or min(self.trials) < 1 or self.trials[2] < 2:
            raise InputError(f"trials takes three whole numbers (training, validation, held-out; at least 1, 1, 2), got {self.trials}.")


def check_same(given: Settings, known: Settings, path: str) -> None:
    """Refuse settings that differ from those of the run in the file, but for what was not given."""
    default = Settings()
    names = [
        each.name for each in fields(Settings)
        if getattr(given, each.name) not in (getattr(default, each.name), getattr(known, each.name))
    ]  # fmt: skip
    if names:
        raise InputError(
            f"{path} holds a run with another {' and '.join(names)}; go on with `chamber evolve resume`, or give another --store."
        )


def settings_from(known: Mapping[str, Any]) -> Settings:
    """Settings as a store keeps them."""
    found: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items() if key != "study"}
    return Settings(**found)
