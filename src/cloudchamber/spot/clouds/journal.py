"""An append-only journal: one JSON object a line, on the disk before the caller goes on, readable after any crash."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cloudchamber.core.errors import InputError


class Journal:
    """A file of JSON lines that is only ever appended to.

    A line that a crash tore in the middle was never acknowledged: it is cut off when the journal is opened, and counted.

    Parameters
    ----------
    path : Path
        Created, with its folder, when it does not exist.

    Raises
    ------
    InputError
        If a line other than the last is not JSON, so that the file cannot be a journal.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> Journal(folder / "log").append(kind="launch", zone=1)
    >>> Journal(folder / "log").records
    [{'kind': 'launch', 'zone': 1}]
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.torn_lines = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.records = self._load()

    def append(self, **record: Any) -> None:
        """Write one record and return once it is on the disk.

        Raises
        ------
        OSError
            If it could not be written whole; the journal is then as it was before.
        """
        line = json.dumps(record).encode() + b"\n"
        end = os.fstat(self._fd).st_size
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes fitted into {self.path}; free some disk space.")
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, end)
            raise
        self.records.append(record)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _load(self) -> list[dict[str, Any]]:
        records, size = _parse(self.path)
        if size < self.path.stat().st_size:
            self.torn_lines = 1
            os.ftruncate(self._fd, size)
            os.fsync(self._fd)
        return records


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the records of a journal that another process may be writing.

    Raises
    ------
    InputError
        If it is not a journal.
    """
    return _parse(path)[0]


def _parse(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records, and the bytes they take."""
    records, size = [], 0
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            if not line.endswith(b"\n"):
                break
            records.append(json.loads(line))
        except ValueError:  # a file system may leave a torn line with its newline in place
            if number < len(lines):
                raise InputError(f"line {number} of {path} is not JSON: it is no journal, or was edited. Use another folder.") from None
            break
        size += len(line)
    return records, size
