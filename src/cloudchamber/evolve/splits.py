"""Which trials a search may see, which judge it on the way, and which it meets once, at the end.

Training, validation and held-out trials have disjoint seeds, drawn from the run's seed and shown to no proposer. A real trace is cut in
time and a finite set by instance: one half, one quarter, one quarter; one that is too small for that is held out on its generated twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.study import Study, Workload

Split = Literal["smoke", "training", "validation", "held-out"]
SHARES: dict[Split, tuple[float, float]] = {"training": (0.0, 0.5), "validation": (0.5, 0.75), "held-out": (0.75, 1.0)}


@dataclass(frozen=True)
class Point:
    """One trial of a split: workload, seed, and the number of the workload among the chosen ones."""

    split: Split
    workload: Workload
    seed: int
    group: int

    @property
    def name(self) -> str:
        """What the store calls its workload."""
        return self.workload.name


@dataclass(frozen=True)
class Splits:
    """The trials of a run.

    Parameters
    ----------
    smoke : Point
    training, validation, held_out : tuple of Point
        In rounds: one trial of each workload, then the next.
    notes : tuple of str
    """

    smoke: Point
    training: tuple[Point, ...]
    validation: tuple[Point, ...]
    held_out: tuple[Point, ...]
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the training workloads."""
        return tuple(dict.fromkeys(point.name for point in self.training))


def split(study: Study, workloads: Sequence[Workload], seed: int, sizes: tuple[int, int, int]) -> Splits:
    """Cut a study's workloads for a search.

    Parameters
    ----------
    study : Study
    workloads : sequence of Workload
        Ready ones: see :meth:`Study.ready`.
    seed : int
        The run's.
    sizes : tuple of int
        Trials per workload for training, validation and the held-out verdict.

    Raises
    ------
    InputError
        If a workload can neither be cut nor replaced by a twin.
    """
    notes: list[str] = []
    points: dict[Split, list[list[Point]]] = {"training": [], "validation": [], "held-out": []}
    for group, workload in enumerate(workloads):
        parts = _parts(study, workload, notes)
        taken: set[int] = set()
        for (name, part), size in zip(parts.items(), sizes, strict=True):
            rng = np.random.default_rng([seed, group, list(SHARES).index(name)])
            shown = part.renamed(rng) if name != "training" else part
            points[name].append([Point(name, shown, each, group) for each in _seeds(part, size, rng, taken)])
    smoke = study.workloads().get("smoke")
    if smoke is None:
        raise InputError(f"study {study.name!r} has no workload 'smoke', which every candidate runs first.")
    rounds = {name: tuple(point for turn in zip_all(groups) for point in turn) for name, groups in points.items()}
    return Splits(Point("smoke", smoke, 0, -1), rounds["training"], rounds["validation"], rounds["held-out"], tuple(notes))


def zip_all(groups: list[list[Point]]) -> list[list[Point]]:
    """Turns of one item per group, as long as any has one."""
    longest = max(map(len, groups), default=0)
    return [[group[i] for group in groups if i < len(group)] for i in range(longest)]


def _parts(study: Study, workload: Workload, notes: list[str]) -> dict[Split, Workload]:
    cut = {name: workload.part(*share) for name, share in SHARES.items()}
    last = cut["held-out"]
    is_enough = last is not None and not (last.is_finite and last.seeds < 2)  # a verdict takes two trials
    if is_enough and all(part is not None for part in cut.values()):
        return {name: part for name, part in cut.items() if part is not None}
    twin = workload.twin()
    if twin is None:
        raise InputError(
            f"workload {workload.name!r} of study {study.name!r} is too small to hold trials out, and has no generated twin; "
            "choose others with --workload."
        )
    notes.append(f"{workload.name} is too small to be cut: trained on whole, validated and held out on its generated twin.")
    return {"training": workload, "validation": twin, "held-out": twin}


def _seeds(part: Workload, size: int, rng: np.random.Generator, taken: set[int]) -> list[int]:
    """Seeds of a split; instances of a finite set, otherwise draws that no other split of the workload has."""
    if part.is_finite:
        return [int(each) for each in rng.permutation(part.seeds)[:size]]
    found: list[int] = []
    while len(found) < size:
        each = int(rng.integers(1 << 20, 1 << 31))
        if each not in taken:
            taken.add(each)
            found.append(each)
    return found


def ready_workloads(study: Study, chosen: Sequence[Any]) -> tuple[list[Workload], list[str]]:
    """Find the data of the chosen workloads (names or objects); all that are not optional if none is chosen."""
    from cloudchamber.core.errors import unknown

    known = study.workloads()
    picked = []
    for each in chosen or [workload for workload in known.values() if not workload.is_optional]:
        if isinstance(each, str) and each not in known:
            raise unknown(f"{study.name} workload", each, known)
        picked.append(known[each] if isinstance(each, str) else each)
    prepared = [study.ready(workload) for workload in picked]
    notes = [note for _, note in prepared if note]
    return [replace(workload, is_optional=False) for workload, _ in prepared], list(dict.fromkeys(notes))
