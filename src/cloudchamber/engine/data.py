"""The public traces of LLM requests: what they are, where they come from, and how they and a user's own are read."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cloudchamber.core.datasets import Dataset, Source
from cloudchamber.core.errors import InputError

from .traces import Trace, gaps

MOONCAKE_BLOCK = 512  # tokens for which one hash stands in Mooncake's traces
_AZURE, _MOONCAKE, _VIDUR, _SERVEGEN = (
    "b469a113cedca53ddc3bdea71a143dc4b7d8700c",
    "3b5a594133958449a1feaf1c9e0fc1b553e34a28",
    "7d47513363ec447a741ac5e47241580b47724fbf",
    "f891d1189eb32b3868dfc443800c4150548c282a",
)
FILES = {
    "azure-code": "azure2023_code.csv.gz",
    "azure-conv": "azure2023_conv.csv.gz",
    "mooncake-conversation": "mooncake_conversation.jsonl.gz",
    "mooncake-synthetic": "mooncake_synthetic.jsonl.gz",
    "arxiv": "arxiv_summarization_lengths.csv.gz",
}


def _write(target: Path, lines: Iterable[str]) -> None:
    with target.open("wb") as file, gzip.GzipFile(target.stem, "wb", 9, file, mtime=0) as packed:
        packed.write("".join(f"{line}\n" for line in lines).encode())


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8-sig", newline="")))


def _convert(folders: list[Path], target: Path) -> None:
    """Reduce the unpacked archives to arrival times, lengths and block hashes."""
    azure, mooncake, vidur = (next(folder.iterdir()) for folder in folders)
    for kind in ("code", "conv"):
        rows = _rows(azure / f"data/AzureLLMInferenceTrace_{kind}.csv")
        at = [_ticks(row["TIMESTAMP"]) for row in rows]
        lines = [f"{(t - at[0]) / 10_000:.1f},{row['ContextTokens']},{row['GeneratedTokens']}" for t, row in zip(at, rows, strict=True)]
        _write(target / f"azure2023_{kind}.csv.gz", ["arrival_ms,input_tokens,output_tokens", *lines])
    for kind in ("conversation", "synthetic"):
        with (mooncake / f"FAST25-release/traces/{kind}_trace.jsonl").open() as file:
            found = [json.loads(line) for line in file]
        keys = ("timestamp", "input_length", "output_length", "hash_ids")
        _write(target / f"mooncake_{kind}.jsonl.gz", (json.dumps([each[key] for key in keys], separators=(",", ":")) for each in found))
    rows = _rows(vidur / "data/processed_traces/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv")
    lines = [f"{int(float(row['num_prefill_tokens']))},{int(float(row['num_decode_tokens']))}" for row in rows]
    _write(target / FILES["arxiv"], ["input_tokens,output_tokens", *lines])


@cache
def traces_dataset() -> Dataset:
    """The declared dataset ``llm-traces``."""

    def at(repository: str, commit: str, licence: str) -> Source:
        return Source(f"https://github.com/{repository}/archive/{commit}.tar.gz", commit, licence)

    return Dataset(
        name="llm-traces",
        title="Requests to LLM services: arrivals, lengths, shared prefixes",
        sources=(
            at("Azure/AzurePublicDataset", _AZURE, "CC-BY-4.0 (Azure)"),
            at("kvcache-ai/Mooncake", _MOONCAKE, "Apache-2.0 (Mooncake)"),
            at("microsoft/vidur", _VIDUR, "MIT (Vidur)"),
        ),
        convert=_convert,
        sha256={
            "azure2023_code.csv.gz": "d5f8821a109cf73a5265182a2ab7983731a852de8dd5ce76bb623bc6b83f1243",
            "azure2023_conv.csv.gz": "a92c51240dcd852c091bd2d597107023448d65146f157cd979befbcf7bc83773",
            "mooncake_conversation.jsonl.gz": "1901a2cf6d929b9f3b25c6701d15e69cdfbd61d49e9b68c908de466ae067d30d",
            "mooncake_synthetic.jsonl.gz": "772c191ae105ab53a36db5f815a9add75b8c76d967807f7a3752b13f588f30d5",
            "arxiv_summarization_lengths.csv.gz": "23cb73a52e0d9e99ae3504c5ebcf308a635de5655207d12ccc1853d527c6baa6",
        },
        size_bytes=1_266_225,
    )


@cache
def read_trace(path: Path, sha256: str = "") -> Trace:
    """Read a file of requests, CSV or JSON lines, gzipped or not.

    Known are the compact forms, and the schemas as published: Azure (``TIMESTAMP, ContextTokens, GeneratedTokens``), BurstGPT
    (``Timestamp, ..., Request tokens, Response tokens``, with or without ``Session ID``), Mooncake
    (``{"timestamp", "input_length", "output_length", "hash_ids"}``). Requests without an answer (failed ones) are left out.

    Raises
    ------
    InputError
        Saying which line cannot be read.
    """
    try:
        raw = path.read_bytes()
        content = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the trace {str(path)!r}: {error}.") from None
    lines = content.splitlines()
    if not lines:
        raise InputError(f"{path.name} is empty.")
    if lines[0].lstrip()[:1] in ("[", "{"):
        return _mooncake(path.name, lines)
    return _table(path.name, content)


_SCHEMAS: dict[tuple[str, ...], tuple[str, str, str, float | None]] = {
    # columns that tell a schema: arrival, input, output, and arrival units per second (None: an instant as text)
    ("arrival_ms",): ("arrival_ms", "input_tokens", "output_tokens", 1000.0),
    ("arrival_s",): ("arrival_s", "input_tokens", "output_tokens", 1.0),
    ("TIMESTAMP", "ContextTokens"): ("TIMESTAMP", "ContextTokens", "GeneratedTokens", None),
    ("Timestamp", "Request tokens"): ("Timestamp", "Request tokens", "Response tokens", 1.0),
    ("input_tokens",): ("", "input_tokens", "output_tokens", 1.0),
}


def _table(name: str, content: str) -> Trace:
    reader = csv.DictReader(io.StringIO(content))
    columns = reader.fieldnames or []
    found = next((schema for keys, schema in _SCHEMAS.items() if set(keys) <= set(columns)), None)
    if found is None or found[2] not in columns:
        known = "; ".join(", ".join(filter(None, schema[:3])) for schema in _SCHEMAS.values())
        raise InputError(f"{name} has the columns {', '.join(columns)[:120]}; known are {known}.")
    at, n_input, n_output, units = found
    rows: list[tuple[float, int, int, str]] = []
    for number, row in enumerate(reader, 2):
        try:
            when = 0.0 if not at else _ticks(row[at]) / 1e7 if units is None else float(row[at]) / units
            tokens = int(float(row[n_input])), int(float(row[n_output]))
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{name}, line {number}: cannot read {dict(row)!r} as a request.") from None
        if min(tokens) >= 1:
            rows.append((when, *tokens, row.get("Session ID") or ""))
    rows.sort(key=lambda row: row[0])
    sessions = [row[3] or None for row in rows] if any(row[3] for row in rows) else None
    return _made(name, np.array([row[0] for row in rows]), [row[1] for row in rows], [row[2] for row in rows], program=sessions)


def _mooncake(name: str, lines: list[str]) -> Trace:
    rows = []
    chained: dict[tuple[int, int], int] = {}  # a hash stands for all that came before it too, whatever the file's ids say
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if isinstance(row, dict):
                row = [row["timestamp"], row["input_length"], row["output_length"], row["hash_ids"]]
            at, n_input, n_output, ids = row
            full, parent = [], -1
            for each in ids[: int(n_input) // MOONCAKE_BLOCK]:  # the last one may be partial
                parent = chained.setdefault((parent, int(each)), len(chained))
                full.append(parent)
            rows.append((float(at) / 1000, int(n_input), int(n_output), full))
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{name}, line {number}: cannot read {line[:60]!r} as a request.") from None
    rows = sorted((row for row in rows if min(row[1:3]) >= 1), key=lambda row: row[0])
    return _made(
        name, np.array([row[0] for row in rows]), [row[1] for row in rows], [row[2] for row in rows],
        blocks=[row[3] for row in rows], block_tokens=MOONCAKE_BLOCK,
    )  # fmt: skip


def _made(name: str, at: np.ndarray, n_input: list[int], n_output: list[int], **more: Any) -> Trace:
    if not len(at):
        raise InputError(f"{name} holds no request with a prompt and an answer.")
    if not np.isfinite(at).all():
        raise InputError(f"{name} holds an arrival time that is no number.")
    return Trace(at - at[0], np.array(n_input), np.array(n_output), **more)


def _ticks(text: str) -> int:
    """Tenths of a microsecond of ``2023-11-16 18:15:46.6805900``: more digits than Python reads."""
    whole, _, fraction = text.strip().partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 10_000_000 + int(f"{fraction.rstrip('Z'):0<7}"[:7])


class Clients:
    """ServeGen's clients of one model: 10-minute windows with their rate and burstiness, and quantiles of lengths.

    Parameters
    ----------
    folder : Path
    model : str
        ``m-small``, ``m-mid``, ``m-large`` or ``deepseek-r1``.

    Raises
    ------
    InputError
        If the files are not there.
    """

    WINDOW_S = 600.0
    SHARES = np.array([0.0, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99])

    def __init__(self, folder: Path, model: str) -> None:
        self.windows: dict[int, list[tuple[int, float, float]]] = {}  # by time: client, rate, cv
        self.lengths: dict[tuple[int, str], np.ndarray] = {}
        for row in _read(folder / f"servegen_{model}_clients.csv.gz"):
            window = self.windows.setdefault(int(row["window_start_s"]), [])
            window.append((int(row["client"]), float(row["rate_per_s"]), float(row["cv"])))
        quantiles = ("q5", "q10", "q25", "q50", "q75", "q90", "q95", "q99")
        for row in _read(folder / f"servegen_{model}_lengths.csv.gz"):
            self.lengths[int(row["client"]), row["field"]] = np.array([1.0, *(float(row[q]) for q in quantiles)])

    def draw(self, n: int, rate_per_s: float, rng: np.random.Generator) -> Trace:
        """Return ``n`` requests of one drawn window, whose rates are scaled to ``rate_per_s`` in all."""
        window = self.windows[sorted(self.windows)[int(rng.integers(len(self.windows)))]]
        total = sum(rate for _, rate, _ in window)
        known = sorted({client for client, _ in self.lengths})
        rows: list[tuple[float, int, int, int]] = []
        for client, rate, cv in window:
            own = rate / total * rate_per_s
            expected = own * n / rate_per_s
            if expected < 0.01:
                continue
            at = gaps(int(expected + 6 * (1 + cv) * np.sqrt(expected) + 4), own, min(max(cv, 0.05), 20.0), rng)
            like = client if (client, "input_tokens") in self.lengths else known[int(rng.integers(len(known)))]
            drawn = [
                np.maximum(1, np.rint(np.interp(rng.random(len(at)) * 0.99, self.SHARES, self.lengths[like, field]))).astype(int)
                for field in ("input_tokens", "output_tokens")
            ]
            rows += zip(at.tolist(), drawn[0].tolist(), drawn[1].tolist(), [client] * len(at), strict=True)
        rows = sorted(rows)[:n]
        at_s = np.array([row[0] for row in rows])
        return Trace(at_s - at_s[0], np.array([row[1] for row in rows]), np.array([row[2] for row in rows]))


def _read(path: Path) -> Iterator[dict[str, str]]:
    try:
        yield from csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode()))
    except OSError:
        raise InputError(f"{path.name} is not beside the other traces; it is no part of what is fetched.") from None
