"""cloudchamber: the decisions inside AI infrastructure, studied, improved and run.

One problem module per decision (``cloudchamber.spot``, ...), each with its policies, baselines, optimum, simulator and runtime:

>>> import cloudchamber
>>> results = cloudchamber.study("spot", policies=["SkyNomad"], workloads=["smoke"], seeds=2)
>>> len(results.trials)
2
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Policy", "Results", "Study", "__version__", "clone", "load_study", "study"]

_HOMES = {
    "study": "core.parallel",
    "load_study": "core.registry",
    "Policy": "core.policy",
    "clone": "core.policy",
    "Study": "core.study",
    "Results": "core.results",
}

if TYPE_CHECKING:
    from .core.parallel import study
    from .core.policy import Policy, clone
    from .core.registry import load_study
    from .core.results import Results
    from .core.study import Study


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
