"""Claims on SLA that need no training, and how each is reproduced here."""

from __future__ import annotations

CLAIMS = ()
