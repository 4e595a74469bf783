"""The headline claims on prefill-only serving."""

from __future__ import annotations

CLAIMS = ()
