"""Pictures of the small video model: frames beside frames, and quality over density."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping

import numpy as np

from cloudchamber.core.svg import PALETTE, Scale, document, line, text

FRAME, GAP, LABEL = 72.0, 4.0, 240.0
WIDTH, HEIGHT, LEFT, BOTTOM, KEY = 980.0, 320.0, 56.0, 36.0, 210.0


def filmstrips(clips: Mapping[str, np.ndarray]) -> str:
    """Return one row of frames for each clip, of brightness in [0, 1] and shape (frames, rows, columns)."""
    parts, widest = [], 0.0
    for row, (name, frames) in enumerate(clips.items()):
        top = row * (FRAME + GAP)
        parts.append(text(0, top + FRAME / 2 + 4, name))
        for column, frame in enumerate(frames):
            left = LABEL + column * (FRAME + GAP)
            parts.append(
                f'<image x="{left:g}" y="{top:g}" width="{FRAME:g}" height="{FRAME:g}" style="image-rendering:pixelated" '
                f'href="data:image/png;base64,{base64.b64encode(png(frame)).decode()}"/>'
            )
            widest = max(widest, left + FRAME)
    return document(widest, len(clips) * (FRAME + GAP), parts, "frames of clips")


def png(frame: np.ndarray) -> bytes:
    """A grey picture of brightness in [0, 1], shape (rows, columns)."""
    grey = (np.clip(frame, 0, 1) * 255).round().astype(np.uint8)
    rows, columns = grey.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), grey], axis=1).tobytes()  # each row begins with its filter: none
    chunks = ((b"IHDR", struct.pack(">2I5B", columns, rows, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    packed = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def curves(found: Mapping[str, tuple[np.ndarray, np.ndarray]], measure: str) -> str:
    """Return a line for each method: (densities, rising; the measure at each)."""
    values = np.concatenate([each[1] for each in found.values()])
    x, y = Scale(0, 1, LEFT, WIDTH - KEY), Scale(float(values.min()), float(values.max()), HEIGHT - BOTTOM, 12)
    parts = [text(LEFT, HEIGHT - 4, "share of all pairs that is computed"), text(2, 12, measure)]
    for at in np.linspace(0, 1, 6):
        parts += [line(x(at), 12, x(at), HEIGHT - BOTTOM), text(x(at), HEIGHT - BOTTOM + 14, f"{at:g}", anchor="middle")]
    for at in y.ticks():
        parts += [line(LEFT, y(at), WIDTH - KEY, y(at)), text(LEFT - 6, y(at) + 4, f"{at:.3g}", anchor="end")]
    for i, (name, (density, value)) in enumerate(found.items()):
        colour = PALETTE[i % len(PALETTE)]
        dash = ' stroke-dasharray="5 3"' if i >= len(PALETTE) else ""
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(density, value, strict=True))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{colour}"/>' for a, b in zip(density, value, strict=True)]
        key = f'x1="{WIDTH - KEY + 12:g}" y1="{20 + 18 * i:g}" x2="{WIDTH - KEY + 32:g}" y2="{20 + 18 * i:g}"'
        parts += [f'<line {key} stroke="{colour}" stroke-width="2"{dash}/>', text(WIDTH - KEY + 38, 24 + 18 * i, name)]
    return document(WIDTH, HEIGHT, parts, f"{measure} over density")
