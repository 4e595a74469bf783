"""The one byte string and hash of plain data, and times as records write them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from cloudchamber.core.errors import InputError


@lru_cache(maxsize=4096)
def instant(text: str) -> datetime:
    """Return the time an ISO date or time names, in UTC where it does not say.

    Raises
    ------
    InputError
        If it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is not an ISO date or time such as 2025-11-22 or 2025-11-22T09:30:00+00:00.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def canonical(value: Any) -> bytes:
    """Return the one byte string of plain data: JSON with sorted keys."""
    return msgspec.json.encode(value, order="deterministic")


def digest(value: Any) -> str:
    """Return the SHA-256 of plain data's canonical bytes."""
    return hashlib.sha256(canonical(value)).hexdigest()
