"""Where data lies: explicit path, $CLOUDCHAMBER_DATA, the user's cache, or its origin at a pinned commit.

Third-party data is never part of the package. A module declares a :class:`Dataset`; what is fetched is converted to the
compact form and every converted file is checked against its SHA-256 (the hash is of the converted files because hosting sites do
not keep the bytes of generated archives stable). Where data cannot be had, studies run on a generated twin and say so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DatasetUnavailable, InputError

ENVIRONMENT = "CLOUDCHAMBER_DATA"


@dataclass(frozen=True)
class Source:
    """An archive (``.tar.gz``) at its origin: address pinned to a commit, and its licence."""

    url: str
    commit: str
    licence: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """A folder of data files that is not in the package.

    Parameters
    ----------
    name : str
        Path below the data root, for example ``spot``.
    title : str
    sources : tuple of Source
    convert : callable (list of unpacked folders, target folder) -> None
        Writes the compact form.
    sha256 : mapping of str to str
        Every file of the compact form and its hash.
    size_bytes : int
        Of the compact form.
    """

    name: str
    title: str
    sources: tuple[Source, ...]
    convert: Callable[[list[Path], Path], None]
    sha256: Mapping[str, str]
    size_bytes: int

    @property
    def licence(self) -> str:
        """Licences of all sources."""
        return "; ".join(dict.fromkeys(source.licence for source in self.sources))


def cache_root() -> Path:
    """The user's cache folder for data."""
    from platformdirs import user_cache_path

    return user_cache_path("cloudchamber") / "data"


def find(dataset: Dataset) -> Path | None:
    """Return the folder if the whole dataset is on this machine, without fetching anything.

    Raises
    ------
    InputError
        If $CLOUDCHAMBER_DATA names no folder.
    """
    root = os.environ.get(ENVIRONMENT)
    if root and not Path(root).is_dir():
        raise InputError(f"${ENVIRONMENT} is {root!r}, which is not a folder; unset it or point it at the data root.")
    places = [Path(root), cache_root()] if root else [cache_root()]
    return next((place / dataset.name for place in places if all((place / dataset.name / name).is_file() for name in dataset.sha256)), None)


def locate(dataset: Dataset) -> Path:
    """Return the dataset's folder, fetching and converting it once if it is not on this machine.

    Raises
    ------
    DatasetUnavailable
        If it is neither here nor to be had from its origin.
    """
    found = find(dataset)
    if found is not None:
        return found
    if dataset.name not in _failed:
        try:
            return fetch(dataset)
        except DatasetUnavailable as error:
            _failed[dataset.name] = error
    raise _failed[dataset.name]


_failed: dict[str, DatasetUnavailable] = {}  # one attempt a process: without network every workload would wait again


def fetch(dataset: Dataset) -> Path:
    """Fetch, convert and check a dataset; it appears in the cache whole or not at all.

    Raises
    ------
    DatasetUnavailable
        If a download fails or a converted file is not the expected one.
    """
    import pooch

    target = cache_root() / dataset.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            work = Path(temporary)
            folders = []
            for i, source in enumerate(dataset.sources):
                downloader = pooch.HTTPDownloader(progressbar=False, timeout=20)
                archive = pooch.retrieve(source.url, known_hash=None, path=work, fname=f"{i}.tar.gz", downloader=downloader)
                folders.append(work / str(i))
                with tarfile.open(archive) as tar:
                    tar.extractall(folders[-1], filter="data")
            made = work / "made"
            made.mkdir()
            dataset.convert(folders, made)
            wrong = check(dataset, made)
            if wrong:
                raise DatasetUnavailable(
                    f"dataset {dataset.name!r}: {wrong[0]} is not the expected file after conversion; its origin changed."
                )
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
    except DatasetUnavailable:
        raise
    except Exception as error:  # network, archive and disk fail in many ways; all mean the same to the caller
        raise DatasetUnavailable(
            f"dataset {dataset.name!r} is not here and could not be fetched from its origin ({type(error).__name__}). "
            f"Set ${ENVIRONMENT} to a folder that holds {dataset.name}/, or try again with network access."
        ) from error
    return target


def check(dataset: Dataset, folder: Path) -> list[str]:
    """Return the names of files that are missing or differ from their SHA-256."""
    return [name for name, expected in dataset.sha256.items() if not (folder / name).is_file() or _sha256(folder / name) != expected]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Return name, licence and one hash over the files as they are here (None where the data is not here)."""
    folder = find(dataset)
    digest = None
    if folder is not None:
        lines = [f"{name} {_sha256(folder / name) if (folder / name).is_file() else 'missing'}" for name in sorted(dataset.sha256)]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return {"name": dataset.name, "licence": dataset.licence, "sha256": digest}


def all_datasets(studies: Iterable[Any]) -> list[Dataset]:
    """Every dataset the studies read, each once, in order of name."""
    found = {dataset.name: dataset for study in studies for dataset in study.datasets()}
    return [found[name] for name in sorted(found)]
