"""Workloads: which networks, which jobs. Cloudcast's five, their generator, a user's own grids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.study import Workload, rng_of

from .data import JOBS, cloudcast_dataset, jobs_of, network, read_grids, read_job
from .model import BroadcastSpec, Job
from .twin import generate

LIMITS = {"egress_limit": {"aws": 5.0, "gcp": 7.0, "azure": 16.0}, "ingress_limit": {"aws": 10.0, "gcp": 16.0, "azure": 16.0}}
MOST_REGIONS = 400


@dataclass(frozen=True, kw_only=True)
class BroadcastWorkload(Workload):
    """A finite set of jobs on one network, or an endless supply of both drawn with its statistics.

    Parameters
    ----------
    folder : str or None
        Where ``cost.csv``, ``throughput.csv`` and the jobs lie; None: the published ones, or drawn if ``is_generated``.
    sha256 : str
        Hash of a user's folder, so that one rewritten is another workload.
    first : int
        Where this part of the set begins: seed s is job first + s.
    vms : int
        Rented in every region that takes part.
    vm_usd_h : float
        Price of one, published as that of a spot m5.8xlarge.
    shared : bool
        Whether partitions share a link, and a gigabyte is eight gigabits; False as published.
    regions : int
        Of a drawn network.
    destinations : tuple of (int, int)
        Least and greatest number, of a drawn job.
    volume_gb : float
        Of a drawn job.
    partitions : int
        Of a drawn job.
    renaming : int or None
        Permute regions and destinations by this seed.
    """

    folder: str | None = None
    sha256: str = ""
    first: int = 0
    vms: int = 2
    vm_usd_h: float = 0.54
    shared: bool = False
    regions: int = 71
    destinations: tuple[int, int] = (6, 7)
    volume_gb: float = 300.0
    partitions: int = 10
    renaming: int | None = None

    @property
    def summary(self) -> str:
        """Its jobs, and how links are timed."""
        timing = "partitions share links" if self.shared else "links timed as published"
        if not self.is_generated:
            return f"{self.seeds} jobs of {self.folder if self.sha256 else 'Cloudcast'}, {self.vms} VMs per region, {timing}."
        return (
            f"drawn: {self.regions} regions, {self.destinations[0]} to {self.destinations[1]} destinations, {self.volume_gb:g} GB in "
            f"{self.partitions} partitions, {self.vms} VMs per region, {timing}."
        )

    def part(self, lo: float, hi: float) -> BroadcastWorkload | None:
        """The jobs from share ``lo`` to share ``hi`` of the set; None if there are none."""
        if self.is_generated:
            return self
        begin, end = round(lo * self.seeds), round(hi * self.seeds)
        return replace(self, first=self.first + begin, seeds=end - begin) if end > begin else None

    def twin(self) -> BroadcastWorkload | None:
        """The generator; None for a user's folder, whose statistics are not its."""
        if self.is_generated:
            return self
        return None if self.folder and self.sha256 else replace(self, folder=None, first=0, is_generated=True, is_finite=False)

    def renamed(self, rng: np.random.Generator) -> BroadcastWorkload:
        """The same jobs on the same network with regions numbered otherwise, and destinations in another order."""
        return replace(self, renaming=int(rng.integers(2**31)))

    def world(self, seed: int) -> tuple[BroadcastSpec, Job]:
        """Return the seed's network and job.

        Raises
        ------
        InputError
            If a finite set has no such job.
        """
        spec, job = self._drawn(seed) if self.is_generated else self._listed(seed)
        return (
            (spec, job)
            if self.renaming is None
            else _renamed(spec, job, rng_of("broadcast.renaming", str(self.renaming), self.first + seed))
        )

    def _listed(self, seed: int) -> tuple[BroadcastSpec, Job]:
        if not 0 <= seed < self.seeds:
            raise InputError(f"workload {self.name!r} is a set of {self.seeds} jobs: seeds are 0 to {self.seeds - 1}, got {seed}.")
        return _read(self._folder(), self.first + seed, self.vms, self.shared, self.vm_usd_h, self.sha256)

    def _folder(self) -> str:
        if self.folder is not None:
            return self.folder
        from cloudchamber.core.datasets import locate

        return str(locate(cloudcast_dataset()))

    def _drawn(self, seed: int) -> tuple[BroadcastSpec, Job]:
        rng = rng_of("broadcast.network", self.name, seed)
        regions, price, speed = generate(self.regions, rng)
        count = int(rng.integers(*self.destinations, endpoint=True))
        chosen = rng.choice(self.regions, size=count + 1, replace=False).tolist()
        spec = network(regions, price, speed, LIMITS, vms=self.vms, shared=self.shared, vm_usd_h=self.vm_usd_h)
        return spec, Job(chosen[0], tuple(chosen[1:]), self.volume_gb, self.partitions)


@lru_cache(maxsize=16)
def _read(folder: str, number: int, vms: int, shared: bool, vm_usd_h: float, sha256: str) -> tuple[BroadcastSpec, Job]:
    regions, price, speed = read_grids(folder)
    job, limits = read_job(jobs_of(Path(folder))[number], regions)
    return network(regions, price, speed, limits, vms=vms, shared=shared, vm_usd_h=vm_usd_h), job


def _renamed(spec: BroadcastSpec, job: Job, rng: np.random.Generator) -> tuple[BroadcastSpec, Job]:
    order = rng.permutation(len(spec.regions))  # order[new] = old
    new = np.argsort(order)
    there = np.ix_(order, order)
    renamed = BroadcastSpec(
        tuple(spec.regions[i] for i in order),
        spec.price_usd_gb[there],
        spec.throughput_gbps[there],
        spec.egress_gbps[order],
        spec.ingress_gbps[order],
        spec.vms,
        spec.vm_usd_h,
        spec.shared,
    )
    shuffled = rng.permutation(job.destinations)
    return renamed, Job(int(new[job.source]), tuple(int(new[each]) for each in shuffled), job.volume_gb, job.partitions)


def named_workloads() -> Mapping[str, BroadcastWorkload]:
    """The workloads of the study, by name."""
    cloudcast = BroadcastWorkload(name="cloudcast", seeds=len(JOBS), is_finite=True)
    every = (
        cloudcast,
        replace(cloudcast, name="cloudcast-shared", shared=True),
        BroadcastWorkload(name="smoke", seeds=2, is_optional=True, is_generated=True, regions=12, destinations=(3, 4), partitions=4),
        BroadcastWorkload(name="drawn", is_optional=True, is_generated=True),
        BroadcastWorkload(name="gpus-wait", is_optional=True, is_generated=True, shared=True, vm_usd_h=30.0),
    )
    return {each.name: each for each in every}


_LISTED = ("seeds", "vms", "vm_usd_h", "shared")
_DRAWN = (*_LISTED, "regions", "destinations", "volume_gb", "partitions")


def adjusted(workload: BroadcastWorkload, params: Mapping[str, Any]) -> BroadcastWorkload:
    """Return the workload with parameters set by name (``--set key=value``); values may be text, a range ``6-7``.

    Raises
    ------
    InputError
        For an unknown key, a value of the wrong kind, or more than there is.
    """
    allowed = _DRAWN if workload.is_generated else _LISTED
    for key in params:
        if key not in allowed:
            hint = f"workload {workload.name!r} reads its jobs from files; set {key} on smoke, drawn or gpus-wait" if key in _DRAWN else ""
            raise InputError(f"no parameter {key!r} to set here; {hint or 'allowed: ' + ', '.join(allowed)}.")
    changed = replace(workload, **{key: _value(key, value) for key, value in params.items()})
    if not changed.is_generated and changed.seeds > workload.seeds:
        raise InputError(f"workload {workload.name!r} is a set of {workload.seeds} jobs; seeds must be at most that, got {changed.seeds}.")
    if changed.is_generated and not changed.destinations[1] < changed.regions <= MOST_REGIONS:
        raise InputError(f"regions must be more than the destinations and at most {MOST_REGIONS}, got {changed.regions}.")
    return changed


def _value(key: str, value: Any) -> Any:
    try:
        if key == "shared":
            return {"true": True, "false": False}[str(value).lower()]
        if key == "destinations":
            parts = str(value).split("-") if not isinstance(value, (tuple, list)) else list(value)
            low, high = int(parts[0]), int(parts[-1])
            if not 1 <= low <= high or len(parts) > 2:
                raise ValueError
            return low, high
        number = float(value) if key in ("volume_gb", "vm_usd_h") else int(value)
        if not 0 < number < float("inf"):
            raise ValueError
    except (ValueError, TypeError, KeyError, OverflowError):
        kinds = {"shared": "true or false", "destinations": "a whole number or a range like 6-7, at least 1"}
        raise InputError(f"{key} must be {kinds.get(key, 'a number above 0')}, got {value!r}.") from None
    return number


def user_workload(path: Path, params: Mapping[str, Any]) -> BroadcastWorkload:
    """Return the workload of a user's folder of grids and jobs, every job read once to check it.

    Raises
    ------
    InputError
        Saying what to fix.
    """
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; it must hold cost.csv, throughput.csv and a JSON file for each job.")
    files = jobs_of(path)
    if not files:
        raise InputError(f"{path} holds no job: add a JSON file with source_node, dest_nodes, data_vol, num_partitions and the limits.")
    digest = hashlib.sha256()
    for file in (path / "cost.csv", path / "throughput.csv", *files):
        digest.update(file.read_bytes() if file.is_file() else b"")
    read_grids.cache_clear()  # a folder rewritten in a notebook is another one
    workload = BroadcastWorkload(name=path.resolve().name, seeds=len(files), is_finite=True, folder=str(path), sha256=digest.hexdigest())
    for seed in range(len(files)):
        workload.world(seed)
    return adjusted(workload, params)
