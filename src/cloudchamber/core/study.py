"""A study: policies x workloads x seeds, the metrics they are judged by, and the best that was possible."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .outcome import Bound, Metric, Outcome

if TYPE_CHECKING:
    from .claims import Claim
    from .datasets import Dataset
    from .results import Results

GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What happens to a policy. Subclass it with the problem's parameters as fields.

    Parameters
    ----------
    name : str
    seeds : int, default 12
        Trials it has when the user does not say.
    is_optional : bool, default False
        Left out of a study unless named.
    is_generated : bool, default False
        Made by a generator in the package, not from a real trace; rows are labelled so.
    is_finite : bool, default False
        A finite set of instances: seeds 0 to ``seeds`` - 1 name them, and there are no others.
    """

    name: str
    seeds: int = 12
    is_optional: bool = False
    is_generated: bool = False
    is_finite: bool = False

    @property
    def summary(self) -> str:
        """What it asks for, in a few words, for reports and lists."""
        return ""

    def part(self, lo: float, hi: float) -> Workload | None:
        """The share [lo, hi) of a trace (in time) or of a finite set (by instance), so that a search can be judged on what it never saw.

        None where that is too little for a trial. A generator has no parts: its seeds never end, so it returns itself.
        """
        return self if self.is_generated else None

    def twin(self) -> Workload | None:
        """Its generated stand-in with endless seeds, itself if it is one; None if it has none."""
        return self if self.is_generated else None

    def renamed(self, rng: np.random.Generator) -> Workload:
        """The same trials with ids permuted and lists reordered, so that nothing learned by heart helps. Itself where nothing has an id."""
        return self


@dataclass(frozen=True)
class Figure:
    """A study's own picture in its report: title, caption, and inline SVG (or HTML made of it)."""

    title: str
    caption: str
    svg: str


class Study(ABC):
    """One decision problem, ready to be studied. A problem module subclasses it and registers the class.

    One study has one policy Protocol. The first metric is the objective. Whatever makes a result worthless is a violation of
    the trial's Outcome, not an exception.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    systems: ClassVar[tuple[str, ...]] = ()
    papers: ClassVar[tuple[str, ...]] = ()
    protocol: ClassVar[type]
    metrics: ClassVar[tuple[Metric, ...]]
    floor: ClassVar[tuple[str, ...]] = ()
    claims: ClassVar[tuple[Claim, ...]] = ()
    evidence: ClassVar[str] = "simulated"
    libraries: ClassVar[tuple[str, ...]] = ("numpy", "numba")  # what a policy in the jail may import
    sources: ClassVar[tuple[str, ...]] = ()  # files its results depend on, globs below the package; none: all of its own folder
    notes: ClassVar[tuple[str, ...]] = ()

    @property
    def objective(self) -> Metric:
        """The first metric."""
        return self.metrics[0]

    @abstractmethod
    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """Built-in policies: name to picklable constructor without arguments."""

    @abstractmethod
    def workloads(self) -> Mapping[str, Workload]:
        """Named workloads, ``smoke`` (generated, under a second) among them."""

    def workload(self, trace: Path, **params: Any) -> Workload:
        """Return the workload of a user's own trace.

        Raises
        ------
        InputError
            If the study takes no traces, or the trace or a parameter is not usable.
        """
        from .errors import InputError

        raise InputError(f"study {self.name!r} takes no --trace; its workloads are {', '.join(self.workloads())}.")

    @abstractmethod
    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Run one policy in one trial."""

    def bound(self, workload: Any, seed: int) -> Bound | None:
        """Return the best any policy could have done, or None where nothing is known."""
        return None

    def figures(self, results: Results) -> Sequence[Figure]:
        """Return this study's own pictures for the report."""
        return ()

    def adjusted(self, workload: Any, **params: Any) -> Workload:
        """Return a workload with parameters changed (``--set KEY=VALUE``).

        Raises
        ------
        InputError
            If the study has no such parameter.
        """
        from .errors import InputError

        raise InputError(f"the workloads of study {self.name!r} have no parameters to set.")

    def ready(self, workload: Any) -> tuple[Workload, str]:
        """Return the workload with its data found, or a generated stand-in and a note that says so. Called once, before any trial."""
        return workload, ""

    def datasets(self) -> Iterable[Dataset]:
        """The datasets its workloads read."""
        return ()


def settings_of(words: Iterable[str]) -> dict[str, str]:
    """The parameters in ``--set KEY=VALUE`` words.

    Raises
    ------
    InputError
        Naming the word that is no such pair.
    """
    from .errors import InputError

    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise InputError(f"--set takes KEY=VALUE, got {word!r}.")
        found[key.strip()] = value.strip()
    return found


def rng_of(study: str, workload: str, seed: int) -> np.random.Generator:
    """The generator of one trial, the same for every policy, on any worker."""
    words = np.frombuffer(f"{study}/{workload}".encode().ljust(-(-len(f"{study}/{workload}".encode()) // 4) * 4), dtype="<u4")
    return np.random.default_rng([*words.tolist(), seed])


def start_of(seed: int, usable: int) -> int:
    """Start tick of a seed on a real trace: the fraction (seed + 1/2) * 0.618... mod 1 of the usable ticks."""
    return int(((seed + 0.5) * GOLDEN) % 1.0 * usable)
