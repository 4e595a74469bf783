"""Which candidates are kept, and from which the next is made.

The default keeps the best of each workload (as GEPA's Pareto front does), the best overall, and one per cell of a grid over behaviour
(the next two metrics by their declared range); parents are drawn with ShinkaEvolve's weights. Sizes are bounded, so the work per step
does not grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import ClassVar, Protocol

import numpy as np

from .model import Scored


@dataclass(frozen=True)
class Parents:
    """The candidate to improve, and others to learn from."""

    main: Scored
    inspirations: tuple[Scored, ...] = ()

    @property
    def all(self) -> tuple[Scored, ...]:
        """The main one first."""
        return (self.main, *self.inspirations)


class Archive(Protocol):
    """Keeps candidates worth building on."""

    def add(self, candidate: Scored) -> bool:
        """Take in a candidate with a score; False if it is not kept."""

    def sample(self, rng: np.random.Generator) -> Parents:
        """Draw parents."""

    def children(self, number: int) -> None:
        """Note that a candidate was used as a parent."""

    def remove(self, number: int) -> None:
        """Drop a candidate that turned out void."""

    @property
    def members(self) -> list[Scored]:
        """Kept candidates, best first."""

    @property
    def threshold(self) -> float:
        """The score a new candidate needs to enter as one of the best; -inf while there is room."""


class _Base:
    def __init__(self) -> None:
        self._kept: dict[int, Scored] = {}
        self._children: dict[int, int] = {}
        self._traces: dict[str, int] = {}
        self._ranked: list[Scored] | None = []  # None: to be sorted anew

    @property
    def members(self) -> list[Scored]:
        """Kept candidates, best first."""
        if self._ranked is None:
            self._ranked = sorted(self._kept.values(), key=_rank)
        return list(self._ranked)

    def children(self, number: int) -> None:
        """Note that a candidate was used as a parent."""
        self._children[number] = self._children.get(number, 0) + 1

    def remove(self, number: int) -> None:
        """Drop a candidate."""
        gone = self._kept.pop(number, None)
        if gone is not None:
            self._traces.pop(gone.trace, None)
            self._ranked = None

    def _is_twin(self, candidate: Scored) -> bool:
        """Whether a kept candidate answers exactly the same on every training trial."""
        return candidate.trace in self._traces

    def _keep(self, candidate: Scored) -> None:
        self._kept[candidate.number] = candidate
        self._traces[candidate.trace] = candidate.number
        self._ranked = None


def _rank(candidate: Scored) -> tuple[float, int]:
    return (-(candidate.score if candidate.score is not None else -math.inf), candidate.number)


class MixedArchive(_Base):
    """Winners per workload, the best overall, and a grid over behaviour; the default.

    Parameters
    ----------
    top : int
        How many of the best overall.
    cells : int
        Of the grid, per side.
    inspirations : int
    elite : int
        How many count as the very best.
    exploit : float
        How often a parent is drawn from them.
    """

    def __init__(self, top: int = 24, cells: int = 6, inspirations: int = 3, elite: int = 6, exploit: float = 0.75) -> None:
        super().__init__()
        self._elite, self._exploit = elite, exploit
        self._top, self._cells, self._inspirations = top, cells, inspirations
        self._best: list[Scored] = []
        self._winners: dict[str, Scored] = {}
        self._grid: dict[tuple[int, ...], Scored] = {}

    @property
    def threshold(self) -> float:
        """The score of the last of the best."""
        return -math.inf if len(self._best) < self._top else float(self._best[-1].score or 0.0)

    def add(self, candidate: Scored) -> bool:
        """See :meth:`Archive.add`."""
        if self._is_twin(candidate):
            return False
        is_kept = False
        for name, value in candidate.scores.items():
            if name not in self._winners or value > self._winners[name].scores[name]:
                self._winners[name], is_kept = candidate, True
        cell = tuple(min(self._cells - 1, max(0, int(value * self._cells))) for value in candidate.behaviour)
        if cell not in self._grid or _rank(candidate) < _rank(self._grid[cell]):
            self._grid[cell], is_kept = candidate, True
        if len(self._best) < self._top or _rank(candidate) < _rank(self._best[-1]):
            self._best = sorted([*self._best, candidate], key=_rank)[: self._top]
            is_kept = True
        if is_kept:
            self._keep(candidate)
            self._forget()
        return is_kept

    def remove(self, number: int) -> None:
        """See :meth:`Archive.remove`."""
        super().remove(number)
        self._best = [each for each in self._best if each.number != number]
        self._grid = {cell: each for cell, each in self._grid.items() if each.number != number}
        lost = [name for name, each in self._winners.items() if each.number == number]
        for name in lost:
            del self._winners[name]
            heirs = [each for each in self._kept.values() if name in each.scores]
            if heirs:
                self._winners[name] = max(heirs, key=lambda each: (each.scores[name], -each.number))

    def _forget(self) -> None:
        there = {each.number for each in (*self._best, *self._winners.values(), *self._grid.values())}
        for number in [number for number in self._kept if number not in there]:
            _Base.remove(self, number)

    def sample(self, rng: np.random.Generator) -> Parents:
        """One of the very best most of the time, otherwise any that is kept."""
        kept = self.members
        pool = kept[: self._elite] if rng.random() < self._exploit else kept
        scores = [float(each.score or 0.0) for each in pool]
        children = [self._children.get(each.number, 0) for each in pool]
        main = pool[_draw(weights(scores, children), rng)]
        others = [each for each in kept if each is not main]
        chosen = rng.permutation(len(others))[: self._inspirations]
        return Parents(main, tuple(others[i] for i in chosen))


class ParetoArchive(_Base):
    """GEPA's selection: what is best on some workload, less the dominated, drawn by the number of workloads it is best on."""

    threshold: ClassVar[float] = -math.inf

    def add(self, candidate: Scored) -> bool:
        """See :meth:`Archive.add`."""
        if self._is_twin(candidate):
            return False
        self._keep(candidate)
        holders = set().union(*self.fronts().values())
        for number in [number for number in self._kept if number not in holders]:
            self.remove(number)
        return candidate.number in self._kept

    def fronts(self) -> dict[str, set[int]]:
        """Per workload, the candidates that attain its best score."""
        found: dict[str, set[int]] = {}
        for name in {name for each in self._kept.values() for name in each.scores}:
            best = max(each.scores[name] for each in self._kept.values() if name in each.scores)
            found[name] = {each.number for each in self._kept.values() if each.scores.get(name) == best}
        return found

    def sample(self, rng: np.random.Generator) -> Parents:
        """See :meth:`Archive.sample`."""
        fronts = self.fronts()
        left = sorted(set().union(*fronts.values()), key=lambda number: (self._kept[number].score or 0.0, number))
        is_done = False
        while not is_done:
            is_done = True
            for number in left:
                held = [front for front in fronts.values() if number in front]
                if len(left) > 1 and all(any(other in front for other in left if other != number) for front in held):
                    left.remove(number)
                    is_done = False
                    break
        counts = [sum(number in front for front in fronts.values()) for number in left]
        main = self._kept[left[_draw(np.array(counts, dtype=float), rng)]]
        return Parents(main, tuple(self._kept[number] for number in left if number != main.number)[:3])


class TopArchive(_Base):
    """The best k overall, drawn evenly."""

    def __init__(self, top: int = 8) -> None:
        super().__init__()
        self._top = top

    @property
    def threshold(self) -> float:
        """The score of the last one kept."""
        return -math.inf if len(self._kept) < self._top else float(self.members[-1].score or 0.0)

    def add(self, candidate: Scored) -> bool:
        """See :meth:`Archive.add`."""
        if self._is_twin(candidate):
            return False
        self._keep(candidate)
        for each in self.members[self._top :]:
            self.remove(each.number)
        return candidate.number in self._kept

    def sample(self, rng: np.random.Generator) -> Parents:
        """See :meth:`Archive.sample`."""
        kept = self.members
        order = rng.permutation(len(kept))
        return Parents(kept[order[0]], tuple(kept[i] for i in order[1:4]))


class StartsOnly(TopArchive):
    """Always the starting policies: with it a search is best-of-n, whatever its proposers are. Keeps the best for the record."""

    def sample(self, rng: np.random.Generator) -> Parents:
        """A starting policy."""
        starts = self._starts
        return Parents(starts[int(rng.integers(len(starts)))])

    def add(self, candidate: Scored) -> bool:
        """See :meth:`Archive.add`."""
        if candidate.proposer == "start":
            self._starts = [*getattr(self, "_starts", []), candidate]
        return super().add(candidate)


def weights(scores: list[float], children: list[int]) -> np.ndarray:
    """ShinkaEvolve's parent weights, sigmoid(10 (score - median) / MAD) / (1 + children), with the root of the children.

    A search without a language model makes hundreds of children of one parent before the right one; without the root it would leave
    the best parent for worse ones long before.
    """
    values, center = np.array(scores), median(scores)  # that of numpy takes longer than all the rest
    distances = [abs(score - center) for score in scores]
    spread = median(distances) or max(distances) or 1.0
    return np.asarray(1 / (1 + np.exp(-np.clip(10 * (values - center) / spread, -500, 500))) / np.sqrt(1 + np.array(children)))


def _draw(weights: np.ndarray, rng: np.random.Generator) -> int:
    total = float(weights.sum())
    if not total > 0:
        return int(rng.integers(len(weights)))
    return int(np.searchsorted(np.cumsum(weights / total), rng.random(), side="right").clip(0, len(weights) - 1))


ARCHIVES: dict[str, Callable[[], Archive]] = {"mixed": MixedArchive, "pareto": ParetoArchive, "top": TopArchive, "starts": StartsOnly}


class Bandit:
    """Which proposer to use: UCB on decayed sums of gain, so that what helps now is used now.

    Parameters
    ----------
    shares : mapping of str to float
        How often each would be used if all helped alike.
    decay : float
    explore : float
    """

    def __init__(self, shares: Mapping[str, float], decay: float = 0.98, explore: float = 0.5) -> None:
        self._shares, self._decay, self._explore = dict(shares), decay, explore
        self._visits = dict.fromkeys(shares, 0.0)
        self._rewards = dict.fromkeys(shares, 0.0)

    def choose(self, rng: np.random.Generator, allowed: tuple[str, ...] | None = None) -> str:
        """The proposer with the highest upper confidence bound; ties by draw."""
        names = [name for name in self._shares if allowed is None or name in allowed]
        total = sum(self._visits.values()) + 1.0
        bounds = []
        for name in names:
            mean = self._rewards[name] / (self._visits[name] + 1.0)
            bounds.append(mean + self._explore * math.sqrt(math.log(total + 1.0) * self._shares[name] / (self._visits[name] + 0.1)))
        best = max(bounds)
        ties = [name for name, bound in zip(names, bounds, strict=True) if bound >= best - 1e-12]
        return ties[int(rng.integers(len(ties)))]

    def reward(self, name: str, gain: float) -> None:
        """Note a told candidate's gain over its main parent (0 where there was none), between 0 and 1."""
        if name not in self._visits:
            return
        for each in self._shares:
            self._visits[each] *= self._decay
            self._rewards[each] *= self._decay
        self._visits[name] += 1.0
        self._rewards[name] += gain
