"""What an LLM server computes next, what it keeps, and what it evicts.

The problem
-----------
An LLM server works in steps: each computes some tokens for some requests, under a budget of tokens and a pool of KV memory. A
:class:`SchedulerPolicy` says who is let in next, how much of a prompt is computed at once, what stays in memory after a request, and
who gives way when memory is short. :class:`EngineCore` does the rest, and does not know whether a model computes the steps or a cost
model in virtual time: the simulator is the engine itself.

>>> from cloudchamber import study
>>> results = study("engine", policies=["FCFS", "LongestPrefixMatch"], workloads=["smoke"])
>>> [row.void for row in results.summary()]
[0, 0]

Your own trace: :func:`cloudchamber.engine.data.read_trace` says in which format. Your own policy: a class derived from
:class:`SchedulerPolicy`, which gives every verb a default.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "checkpoints": ("Shape", "tiny"),
    "clock": ("RealClock", "VirtualClock"),
    "core": ("EngineCore",),
    "costmodel": ("CostModelExecutor",),
    "data": ("read_trace",),
    "kv": ("PagedKV",),
    "executor": ("TorchExecutor",),
    "llm": ("LLM", "Completion", "EngineOptions"),
    "model": ("CACHED", "FREE", "CostModel", "EngineSpec", "PinView", "ReqView", "Retain", "SchedulerPolicy", "Upcoming", "View", "pin"),
    "optimum": ("Limits", "limits"),
    "policies.fcfs": ("FCFS",),
    "policies.longest_prefix_match": ("LongestPrefixMatch",),
    "policies.plas": ("PLAS",),
    "policies.priority_fcfs": ("PriorityFCFS",),
    "policies.random_order": ("RandomOrder",),
    "policies.shortest_prompt": ("ShortestPrompt",),
    "request": ("Request",),
    "sampling": ("SamplingParams",),
    "seams": ("Clock", "Executor", "KVGroup", "KVLayout", "KVManager", "PoolCounts", "Progress", "Scheduled", "StepPlan", "StepResult"),
    "serving.aio": ("AsyncEngine",),
    "simulator": ("drive",),
    "study": ("EngineStudy",),
    "text": ("Text",),
    "traces": ("Trace", "scale"),
    "workloads": ("EngineWorkload", "preset"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
