"""The published placement instances: where they come from, and how they and a user's own are read."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cloudchamber.core.datasets import Dataset, Source
from cloudchamber.core.errors import InputError

from .model import Instance, Model

FILE = "instances.json"
INSTANCES = 50
_COMMIT = "59643ef8e7aa9ae071e86028d9ba56849fad0d80"
_KEYS, _MODEL_KEYS = ("gpus", "gpu_memory_gb", "models"), ("size_gb", "request_rate", "slo")


def _convert(folders: list[Path], target: Path) -> None:
    """Draw the instances as the published evaluator does: it draws them when run, so its archive does not hold them."""
    rng = np.random.RandomState(42)  # the published stream
    instances = []
    for _ in range(INSTANCES):
        gpus = int(rng.randint(5, 10))
        instances.append({"gpus": gpus, "gpu_memory_gb": 80, "models": [_model(rng, i) for i in range(2 * gpus)]})
    (target / FILE).write_text(json.dumps(instances))


def _model(rng: np.random.RandomState, number: int) -> dict[str, Any]:
    size, rate, slo = (int(rng.randint(low, high)) for low, high in ((10, 30), (1, 10), (5, 10)))
    return {"name": f"model_{number}", "size_gb": size, "request_rate": rate, "slo": slo}


@cache
def prism_dataset() -> Dataset:
    """The declared dataset ``adrs/prism``."""
    return Dataset(
        name="adrs/prism",
        title="50 instances of model placement on GPUs of 80 GB",
        sources=(Source(f"https://github.com/skydiscover-ai/skydiscover/archive/{_COMMIT}.tar.gz", _COMMIT, "Apache-2.0 (SkyDiscover)"),),
        convert=_convert,
        sha256={FILE: "1e0c476dcadf4d0cc0dc56da72532aca5316f92afa93bf45b56c3e7fe0682203"},
        size_bytes=48_396,
    )


def read_instances(path: Path) -> tuple[Instance, ...]:
    """Read a file of instances: a JSON list of ``{"gpus": 8, "gpu_memory_gb": 80, "models": [{"size_gb", "request_rate", "slo"}, ...]}``.

    Raises
    ------
    InputError
        Saying which instance is wrong, and how.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}.") from None
    if not isinstance(content, list) or not content:
        raise InputError(f"{path} must hold a list of instances, each with {', '.join(_KEYS)}.")
    return tuple(_instance(each, f"{path.name}, instance {number}") for number, each in enumerate(content))


def _instance(content: Any, where: str) -> Instance:
    gpus, memory_gb, models = _values(content, _KEYS, where)
    if not isinstance(models, list):
        raise InputError(f"{where}: models must be a list.")
    if not isinstance(gpus, int) or isinstance(gpus, bool):
        raise InputError(f"{where}: gpus must be a whole number, got {gpus!r}.")
    try:
        return Instance(
            gpus,
            _number(memory_gb, "gpu_memory_gb"),
            tuple(
                Model(*(_number(value, key) for key, value in zip(_MODEL_KEYS, _values(model, _MODEL_KEYS, where), strict=True)))
                for model in models
            ),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _values(content: Any, keys: tuple[str, ...], where: str) -> list[Any]:
    if not isinstance(content, dict) or not set(keys) <= set(content):
        raise InputError(f"{where}: an object with {', '.join(keys)} is needed, got {str(content)[:60]!r}.")
    return [content[key] for key in keys]


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{name} must be a number, got {value!r}.")
    return float(value)
