"""The nouns of a search: candidates and their scores, tasks, proposals, verdicts, spend and budgets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from cloudchamber.core.errors import ChamberError, InputError

if TYPE_CHECKING:
    import numpy as np

Status = Literal["told", "rejected", "void", "scored", "archived"]


class BudgetSpent(ChamberError):
    """Nothing is left to spend."""


@dataclass(frozen=True)
class Spend:
    """What proposals cost: tokens read and written by a model, and dollars."""

    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        return Spend(self.tokens + other.tokens, self.usd + other.usd)


@dataclass(frozen=True)
class Budget:
    """Where a search stops; whichever limit is met first.

    Parameters
    ----------
    evaluations : int
        Told candidates that leave stage 0, whatever trials each costs.
    tokens : int or None
        Tokens of language models.
    usd : float or None
    wall_s : float or None
        Seconds of this and all earlier sittings of the run.
    """

    evaluations: int = 200
    tokens: int | None = None
    usd: float | None = None
    wall_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("evaluations", "tokens", "usd", "wall_s"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not math.isfinite(value) or value <= 0):
                raise InputError(f"the budget's {name} must be above 0, got {value!r}.")
        if not isinstance(self.evaluations, int):
            raise InputError(f"the budget's evaluations must be a whole number, got {self.evaluations!r}.")


@dataclass(frozen=True)
class Proposal:
    """A new candidate's source, where it comes from, and what it cost to make.

    Parameters
    ----------
    source : str
        A policy file: one class with the Protocol's verbs.
    parents : tuple of int
        Candidates it was made of.
    note : str
        What was changed, in a few words.
    spend : Spend
    """

    source: str
    parents: tuple[int, ...] = ()
    note: str = ""
    spend: Spend = Spend()


@dataclass(frozen=True, eq=False)
class Scored:
    """A candidate that was told, with all that is known of it.

    Parameters
    ----------
    number : int
        In order of telling, from 1; the starting policies come first.
    source : str
    parents : tuple of int
    proposer : str
    note : str
    status : {"told", "rejected", "void", "scored", "archived"}
    stage : int
        The last stage of the cascade it entered.
    score : float or None
        Mean quality over the training workloads: 1 is the bound. None when void.
    scores : mapping of str to float
        Quality per training workload.
    behaviour : tuple of float
        The next two metrics of the study, scaled to [0, 1].
    objective : float or None
        Mean objective over the training trials, in the study's unit.
    validation : float or None
        Mean quality on the hidden workloads; for archive entrants.
    trace : str
        Hash of every action on the smoke and training trials.
    feedback : str
        From training trials only. Untrusted: a candidate may have written parts of it.
    reason : str
        Why it was rejected, void or stopped early.
    """

    number: int
    source: str
    parents: tuple[int, ...] = ()
    proposer: str = "start"
    note: str = ""
    status: Status = "told"
    stage: int = 0
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    behaviour: tuple[float, ...] = ()
    objective: float | None = None
    validation: float | None = None
    trace: str = ""
    feedback: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Task:
    """An invitation to propose a candidate.

    Parameters
    ----------
    id : str
        To be given back with the answer.
    number : int
    proposer : str
        Which proposer the search would use; ``external`` for an agent's.
    parents : tuple of int
        Candidates to start from, the first is the main one.
    lease_s : float
        Seconds until the task counts as abandoned; a later answer is taken once all the same.
    """

    id: str
    number: int
    proposer: str
    parents: tuple[int, ...]
    lease_s: float


@dataclass(frozen=True)
class Verdict:
    """What became of a told candidate.

    Parameters
    ----------
    candidate : int
    status : {"rejected", "void", "scored", "archived"}
    score : float or None
    reason : str
    feedback : str
    is_best : bool
    """

    candidate: int
    status: Status
    score: float | None
    reason: str
    feedback: str
    is_best: bool


@dataclass(frozen=True, eq=False)
class Context:
    """What a proposer works from.

    Parameters
    ----------
    parents : tuple of Scored
        The first is to be improved; the others are inspirations.
    starts : tuple of Scored
        The starting policies: the study's siblings.
    history : History
        Every candidate told so far.
    problem : Problem
        The study in words and types.
    """

    parents: tuple[Scored, ...]
    starts: tuple[Scored, ...]
    history: History
    problem: Problem


class History(Protocol):
    """Read access to the told candidates."""

    def of_skeleton(self, skeleton: str, after: int = 0) -> list[Scored]:
        """Candidates that differ from each other by numeric literals only, told after one, in order of telling."""


@dataclass(frozen=True)
class Problem:
    """A study as a proposer sees it: nothing hidden is in it.

    Parameters
    ----------
    study, title, text : str
    objective : str
        Name, unit and direction.
    is_maximised : bool
    model_source : str
        The module that defines messages and Protocol.
    verbs : tuple of str
    features : mapping of str to tuple of str
        Fields and properties of every message that are numbers, by its class name.
    others : frozenset of str
        Names of fields that are not numbers.
    libraries : tuple of str
    """

    study: str
    title: str
    text: str
    objective: str
    is_maximised: bool
    model_source: str
    verbs: tuple[str, ...]
    features: Mapping[str, tuple[str, ...]]
    others: frozenset[str]
    libraries: tuple[str, ...]


class Proposer(Protocol):
    """Makes a new candidate out of old ones."""

    name: str

    def propose(self, context: Context, rng: np.random.Generator) -> Proposal | None:
        """Return a proposal; None if it has nothing to say about these parents.

        Raises
        ------
        ProposerUnavailable
            If it cannot work now (a dead endpoint); the search goes on with the others.
        """


class ProposerUnavailable(ChamberError):
    """A proposer cannot work now.

    Parameters
    ----------
    message : str
    spend : Spend
        What was spent all the same.
    """

    def __init__(self, message: str, spend: Spend | None = None) -> None:
        super().__init__(message)
        self.spend = spend or Spend()


class ModelUnavailable(ProposerUnavailable):
    """The endpoint that a proposer asks gives no answer."""
