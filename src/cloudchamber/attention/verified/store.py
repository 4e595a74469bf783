"""A cache of keys and values in a file that is mapped into memory: what a decode step reads of it is what it costs.

The file is a header and rows of float32, one for each key head and token: the key, then its value, so that both lie on one page of the
system's. Rows of a head follow each other. It is written once; nothing in it is changed afterwards.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from cloudchamber.core.errors import InputError

from .decode import Cache, Decoded

MAGIC = b"cckvfile"
HEADER = struct.Struct("<8sIIQI")  # magic, version, key heads, tokens, head dimension
VERSION = 1
PAGE = mmap.PAGESIZE


class KVFile:
    """Keys and values of one sequence in a mapped file.

    Parameters
    ----------
    path : path-like
        As :meth:`write` left it.
    whole : bool, default False
        Whether steps read all of it, so that the system does well to read ahead; else it would read what nobody asked for.

    Attributes
    ----------
    cache : Cache
        For ``VAttention``: views of the file, of which only touched pages are read.
    bytes_read : int
        Of pages with rows that steps have read so far, each counted once a step (:meth:`count`).

    Raises
    ------
    InputError
        If the file is no such cache, or has not the size that its header says.

    Examples
    --------
    >>> import tempfile
    >>> keys, values = np.random.default_rng(0).standard_normal((2, 2, 500, 32))
    >>> with tempfile.TemporaryDirectory() as folder, KVFile.write(Path(folder, "cache.kv"), keys, values) as kv:
    ...     print(kv.shape, kv.size_bytes // 1024, "KiB")
    (2, 500, 32) 254 KiB
    """

    def __init__(self, path: Path | str, *, whole: bool = False) -> None:
        self.path = Path(path)
        self._file = self.path.open("rb")
        try:
            self.shape = self._opened()
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except BaseException:
            self._file.close()
            raise
        self._map.madvise(mmap.MADV_SEQUENTIAL if whole else mmap.MADV_RANDOM)
        heads, tokens, dim = self.shape
        rows = np.frombuffer(self._map, np.float32, offset=PAGE).reshape(-1, dim)
        self.cache = Cache(rows, rows[1:], np.arange(tokens), heads, 2, 2 * tokens, None if whole else self._fetch)
        self.bytes_read = 0

    @classmethod
    def write(cls, path: Path | str, keys: np.ndarray, values: np.ndarray) -> Self:
        """Write a cache of arrays of shape (key heads, tokens, head dimension) and open it.

        Raises
        ------
        InputError
            If they differ in shape, are not so shaped or are empty, or the file exists.
        """
        if keys.ndim != 3 or keys.shape != values.shape or not keys.size:
            raise InputError(f"keys and values must have the shape (key heads, tokens, head dimension), got {keys.shape}, {values.shape}.")
        try:
            with Path(path).open("xb") as file:
                file.write(HEADER.pack(MAGIC, VERSION, *keys.shape).ljust(PAGE, b"\0"))
                for k, v in zip(keys, values, strict=True):
                    file.write(np.stack([k, v], axis=1).astype("<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())  # pages that are not yet written cannot be dropped
        except FileExistsError:
            raise InputError(f"{path} exists; name a file that does not.") from None
        return cls(path)

    def _opened(self) -> tuple[int, int, int]:
        head, size = self._file.read(HEADER.size), os.fstat(self._file.fileno()).st_size
        if len(head) < HEADER.size or head[: len(MAGIC)] != MAGIC:
            raise InputError(f"{self.path} is no cache of keys and values: it does not begin with {MAGIC.decode()!r}.")
        _, version, heads, tokens, dim = HEADER.unpack(head)
        if version != VERSION:
            raise InputError(f"{self.path} has version {version} of the format, this reads version {VERSION}; write it anew.")
        wanted = PAGE + 8 * heads * tokens * dim
        if size != wanted or not heads * tokens * dim:
            what = "is cut short" if size < wanted else "has the wrong size"
            raise InputError(
                f"{self.path} {what}: {heads} heads of {tokens} tokens of {dim} take {wanted} bytes, it has {size}; write it anew."
            )
        return heads, tokens, dim

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return len(self._map)

    def pages(self, tokens: np.ndarray) -> np.ndarray:
        """Pages of the file on which the keys and values of some tokens lie; ``tokens``: booleans of shape (key heads, tokens)."""
        heads, n, dim = self.shape
        if tokens.shape != (heads, n) or tokens.dtype != bool:
            raise InputError(f"tokens must be booleans of shape {(heads, n)}, got {tokens.dtype} of {tokens.shape}.")
        first = PAGE + np.flatnonzero(tokens) * (8 * dim)
        is_read = np.zeros(-(-self.size_bytes // PAGE) + 1, np.int32)
        np.add.at(is_read, first // PAGE, 1)
        np.add.at(is_read, (first + 8 * dim - 1) // PAGE + 1, -1)
        return np.flatnonzero(np.cumsum(is_read))

    def count(self, done: Decoded) -> int:
        """Bytes of the pages that a step read, added to ``bytes_read``."""
        found = len(self.pages(done.tokens)) * PAGE
        self.bytes_read += found
        return found

    def drop(self) -> None:
        """Ask the system to forget the file's pages, so that the next step reads from the disk; it need not obey, see :meth:`resident`."""
        self._map.madvise(mmap.MADV_DONTNEED)
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def resident(self) -> int | None:
        """Bytes of the file that lie in memory, as the system says; None where it does not say."""
        mincore = getattr(ctypes.CDLL(None, use_errno=True), "mincore", None)
        if mincore is None:
            return None
        flags = np.zeros(-(-self.size_bytes // PAGE), np.uint8)
        at = np.frombuffer(self._map, np.uint8).ctypes.data
        failed = mincore(ctypes.c_void_p(at), ctypes.c_size_t(self.size_bytes), flags.ctypes.data_as(ctypes.c_void_p))
        return None if failed else int((flags & 1).sum()) * PAGE

    def _fetch(self, rows: np.ndarray) -> None:
        """Ask for the pages of keys that begin at these rows, and of their values, all at once."""
        if not len(rows):
            return
        size = 4 * self.shape[2]
        first = PAGE + np.sort(rows) * size
        low, high = first // PAGE, (first + 2 * size - 1) // PAGE + 1
        starts = np.flatnonzero(np.append(True, low[1:] > np.maximum.accumulate(high)[:-1]))
        for start, end in zip(low[starts].tolist(), np.maximum.reduceat(high, starts).tolist(), strict=True):
            self._map.madvise(mmap.MADV_WILLNEED, start * PAGE, (end - start) * PAGE)

    def close(self) -> None:
        """Let go of the file. Arrays of the cache must not be used any more."""
        del self.cache
        with suppress(BufferError):  # someone still holds an array: the map goes with the last of them
            self._map.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
