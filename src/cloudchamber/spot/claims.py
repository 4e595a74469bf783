"""The headline claims on spot scheduling, and how each is reproduced here."""

from __future__ import annotations

CLAIMS = ()
