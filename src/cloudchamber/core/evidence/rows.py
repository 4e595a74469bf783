"""The rows of ``--json`` that a claim is about, checked and sorted by workload and policy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cloudchamber.core.claims import Claim
from cloudchamber.core.errors import InputError

from .record import Series

Row = Mapping[str, Any]


class Cells:
    """The rows of a claim's population, by workload and policy, checked.

    Raises
    ------
    InputError
        If rows are missing, doubled, unpaired, of another kind than claimed, or hold NaN.
    """

    def __init__(self, claim: Claim, rows: Sequence[Row]) -> None:
        def wrong(problem: str) -> InputError:
            return InputError(f"claim {claim.id!r}: {problem}")

        if not rows:
            raise wrong("its command wrote no rows (n = 0).")
        kinds = {str(row.get("evidence")) for row in rows}
        if kinds != {claim.kind}:
            raise wrong(f"it is said to be {claim.kind}, but the rows say of themselves: {', '.join(sorted(kinds))}.")
        names = {str(row["study"]) for row in rows}
        if len(names) != 1:
            raise wrong(f"rows of one study are needed, got {', '.join(sorted(names))}.")
        self.claim, self.study = claim, names.pop()
        self.rows: dict[tuple[str, str], dict[int, Row]] = {}
        for row in rows:
            if any(isinstance(value, float) and not math.isfinite(value) for value in row.values()):
                raise wrong(f"NaN or infinity in the row of {row['policy']} on {row['workload']}, seed {row['seed']}.")
            cell = self.rows.setdefault((row["workload"], row["policy"]), {})
            if row["seed"] in cell:
                raise wrong(f"two rows for {row['policy']} on {row['workload']}, seed {row['seed']}.")
            cell[row["seed"]] = row
        self.workloads = claim.population.workloads
        every = tuple(dict.fromkeys(row["policy"] for row in rows))
        over = (claim.measure.over,) if claim.measure.reducer == "ratio" and claim.measure.over != "bound" else ()
        self.subjects = claim.measure.policies or every
        self.involved = tuple(dict.fromkeys((*self.subjects, *over)))
        for workload in self.workloads:
            absent = [policy for policy in self.involved if (workload, policy) not in self.rows]
            if absent:
                raise wrong(f"no rows of {', '.join(absent)} on {workload}; the command must run them.")
            if len({tuple(sorted(self.rows[workload, policy])) for policy in self.involved}) > 1:
                raise wrong(f"policies ran other seeds than each other on {workload}.")

    def seeds(self, workload: str) -> tuple[int, ...]:
        """Seeds run on a workload, in order."""
        return tuple(sorted(self.rows[workload, self.involved[0]]))

    def values(self, workload: str, policy: str, field: str) -> np.ndarray:
        """Return a field by seed.

        Raises
        ------
        InputError
            If a trial that is not void lacks it.
        """
        column = [self.rows[workload, policy][seed].get(field) for seed in self.seeds(workload)]
        if any(value is None for value in column):
            raise InputError(f"claim {self.claim.id!r}: the rows of {policy} on {workload} lack {field!r}.")
        return np.array(column, dtype=float)

    def void(self, policies: Iterable[str], workloads: Iterable[str] | None = None) -> list[Row]:
        """Void rows of the policies."""
        return [
            row
            for workload in workloads or self.workloads
            for policy in policies
            for row in self.rows[workload, policy].values()
            if row.get("void")
        ]

    @property
    def is_generated(self) -> bool:
        """Whether any row comes from a generated twin."""
        return any(row.get("generated") for workload in self.workloads for row in self.rows[workload, self.involved[0]].values())

    def means(self) -> dict[str, float]:
        """Return the quantity's mean by policy, where no trial is void, and the bound's."""

        def rows_of(policy: str) -> list[Row]:
            return [row for workload in self.workloads for row in self.rows.get((workload, policy), {}).values()]

        columns: dict[str, list[Any]] = {
            policy: [None if row.get("void") else row.get(self.claim.quantity.name) for row in rows_of(policy)]
            for policy in dict.fromkeys(policy for _, policy in self.rows)
        }
        columns["bound"] = [row.get("bound") for row in rows_of(self.involved[0])]
        return {name: math.fsum(column) / len(column) for name, column in columns.items() if column and None not in column}

    def series(self) -> tuple[Series, ...]:
        """Return the involved policies' rows in columns; the bounds once per workload."""

        def column(workload: str, policy: str, field: str) -> tuple[Any, ...]:
            return tuple(self.rows[workload, policy][seed].get(field) for seed in self.seeds(workload))

        series = []
        for workload in self.workloads:
            for policy in self.involved:
                bounds = column(workload, policy, "bound") if policy == self.involved[0] else ()
                series.append(
                    Series(
                        workload,
                        policy,
                        self.seeds(workload),
                        column(workload, policy, self.claim.field),
                        bounds if None not in bounds else (),
                    )
                )
        return tuple(series)

    def seeds_text(self) -> str:
        """Return all seeds, a run of them as ``0-11``."""
        seeds = sorted({seed for workload in self.workloads for seed in self.seeds(workload)})
        is_run = len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1))
        return f"{seeds[0]}-{seeds[-1]}" if is_run else ",".join(map(str, seeds))
