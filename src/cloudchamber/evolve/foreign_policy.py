"""What runs in the jail for an imported evaluator: it writes evaluator and program to the throw-away /tmp and calls the one on the other.

:class:`~cloudchamber.evolve.importer.ImportedStudy` sends this file's text with the three constants filled in.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import inspect
import json
import os
import random
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudchamber.evolve.foreign import Report

EVALUATOR: str = ""
PROGRAM: str = ""
FILES: dict[str, bytes] = {}


class InLine(concurrent.futures.Executor):
    """A pool without threads, of which the jail has none: evaluators use pools to stop slow programs, which here the jail does."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Call it now."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class EvaluationResult:
    """OpenEvolve's result type, for evaluators that import it."""

    def __init__(self, metrics: Any = None, artifacts: Any = None) -> None:
        self.metrics, self.artifacts = metrics or {}, artifacts or {}


class Evaluated:
    """The evaluator with the program inside."""

    def evaluate(self, stage: str, seed: int) -> Report:
        """See :meth:`Foreign.evaluate`."""
        folder = Path("/tmp/evaluation")
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        for name, data in {**FILES, "evaluator.py": EVALUATOR.encode(), "program.py": PROGRAM.encode()}.items():
            (folder / name).write_bytes(data)
        sys.path.insert(0, str(folder))
        _stand_in()
        random.seed(seed)
        if importlib.util.find_spec("numpy") is not None:
            import numpy as np

            np.random.seed(seed % 2**32)
        module, program = _load(folder / "evaluator.py"), str(folder / "program.py")
        if stage == "smoke":
            if not hasattr(module, "evaluate_stage1"):
                compile(PROGRAM, "program.py", "exec")
                return Report({})
            _, error, text = _read(module.evaluate_stage1(program))
            return Report({}, error, text)
        metrics, error, text = _read(module.evaluate(program) if hasattr(module, "evaluate") else _shinka(module, program, folder))
        return Report(metrics, error, text)


def _stand_in() -> None:
    concurrent.futures.ThreadPoolExecutor = concurrent.futures.ProcessPoolExecutor = InLine  # type: ignore[assignment,misc]
    if importlib.util.find_spec("openevolve") is None:
        for name in ("openevolve", "openevolve.evaluation_result"):
            module: Any = types.ModuleType(name)
            module.EvaluationResult, module.__path__ = EvaluationResult, []
            sys.modules[name] = module


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("evaluator", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["evaluator"] = module
    spec.loader.exec_module(module)
    return module


def _read(result: Any) -> tuple[dict[str, float], str, str]:
    """Metrics, error and other words of whatever an evaluator returned."""
    if isinstance(result, (int, float)) or hasattr(result, "item"):
        return {"combined_score": float(result)}, "", ""
    if isinstance(result, tuple) and result:
        result = result[0]
    metrics, artifacts = getattr(result, "metrics", result), getattr(result, "artifacts", None)
    if not isinstance(metrics, dict):
        return {}, f"it returned a {type(metrics).__name__}, not numbers by name", ""
    found = {str(name)[:80]: float(value) for name, value in metrics.items() if isinstance(value, (int, float)) or hasattr(value, "item")}
    error, items = metrics.get("error"), [*metrics.items(), *dict(artifacts or {}).items()]
    words = "; ".join(f"{name}: {value}" for name, value in items if isinstance(value, str))
    return found, error[:2000] if isinstance(error, str) else "", words[:2000]


def _shinka(module: Any, program: str, folder: Path) -> dict[str, Any]:
    """ShinkaEvolve's form: the evaluator writes its results to a folder."""
    results = folder / "results"
    results.mkdir(exist_ok=True)
    names = list(inspect.signature(module.main).parameters)
    module.main(**dict(zip(names, (program, str(results)), strict=False)))
    metrics: dict[str, Any] = json.loads((results / "metrics.json").read_text())
    place = results / "correct.json"
    verdict = json.loads(place.read_text()) if place.is_file() else {"correct": True}
    if not verdict.get("correct", False):
        metrics["error"] = str(verdict.get("error") or "marked as not correct")
    return metrics
