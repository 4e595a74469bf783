"""Workloads: which placement problems. The published set, its generator, a user's own file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.study import Workload, rng_of

from .data import FILE, INSTANCES, prism_dataset, read_instances
from .model import Instance, Model

Range = tuple[int, int]
TRIES = 100  # draws of an instance that fits


@dataclass(frozen=True, kw_only=True)
class PlacementWorkload(Workload):
    """A finite set of placement problems in a file, or an endless supply drawn with its statistics.

    Parameters
    ----------
    file : str or None
        The file of instances; None: the published set, or drawn if ``is_generated``.
    sha256 : str
        Hash of a user's file, so that a file rewritten is another workload.
    first : int
        Where this part of the set begins: seed s is instance first + s.
    gpus, size_gb, request_rate, slo : tuple of (int, int)
        Least and greatest of what is drawn, both included; the published set's are the defaults.
    models_per_gpu, gpu_memory_gb : int, float
        Of drawn instances.
    renaming : int or None
        Shuffle the models of every instance by this seed.
    """

    file: str | None = None
    sha256: str = ""
    first: int = 0
    gpus: Range = (5, 9)
    models_per_gpu: int = 2
    size_gb: Range = (10, 29)
    request_rate: Range = (1, 9)
    slo: Range = (5, 9)
    gpu_memory_gb: float = 80.0
    renaming: int | None = None

    @property
    def summary(self) -> str:
        """Where its instances come from, and how large they are."""
        if not self.is_generated:
            which = f"{self.seeds} instances of {self.file if self.sha256 else 'the published set'}"
            return f"{which}, from number {self.first}." if self.first else f"{which}."
        return (
            f"drawn: {self.gpus[0]} to {self.gpus[1]} GPUs of {self.gpu_memory_gb:g} GB, {self.models_per_gpu} models for each, "
            f"{self.size_gb[0]} to {self.size_gb[1]} GB."
        )

    def part(self, lo: float, hi: float) -> PlacementWorkload | None:
        """The instances from share ``lo`` to share ``hi`` of the set; None if there are none."""
        if self.is_generated:
            return self
        begin, end = round(lo * self.seeds), round(hi * self.seeds)
        return replace(self, first=self.first + begin, seeds=end - begin) if end > begin else None

    def twin(self) -> PlacementWorkload | None:
        """The generator; None for a user's file, whose statistics are not its."""
        if self.is_generated:
            return self
        return None if self.file and self.sha256 else replace(self, file=None, first=0, is_generated=True, is_finite=False)

    def renamed(self, rng: np.random.Generator) -> PlacementWorkload:
        """The same instances with their models in another order."""
        return replace(self, renaming=int(rng.integers(2**31)))

    def instance(self, seed: int) -> Instance:
        """Return the seed's instance.

        Raises
        ------
        InputError
            If a finite set has no such instance.
        """
        found = self._drawn(seed) if self.is_generated else self._listed(seed)
        if self.renaming is None:
            return found
        order = rng_of("placement.renaming", str(self.renaming), self.first + seed).permutation(len(found.models))
        return Instance(found.gpus, found.gpu_memory_gb, tuple(found.models[i] for i in order))

    def _listed(self, seed: int) -> Instance:
        if not 0 <= seed < self.seeds:
            raise InputError(f"workload {self.name!r} is a set of {self.seeds} instances: seeds are 0 to {self.seeds - 1}, got {seed}.")
        return _set(self.file, self.sha256)[self.first + seed]

    def _drawn(self, seed: int) -> Instance:
        rng = rng_of("placement.instances", self.name, seed)
        for _ in range(TRIES):
            drawn = self._draw(rng)
            if fits(drawn):
                return drawn
        raise InputError(f"workload {self.name!r}: {TRIES} draws in a row did not fit; set fewer models_per_gpu or smaller size_gb.")

    def _draw(self, rng: np.random.Generator) -> Instance:
        gpus = int(rng.integers(*self.gpus, endpoint=True))
        columns = [
            rng.integers(*each, size=self.models_per_gpu * gpus, endpoint=True).tolist()
            for each in (self.size_gb, self.request_rate, self.slo)
        ]
        return Instance(gpus, self.gpu_memory_gb, tuple(Model(*map(float, each)) for each in zip(*columns, strict=True)))


def fits(instance: Instance) -> bool:
    """Whether the models pack by size alone, largest first, each where least is left."""
    free_gb = [instance.gpu_memory_gb] * instance.gpus
    for size_gb in sorted((model.size_gb for model in instance.models), reverse=True):
        fitting = [gpu for gpu, left in enumerate(free_gb) if size_gb < left]
        if not fitting:
            return False
        free_gb[min(fitting, key=free_gb.__getitem__)] -= size_gb
    return True


@lru_cache(maxsize=8)
def _set(file: str | None, sha256: str) -> tuple[Instance, ...]:
    if file is None:
        from cloudchamber.core.datasets import locate

        file = str(locate(prism_dataset()) / FILE)
    return read_instances(Path(file))


def named_workloads() -> Mapping[str, PlacementWorkload]:
    """The workloads of the study, by name."""
    every = (
        PlacementWorkload(name="prism", seeds=INSTANCES, is_finite=True),
        PlacementWorkload(name="smoke", seeds=2, is_optional=True, is_generated=True, gpus=(3, 4)),
        PlacementWorkload(name="crowded", is_optional=True, is_generated=True, gpus=(4, 6), models_per_gpu=3),
        PlacementWorkload(name="large", is_optional=True, is_generated=True, gpus=(32, 48), models_per_gpu=3),
    )
    return {each.name: each for each in every}


_RANGES = ("gpus", "size_gb", "request_rate", "slo")
_DRAWN = (*_RANGES, "models_per_gpu", "gpu_memory_gb")


def adjusted(workload: PlacementWorkload, params: Mapping[str, Any]) -> PlacementWorkload:
    """Return the workload with parameters set by name (``--set key=value``); values may be text, a range ``5-9``.

    Raises
    ------
    InputError
        For an unknown key, a value of the wrong kind, or a parameter of drawn instances where they are read from a file.
    """
    allowed = ("seeds", *_DRAWN) if workload.is_generated else ("seeds",)
    for key in params:
        if key not in allowed:
            of_generator = key in {each.name for each in fields(PlacementWorkload)} & set(_DRAWN)
            hint = (
                f"workload {workload.name!r} reads its instances from a file; set {key} on smoke, crowded or large" if of_generator else ""
            )
            raise InputError(f"no parameter {key!r} to set here; {hint or 'allowed: ' + ', '.join(allowed)}.")
    changed = replace(workload, **{key: _value(key, value) for key, value in params.items()})
    if not changed.is_generated and changed.seeds > workload.seeds:
        raise InputError(
            f"workload {workload.name!r} is a set of {workload.seeds} instances; seeds must be at most that, got {changed.seeds}."
        )
    return changed


def _value(key: str, value: Any) -> Any:
    try:
        if key in _RANGES:
            parts = str(value).split("-") if not isinstance(value, (tuple, list)) else list(value)
            low, high = int(parts[0]), int(parts[-1])
            if not 1 <= low <= high or len(parts) > 2:
                raise ValueError
            return low, high
        number = float(value) if key == "gpu_memory_gb" else int(value)
        if not 0 < number < float("inf"):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        kind = "a whole number or a range like 5-9, at least 1" if key in _RANGES else "a number above 0"
        raise InputError(f"{key} must be {kind}, got {value!r}.") from None
    return number


def user_workload(path: Path, params: Mapping[str, Any]) -> PlacementWorkload:
    """Return the workload of a user's file, read once to check it.

    Raises
    ------
    InputError
        Saying what to fix.
    """
    count = len(read_instances(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return adjusted(PlacementWorkload(name=path.stem, seeds=count, is_finite=True, file=str(path), sha256=digest), params)
