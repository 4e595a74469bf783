"""The headline claims on scheduling an LLM server."""

from __future__ import annotations

CLAIMS = ()
