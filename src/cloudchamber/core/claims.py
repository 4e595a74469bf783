"""Claims: published figures, stated so that rows of ``--json`` can decide them.

A study declares its claims; ``chamber claims --run`` runs the command of each, an assessor reads the rows and writes a
record (:mod:`cloudchamber.core.evidence.record`) with a verdict by rule. The tolerance is dated, and must be older than the run.
"""

from __future__ import annotations

import math
import re
from typing import Literal, get_args

import msgspec

from .errors import InputError
from .evidence.canonical import digest, instant
from .outcome import Metric

Kind = Literal["measured", "simulated", "analytic", "reported", "expert"]
AssessorName = Literal["threshold", "equivalence", "ordering", "bound"]
Reducer = Literal["mean", "ratio", "lead", "max", "min", "voids"]
Limit = Literal["other hardware", "toy scale", "own comparator", "tuned on test", "author-run"]

REDUCERS: dict[AssessorName, tuple[Reducer, ...]] = {
    "threshold": ("mean", "ratio"),
    "equivalence": ("mean", "ratio"),
    "ordering": ("lead",),
    "bound": ("max", "min", "voids"),
}


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the figure was published, and who gains from it: ``author``, ``vendor`` or ``independent``."""

    title: str
    place: str
    date: str
    interest: Literal["author", "vendor", "independent"] = "author"


class Published(msgspec.Struct, frozen=True, omit_defaults=True):
    """The published figure in its own words, and as a number on the scale of our estimate where there is one."""

    text: str
    number: float | None = None


class Population(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the claim is about.

    Parameters
    ----------
    scale : str
        In words, first what makes it smaller than the real thing: ``simulated; GCP H100 traces, 8 zones, 40 h jobs``.
    workloads : tuple of str
        Names of the study's workloads; all are needed.
    hardware : str
        Hardware class, ``any`` where results do not depend on it.
    allows_generated : bool
        Whether rows of a generated twin count. If not, they make the claim not testable here.
    """

    scale: str
    workloads: tuple[str, ...]
    hardware: str = "any"
    allows_generated: bool = False


class Tolerance(msgspec.Struct, frozen=True, omit_defaults=True):
    """The interval in which the estimate must lie, and since when that is so.

    Parameters
    ----------
    stated : str
        ISO date or time at which the limits were written down; a run before it cannot be judged by them.
    low, high : float or None
        None is an open end.
    """

    stated: str
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        instant(self.stated)
        if self.low is None and self.high is None:
            raise InputError("a tolerance needs low, high, or both.")
        if any(limit is not None and not math.isfinite(limit) for limit in (self.low, self.high)):
            raise InputError(f"limits of a tolerance must be finite, got {self.low} and {self.high}; leave an open end out.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise InputError(f"a tolerance needs low <= high, got {self.low} > {self.high}.")

    def contains(self, low: float, high: float | None = None) -> bool:
        """Say whether a value, or a whole interval, lies inside."""
        high = low if high is None else high
        return (self.low is None or low >= self.low) and (self.high is None or high <= self.high)

    def __str__(self) -> str:
        if self.low is None:
            return f"≤ {self.high:g}"
        return f"≥ {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:g}"


class Measure(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the figure is computed from rows.

    ======== ============================================================================ ========================
    reducer  estimate                                                                     interval
    ======== ============================================================================ ========================
    mean     mean of ``field`` over the first policy's trials                             over seeds
    ratio    sum over seeds of the first policy's field / that of ``over``                over seeds
    lead     smallest lead of a policy over the next, in the metric's unit; > 0 is ranked over seeds
    max, min largest or smallest single trial of any of the policies                      none: about these trials
    voids    number of void trials of the policies                                        none: about these trials
    ======== ============================================================================ ========================

    Parameters
    ----------
    reducer : str
    policies : tuple of str
        The subject first; for ``lead`` the stated ranking, best first. ``voids`` without any counts every policy.
    over : str
        Divisor of a ratio: a policy, or ``bound`` (then 1 is optimal for either direction, as in a table's ratio).
    field : str
        Key of the rows; default the claim's quantity. ``ratio`` (a trial's own) and ``bound`` are allowed.
    across : {"pool", "max", "min"}
        Several workloads: pooled, or the largest or smallest of them ("on every workload at most", "up to").
    """

    reducer: Reducer
    policies: tuple[str, ...] = ()
    over: str = "bound"
    field: str = ""
    across: Literal["pool", "max", "min"] = "pool"

    @property
    def neutral(self) -> float | None:
        """The estimate that would mean no effect, where the measure compares policies."""
        if self.reducer == "lead":
            return 0.0
        return 1.0 if self.reducer == "ratio" and self.over != "bound" else None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One published figure, what would make it hold here, and the command whose rows decide.

    Parameters
    ----------
    id : str
        Lower-case words joined by hyphens, the study's name first: ``spot-near-optimal``.
    text : str
        The claim in one sentence.
    source : Source
    published : Published
    quantity : Metric
        The study's metric it is about.
    comparator : str
        Against what, in words.
    population : Population
    tolerance : Tolerance
    measure : Measure
    kind : {"measured", "simulated", "analytic", "reported", "expert"}
        What evidence the command gives; must be what the rows say of themselves.
    reproduce : tuple of str
        Argument vector starting with ``chamber`` or ``python``; writes rows of ``--json`` to standard output.
    assessor : {"threshold", "equivalence", "ordering", "bound"}
    limits : tuple of str
        Threats that apply.
    miss : str
        Why it is known not to hold here. The bar stays, the record says that it fails, and ``--check`` does not stop at it.

    Raises
    ------
    InputError
        For a claim without unit, comparator or population, of unknown kind, or whose assessor cannot use its measure.
    """

    id: str
    text: str
    source: Source
    published: Published
    quantity: Metric
    comparator: str
    population: Population
    tolerance: Tolerance
    measure: Measure
    kind: Kind
    reproduce: tuple[str, ...]
    assessor: AssessorName = "threshold"
    limits: tuple[Limit, ...] = ()
    miss: str = ""

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise InputError(f"claim {self.id!r}: {problem}")

    def _problems(self) -> list[str]:
        measure, published = self.measure, self.published.number
        needs = 0 if measure.reducer == "voids" else 2 if measure.reducer == "lead" else 1
        two_sided = self.tolerance.low is not None and self.tolerance.high is not None
        allowed = REDUCERS.get(self.assessor)
        is_one = measure.reducer in ("mean", "ratio")
        checks = [
            (re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.id), "its id must be lower-case words joined by hyphens."),
            (self.text.strip(), "it needs a sentence."),
            (isinstance(self.quantity, Metric) and self.quantity.unit.strip(), "its quantity must be a Metric with a unit."),
            (self.comparator.strip(), "it needs a comparator: against what?"),
            (
                self.population.scale.strip() and self.population.workloads,
                "its population needs a scale in words and at least one workload.",
            ),
            (self.kind in get_args(Kind), f"unknown kind {self.kind!r}; allowed: {', '.join(get_args(Kind))}."),
            (allowed, f"unknown assessor {self.assessor!r}; allowed: {', '.join(REDUCERS)}."),
            (
                not allowed or measure.reducer in allowed,
                f"{self.assessor} cannot use the reducer {measure.reducer!r}; allowed: {', '.join(allowed or ())}.",
            ),
            (measure.across in ("pool", "max", "min"), f"across must be pool, max or min, got {measure.across!r}."),
            (measure.reducer != "lead" or measure.across != "max", "a ranking holds on the pool or on every workload (min)."),
            (len(measure.policies) >= needs, f"its measure {measure.reducer!r} needs at least {needs} policies."),
            (not is_one or len(measure.policies) == 1, f"its measure {measure.reducer!r} takes one policy."),
            (self.reproduce or not self.is_runnable, "it needs the command that reproduces it."),
            (not self.reproduce or self.reproduce[0] in ("chamber", "python"), "its command must start with chamber or python."),
            (set(self.limits) <= set(get_args(Limit)), f"unknown limit; allowed: {', '.join(get_args(Limit))}."),
            (
                self.assessor != "equivalence" or (two_sided and published is not None and self.tolerance.contains(published)),
                "equivalence needs both limits, around the published number.",
            ),
        ]
        return [message for is_right, message in checks if not is_right]

    @property
    def is_runnable(self) -> bool:
        """Whether a command decides it; ``reported`` and ``expert`` claims are repeated, not tested."""
        return self.kind not in ("reported", "expert")

    @property
    def field(self) -> str:
        """The key of the rows that is measured."""
        return self.measure.field or self.quantity.name

    @property
    def digest(self) -> str:
        """Hash of all that can change a verdict; wording and source are free to be corrected."""
        rule = (
            self.quantity.name,
            self.quantity.unit,
            self.quantity.direction,
            self.population.workloads,
            self.population.allows_generated,
            self.tolerance,
            self.measure,
            self.kind,
            self.reproduce,
            self.assessor,
        )
        return digest(msgspec.to_builtins(rule))
