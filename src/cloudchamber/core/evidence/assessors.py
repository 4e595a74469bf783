"""Assessors: from the rows of ``--json`` to a record with a verdict, by rule.

The rule: a claim *holds* if the 95 % interval of its estimate lies inside the tolerance stated beforehand. It holds *partly* if only
the estimate does, if the effect has the published sign but another size, or if it holds on some workloads, which are named. Else
it *fails*. It is *not testable here* if the rows come from a generated twin or cannot give an interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import ClassVar, Protocol

import msgspec
import numpy as np

from cloudchamber.core.claims import Claim
from cloudchamber.core.errors import InputError

from .canonical import digest
from .intervals import Block, interval
from .record import MAX_BYTES, Evidence, Method, Part, Result, Verdict, private, size
from .rows import Cells, Row

Estimate = tuple[float, tuple[float, float] | None]
LEVEL = 0.05


class Assessor(Protocol):
    """Decides a claim by rows and nothing else."""

    def assess(self, claim: Claim, rows: Iterable[Row], method: Method = ...) -> Evidence:
        """Return the record; without a method it cannot be stored."""


class ThresholdAssessor:
    """A mean or a ratio of sums lies within the tolerance."""

    keeps_sign: ClassVar[bool] = True
    needs_interval: ClassVar[bool] = True

    def assess(self, claim: Claim, rows: Iterable[Row], method: Method = Method()) -> Evidence:  # noqa: B008 (frozen)
        """Return the record of these rows.

        Raises
        ------
        InputError
            If the rows cannot decide the claim: see :class:`Cells`.
        """
        rows = list(rows)
        cells = Cells(claim, rows)
        obstacle = self._obstacle(cells)
        whole: Estimate | None = None
        parts: tuple[Part, ...] = ()
        if obstacle is None:
            whole = self.estimate(cells, cells.workloads)
            parts = tuple(self._part(cells, workload) for workload in cells.workloads)
            verdict, reason = self.verdict(claim, whole, parts)
        else:
            verdict, reason = obstacle
        result = Result(
            n=sum(len(cells.seeds(workload)) for workload in cells.workloads) * len(cells.subjects),
            void=len(cells.void(cells.involved)),
            rows_sha256=digest([dict(row) for row in rows]),
            seeds=cells.seeds_text(),
            estimate=whole[0] if whole else None,
            interval=whole[1] if whole else None,
            parts=parts,
            means=cells.means(),
            series=cells.series(),
            void_reasons=tuple(dict.fromkeys(private(str(row["void"]))[:200] for row in cells.void(cells.involved)))[:5],
        )
        record = Evidence(
            claim=claim.id,
            study=cells.study,
            text=claim.text,
            source=claim.source,
            published=claim.published,
            quantity=claim.quantity.name,
            unit=claim.quantity.unit,
            direction=claim.quantity.direction,
            comparator=claim.comparator,
            population=claim.population,
            tolerance=claim.tolerance,
            measure=claim.measure,
            assessor=claim.assessor,
            kind=claim.kind,
            limits=claim.limits,
            method=method,
            result=result,
            verdict=verdict,
            reason=reason,
        )
        if size(record) > MAX_BYTES:
            record = msgspec.structs.replace(record, result=msgspec.structs.replace(result, series=()))
        return record

    def _obstacle(self, cells: Cells) -> tuple[Verdict, str] | None:
        """Return what decides before any estimate, or None."""
        if cells.is_generated and not cells.claim.population.allows_generated:
            return "not testable here", "the data is not here: rows come from its generated twin"
        if cells.claim.measure.reducer == "voids":
            return None
        void = cells.void(cells.subjects)
        if void:
            return "fails", f"{len(void)} void: {private(str(void[0]['void']))[:120]}"
        if cells.void(cells.involved):
            return "not testable here", "void trials of the comparator"
        if self.needs_interval and any(len(cells.seeds(workload)) < 2 for workload in cells.workloads):
            return "not testable here", "one trial has no interval: run at least two seeds"
        return None

    def _part(self, cells: Cells, workload: str) -> Part:
        estimate, interval = self.estimate(cells, (workload,))
        return Part(
            workload,
            len(cells.seeds(workload)) * len(cells.subjects),
            estimate,
            interval,
            cells.claim.tolerance.contains(*(interval or (estimate,))),
        )

    def verdict(self, claim: Claim, whole: Estimate, parts: Sequence[Part]) -> tuple[Verdict, str]:
        """Verdict and reason by the rule of this module; widening the tolerance can only improve it."""
        estimate, interval = whole
        inside = [part.workload for part in parts if part.holds]
        if claim.tolerance.contains(*(interval or (estimate,))):
            return "holds", ""
        if interval is not None and claim.tolerance.contains(estimate):
            return "partly", "the interval reaches outside the tolerance: more seeds may decide"
        if inside and len(parts) > 1:
            return "partly", f"holds on {', '.join(inside)}"
        neutral, published = claim.measure.neutral, claim.published.number
        if self.keeps_sign and interval is not None and neutral is not None and published is not None:
            is_same_sign = interval[0] > neutral < published or interval[1] < neutral > published
            return ("partly", "same sign, other size") if is_same_sign else ("fails", "outside the tolerance")
        return "fails", "outside the tolerance"

    def estimate(self, cells: Cells, workloads: Sequence[str]) -> Estimate:
        """Return the estimate over some of the workloads, and its 95 % interval."""
        across, low, high = cells.claim.measure.across, *self._range(cells.claim)
        parts = [workloads] if across == "pool" else [[workload] for workload in workloads]
        contrasts = [
            [block[i] for block in blocks]
            for part in parts
            for blocks in [[self.blocks(cells, workload) for workload in part]]
            for i in range(len(blocks[0]))
        ]
        try:
            found = [interval(blocks, LEVEL / len(contrasts)) for blocks in contrasts]
        except InputError as error:
            raise InputError(f"claim {cells.claim.id!r}: {error}") from None
        # the extreme of several: at LEVEL / k each, the extreme of the limits covers the extreme of the truths
        extreme = max if across == "max" else min
        lower, middle, upper = (extreme(each[i] for each in found) for i in range(3))
        return middle, (max(lower, min(low, middle)), min(upper, max(high, middle)))

    def _range(self, claim: Claim) -> tuple[float, float]:
        if claim.measure.reducer == "ratio":
            return (1.0 if claim.measure.over == "bound" else 0.0), math.inf
        return (claim.quantity.low, claim.quantity.high) if claim.field == claim.quantity.name else (-math.inf, math.inf)

    def blocks(self, cells: Cells, workload: str) -> list[Block]:
        """Numerators and denominators by seed, one block per contrast."""
        claim, seeds = cells.claim, cells.seeds(workload)
        values = cells.values(workload, claim.measure.policies[0], claim.field)
        if claim.measure.reducer == "mean":
            return [(seeds, values, np.ones(len(values)))]
        if claim.measure.over != "bound":
            return [(seeds, values, cells.values(workload, claim.measure.over, claim.field))]
        bound = cells.values(workload, claim.measure.policies[0], "bound")
        return [(seeds, values, bound) if claim.quantity.direction == "min" else (seeds, bound, values)]


class EquivalenceAssessor(ThresholdAssessor):
    """Two one-sided tests at 2.5 % each: the estimate differs from the published number by no more than the tolerance.

    Same rule as a threshold with two limits (the 95 % interval inside is both tests rejecting), but the right sign is no part of it.
    """

    keeps_sign = False


class OrderingAssessor(ThresholdAssessor):
    """Policies rank as stated: every lead of one over the next, paired by seed, lies within the tolerance (``low=0``)."""

    def _range(self, claim: Claim) -> tuple[float, float]:
        return -math.inf, math.inf

    def blocks(self, cells: Cells, workload: str) -> list[Block]:
        """Return the leads of each policy over the next."""
        sign = 1.0 if cells.claim.quantity.direction == "min" else -1.0
        columns = [cells.values(workload, policy, cells.claim.field) for policy in cells.subjects]
        seeds = cells.seeds(workload)
        return [(seeds, sign * (worse - better), np.ones(len(better))) for better, worse in pairwise(columns)]


class BoundAssessor(ThresholdAssessor):
    """Every single trial lies within the tolerance, or no more are void than it allows: about these trials, so without interval."""

    keeps_sign = False
    needs_interval = False

    def estimate(self, cells: Cells, workloads: Sequence[str]) -> Estimate:
        """Return the extreme trial, or the number of void ones."""
        claim = cells.claim
        if claim.measure.reducer == "voids":
            return float(len(cells.void(cells.subjects, workloads))), None
        values = np.concatenate([cells.values(workload, policy, claim.field) for workload in workloads for policy in cells.subjects])
        return float(values.max() if claim.measure.reducer == "max" else values.min()), None


ASSESSORS: dict[str, Assessor] = {
    "threshold": ThresholdAssessor(),
    "equivalence": EquivalenceAssessor(),
    "ordering": OrderingAssessor(),
    "bound": BoundAssessor(),
}


def assess(claim: Claim, rows: Iterable[Row], method: Method = Method()) -> Evidence:  # noqa: B008 (frozen)
    """Return the record of these rows by the claim's own assessor."""
    return ASSESSORS[claim.assessor].assess(claim, rows, method)
