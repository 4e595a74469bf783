"""A study as a search takes it: its workloads, its policies as sources, what a proposer may know, what a score depends on."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

from cloudchamber.core.errors import InputError, unknown
from cloudchamber.core.evidence.provenance import Provenance
from cloudchamber.core.messages import Message
from cloudchamber.core.registry import load_policy
from cloudchamber.core.source import verbs_of
from cloudchamber.core.study import Study
from cloudchamber.jail.files import source_of

from . import code
from .model import Problem, Scored
from .settings import Settings
from .splits import Splits, ready_workloads


def home_of(study: Study) -> str:
    """The package of a study's Protocol."""
    return study.protocol.__module__.rpartition(".")[0] or study.protocol.__module__


def verifier_of(study: Study, splits: Splits) -> str:
    """Hash of everything a score depends on: the study's package, the runner, the cascade, the workloads."""
    from cloudchamber.core import datasets

    known = Provenance.of(study, [datasets.fingerprint(each) for each in study.datasets()])
    digest = hashlib.sha256(f"{known.module_sha256}/{known.runner_sha256}/{[each.sha256 for each in known.data]}".encode())
    for name in ("cascade.py", "splits.py", "trials.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    for point in (*splits.training, *splits.validation, *splits.held_out):
        digest.update(f"{point.split}/{replace(point.workload, seeds=0)!r}/{point.seed};".encode())
    return digest.hexdigest()[:32]


def problem_of(study: Study) -> Problem:
    """What a proposer may know of a study."""
    module = inspect.getmodule(study.protocol)
    messages = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Message) and value is not Message]
    kinds = {cls.__name__: _kinds(cls) for cls in messages}
    features = {name: tuple(field for field, is_number in found.items() if is_number) for name, found in kinds.items()}
    others = frozenset(field for found in kinds.values() for field, is_number in found.items() if not is_number)
    metric = study.objective
    is_maximised = metric.direction == "max"
    return Problem(
        study.name, study.title, inspect.cleandoc(study.__doc__ or ""),
        f"{metric.name} in {metric.unit}, to be {'maximised' if is_maximised else 'minimised'}", is_maximised,
        inspect.getsource(module) if module is not None else "", verbs_of(study.protocol), features, others, study.libraries,
    )  # fmt: skip


def _kinds(cls: type[Message]) -> dict[str, bool]:
    """Fields and properties of a message, and whether each is a single number."""
    found = {name: hint in (int, float) for name, hint in get_type_hints(cls).items() if name in cls.__struct_fields__}
    for name, value in vars(cls).items():
        if isinstance(value, property) and value.fget is not None:
            found[name] = get_type_hints(value.fget).get("return") in (int, float)
    return found


def chosen_workloads(study: Study, settings: Settings) -> tuple[list[Any], list[str]]:
    """The workloads a run searches on, their data found, and what the user must know of that."""
    if settings.trace is not None:
        return ready_workloads(study, [study.workload(Path(settings.trace), **settings.params)])
    found, notes = ready_workloads(study, settings.workloads)
    if settings.params:
        found, notes = ready_workloads(study, [study.adjusted(each, **settings.params) for each in found])
    return found, notes


def built_in(study: Study) -> Iterator[tuple[str, str]]:
    """Name and source of every built-in policy that one file holds and that does not see the future."""
    for name, maker in study.policies().items():
        known = source_of(maker)
        if known is None:
            continue
        policy = maker()
        with contextlib.suppress(InputError, SyntaxError):
            yield name, code.isolated(known[0], type(policy).__name__, _own_values(policy))


def _own_values(policy: Any) -> dict[str, object]:
    from cloudchamber.core.policy import _defaults

    params = policy.get_params() if hasattr(policy, "get_params") else {}
    defaults = _defaults(type(policy))
    return {name: value for name, value in params.items() if repr(value) != repr(defaults[name])}


def siblings(study: Study) -> tuple[Scored, ...]:
    """The study's own policies as material for splices and inspiration."""
    return tuple(Scored(0, source, note=name) for name, source in built_in(study))


def starting(study: Study, start: str | None) -> dict[str, str]:
    """Name and source of the policies to start from.

    Raises
    ------
    InputError
        If there is no such policy, or it cannot be a candidate.
    """
    own = getattr(study, "starting_sources", None)  # of a study whose candidates are no policies
    known = dict(own() if own is not None else built_in(study))
    if start is None:
        return known
    if start in known:
        return {start: known[start]}
    path, _, class_name = start.partition(":")
    if path.endswith(".py"):
        file = Path(path)
        if not file.is_file():
            raise InputError(f"no policy file {path!r} here; give a path to an existing .py file.")
        source = file.read_text(encoding="utf-8")
        return {file.name: code.isolated(source, class_name, {}) if class_name else source}
    if start.endswith(")"):
        made = load_policy(study, start)
        found = source_of(made)
        if found is not None:
            policy = made()
            return {start: code.isolated(found[0], type(policy).__name__, _own_values(policy))}
    if start in study.policies():
        raise InputError(
            f"policy {start!r} sees the future or is not in one file, so a search cannot start from it; choose from {', '.join(known)}."
        )
    raise unknown(f"{study.name} policy", start, known)
