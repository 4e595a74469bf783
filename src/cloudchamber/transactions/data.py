"""The three public batches of the transaction-scheduling benchmark, and a user's own."""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path

from cloudchamber.core.datasets import Dataset, Source
from cloudchamber.core.errors import InputError

_COMMIT = "59643ef8e7aa9ae071e86028d9ba56849fad0d80"
PUBLIC = ("w1", "w2", "w3")


def _convert(folders: list[Path], target: Path) -> None:
    """Take the three literals out of the benchmark's source (read, never run) and write one JSON file each."""
    source = next(folders[0].iterdir()) / "benchmarks/ADRS/txn_scheduling/evaluator/workloads.py"
    literals = {
        each.targets[0].id: ast.literal_eval(each.value)
        for each in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name) and each.targets[0].id.startswith("WORKLOAD_")
    }
    for i, name in enumerate(PUBLIC, 1):
        write_batch(json.loads(literals[f"WORKLOAD_{i}"]), target / f"{name}.json")


def write_batch(transactions: dict[str, str], target: Path) -> None:
    """Write a batch, one transaction a line."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(' '.join(slots.split()))}" for name, slots in transactions.items())
    target.write_text(f"{{\n{lines}\n}}", encoding="utf-8")


@cache
def txn_dataset() -> Dataset:
    """The declared dataset ``txn-scheduling``."""
    return Dataset(
        name="txn-scheduling",
        title="Three transaction batches of the ADRS benchmark",
        sources=(Source(f"https://github.com/skydiscover-ai/skydiscover/archive/{_COMMIT}.tar.gz", _COMMIT, "Apache-2.0 (SkyDiscover)"),),
        convert=_convert,
        sha256={
            "w1.json": "969f9575669d88e4ede3152a551e01fbbd2eb611879b344192d5a173f77b6ec0",
            "w2.json": "f1c9544ddb6d277107be55d7f160fae978d236357d66e4b1a11d403ff50582e1",
            "w3.json": "444a5bd6149fb9f41c30d2cf5dae5085a7392fe3f039972ae9206621e620f5df",
        },
        size_bytes=16_581,
    )


@cache
def read_batch(path: str, sha256: str = "") -> tuple[str, ...]:
    """Return the transactions of a batch file: ``{"NAME": "r-1 w-2 *", ...}``, or a list of such texts.

    Raises
    ------
    InputError
        If it is no such file, or holds no transaction.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"cannot read the batch {path!r} as JSON: {error}.") from None
    texts = list(content.values()) if isinstance(content, dict) else content
    if not isinstance(texts, list) or not texts or not all(isinstance(each, str) for each in texts):
        raise InputError(f'{path!r} must hold {{"NAME": "r-1 w-2 *", ...}} or a list of such texts, with at least one transaction.')
    return tuple(texts)
