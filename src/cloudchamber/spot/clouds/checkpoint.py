"""What a checkpoint is: files with their sizes and hashes, and the finished share of the work."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from cloudchamber.core.errors import ChamberError, InputError


class CheckpointError(ChamberError, OSError):
    """A checkpoint could not be stored or read back; those stored before are untouched."""


class File(msgspec.Struct, frozen=True):
    """Size and SHA-256 of one file of a checkpoint."""

    size_bytes: int
    sha256: str


class Checkpoint(msgspec.Struct, frozen=True):
    """A complete checkpoint, as its manifest describes it.

    Parameters
    ----------
    version : str
        Sorts in order of age: the instance's number, then the number of its upload.
    zone : int
        The zone that wrote it, or that it was last copied to.
    progress : float
        Finished share of the job's work, in [0, 1].
    hops : int
        How often it was copied; among equal versions the most travelled is where the job is.
    files : dict
        Path inside the checkpoint directory to its :class:`File`.
    """

    version: str
    zone: int
    progress: float
    hops: int
    files: dict[str, File]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files.values())


def describe(path: Path) -> File:
    """Return size and SHA-256 of a file."""
    with path.open("rb") as file:
        return File(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def read_progress(folder: Path) -> float:
    """Return the finished share of the work that a job wrote to ``progress``, 0 before it has.

    Raises
    ------
    InputError
        If the file holds anything but a number in [0, 1].
    """
    try:
        text = (folder / "progress").read_text().strip()
    except FileNotFoundError:
        return 0.0
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(
            f"a job writes the finished share of its work, from 0 to 1, to 'progress'; got {text[:40]!r}. Write it to a "
            "new file and rename that, so that it is never half written."
        )
    return share
