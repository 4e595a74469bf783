"""Where a record comes from: hashes of the code and data it depends on, and the machine in its class.

A record is stale when the sources of its study's package, the runner in core, the data, or the claim's own rule are no longer those it
ran with. Files named ``claims.py`` are not counted among the sources: each record carries its own claim's hash, so declaring another
claim leaves the others' records fresh.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from cloudchamber.core.claims import Claim
from cloudchamber.core.study import Study

from .record import DataUse, Evidence, Host, Method, private

CORE = Path(__file__).parents[1]
RUNNER = ("candidate.py", "outcome.py", "parallel.py", "policy.py", "results.py", "study.py")


class Provenance(msgspec.Struct, frozen=True):
    """What a study's results depend on, as it is now."""

    module_sha256: str
    runner_sha256: str
    data: tuple[DataUse, ...] = ()

    @classmethod
    def of(cls, study: Study, fingerprints: Iterable[Mapping[str, Any]] = ()) -> Provenance:
        """Hash a study's sources.

        Parameters
        ----------
        study : Study
        fingerprints : iterable of mapping
            ``name``, ``licence`` and ``sha256`` (None where the data is not here) of each dataset, from ``datasets.fingerprint``.

        Raises
        ------
        InputError
            If a dataset has no licence.
        """
        data = tuple(DataUse(each["name"], each.get("licence") or "", each.get("sha256")) for each in fingerprints)
        return cls(_sources(study), _hash([CORE / name for name in RUNNER], CORE), data)

    def stale_because(self, record: Evidence, claim: Claim | None = None) -> tuple[str, ...]:
        """Return what changed since a record was made; data that is not here cannot be said to have changed."""
        method, here = record.method, {each.name: each.sha256 for each in self.data}
        reasons = [f"code of {record.study} changed"] if method.module_sha256 != self.module_sha256 else []
        reasons += ["the runner changed"] if method.runner_sha256 != self.runner_sha256 else []
        reasons += ["the claim changed"] if claim is not None and method.claim_sha256 != claim.digest else []
        reasons += [f"data {each.name} changed" for each in method.data if here.get(each.name) not in (None, each.sha256)]
        return tuple(reasons)

    def method(self, claim: Claim, ran: datetime, seconds: float) -> Method:
        """Return the method block of a run that began at ``ran``; folders in its command are left out."""
        commit, dirty = _git(CORE)
        return Method(
            ran=ran.astimezone(UTC).isoformat(timespec="milliseconds"),
            seconds=round(seconds, 3),
            command=tuple(map(private, claim.reproduce)),
            module_sha256=self.module_sha256,
            runner_sha256=self.runner_sha256,
            claim_sha256=claim.digest,
            data=self.data,
            version=_version("cloudchamber") or "",
            commit=commit,
            dirty=dirty,
            host=host(),
            packages=_packages(),
        )


def _hash(files: Iterable[Path], root: Path) -> str:
    lines = [
        f"{hashlib.sha256(path.read_bytes().replace(bytes([13, 10]), bytes([10]))).hexdigest()} {path.relative_to(root).as_posix()}"
        for path in sorted(files)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _sources(study: Study) -> str:
    """Return the hash of the files a study names, else of the package its module lies in, or of the module alone where it lies in none."""
    if named := getattr(study, "sources", ()):
        root = CORE.parent
        return _hash({path for pattern in named for path in root.glob(pattern) if path.is_file()}, root)
    module = type(study).__module__
    package = sys.modules.get(module.rpartition(".")[0])
    if package is not None and getattr(package, "__path__", None):
        root = Path(next(iter(package.__path__)))
        files = [path for path in root.rglob("*") if path.suffix in (".py", ".json", ".cpp") and path.name != "claims.py"]
        return _hash(files, root)
    path = Path(sys.modules[module].__file__ or "")
    return _hash([path] if path.is_file() else [], path.parent)


def host() -> Host:
    """Return this machine's cores, memory, operating system and Python; no names."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    return Host(os.cpu_count() or 1, round(memory, 1), f"{platform.system()} {platform.machine()}", platform.python_version())


@cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def _packages() -> dict[str, str]:
    names = ("joblib", "msgspec", "numba", "numpy", "scipy", "torch")
    return {name: version for name in names if (version := _version(name)) is not None}


@cache
def _git(folder: Path) -> tuple[str, bool | None]:
    """Return the commit, and whether sources differ from it; empty and None where there is no git."""

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = ask("status", "--porcelain", "--", "*.py")
    return (ask("rev-parse", "--short=12", "HEAD") or "", bool(status)) if status is not None else ("", None)
