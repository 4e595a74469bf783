"""The runner: every policy on every workload and seed, on one machine or a cluster, with the same results on any.

A task is one (workload, seed): its bound once, then every policy, so a worker reads a trace once. What a task yields
depends only on its arguments; the order of completion is forgotten.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .candidate import Candidate, ask
from .errors import CandidateError, InputError, JailUnavailable, MissingExtra, unknown
from .outcome import Outcome, judged
from .policy import is_clairvoyant
from .registry import load_policy, load_study
from .results import Results, Trial
from .study import Study, Workload

Backend = Literal["local", "ray"]


def study(
    name: str | Study,
    policies: Sequence[str | type | Any] | None = None,
    workloads: Sequence[str | Workload] | None = None,
    seeds: int | None = None,
    *,
    n_jobs: int = 1,
    backend: Backend = "local",
    jail: str = "auto",
    progress: bool = False,
) -> Results:
    """Run a study and return its results.

    Parameters
    ----------
    name : str or Study
        A registered study's name, or a study of your own.
    policies : sequence, optional
        Built-in names, ``Name(key=value)``, ``file.py:Class``, policy classes or instances. Default: every built-in.
    workloads : sequence, optional
        Names, or Workload objects. Default: all that are not optional.
    seeds : int, optional
        Trials per workload. Default: each workload's own number.
    n_jobs : int
        Processes (joblib's convention: -1 means all cores). The results do not depend on it.
    backend : {"local", "ray"}
    jail : {"auto", "namespace", "landlock", "subprocess", "none"}
        Walls around policies from files; ``auto`` is the best of the first two.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    Results

    Raises
    ------
    InputError
        For unknown names or unusable arguments.
    JailUnavailable
        If a policy from a file cannot be jailed here.

    Examples
    --------
    >>> results = study("spot", policies=["SkyNomad", "OnDemandOnly"], workloads=["smoke"], seeds=1)
    >>> [row.policy for row in results.summary()]
    ['SkyNomad', 'OnDemandOnly']
    """
    subject = load_study(name) if isinstance(name, str) else name
    if not isinstance(n_jobs, int) or n_jobs == 0:
        raise InputError(f"n_jobs must be a number of processes, or -1 for every core, got {n_jobs!r}.")
    if seeds is not None and (not isinstance(seeds, int) or seeds < 1):
        raise InputError(f"seeds must be a whole number of at least 1, got {seeds!r}.")
    makers = _makers(subject, policies, jail)
    for make in makers.values():
        if hasattr(make, "check"):
            make.check()  # a file that does not load is an error, not a table of void trials
    prepared = [subject.ready(workload) for workload in _workloads(subject, workloads)]
    chosen, notes = [workload for workload, _ in prepared], tuple(dict.fromkeys(note for _, note in prepared if note))
    tasks = [(workload, seed) for workload in chosen for seed in range(seeds or workload.seeds)]
    done: dict[tuple[str, int], list[Trial]] = {}
    for (workload, seed), trials in _progress(_run(subject, makers, tasks, n_jobs, backend), len(tasks), subject.name, progress):
        done[workload, seed] = trials
    order = {policy: i for i, policy in enumerate(makers)}
    trials = sorted(
        (trial for workload, seed in tasks for trial in done[workload.name, seed]),
        key=lambda trial: (next(i for i, w in enumerate(chosen) if w.name == trial.workload), order[trial.policy], trial.seed),
    )
    notes += tuple(dict.fromkeys(filter(None, (getattr(make, "note", "") for make in makers.values()))))
    seers = frozenset(label for label, make in makers.items() if _sees(make))
    return Results(subject, tuple(trials), {workload.name: workload for workload in chosen}, seers, notes=notes)


def _sees(make: Callable[[], Any]) -> bool:
    if hasattr(make, "level"):
        return False  # nothing crosses a jail's wall but messages
    try:
        return is_clairvoyant(ask(make))
    except CandidateError:  # its trials are void, with the reason
        return False


def _makers(subject: Study, policies: Sequence[Any] | None, jail: str) -> Mapping[str, Callable[[], Any]]:
    if policies is None:
        return dict(subject.policies())
    makers: dict[str, Callable[[], Any]] = {}
    for each in policies:
        if isinstance(each, str):
            maker = load_policy(subject, each, jail)
            label = each if each in subject.policies() or each.endswith(")") else Path(each).name
        elif isinstance(each, type):
            label, maker = each.__name__, each
        else:
            label, maker = repr(each), _Copies(each)
        if label in makers:
            raise InputError(f"policy {label!r} is named twice; give each a name of its own.")
        makers[label] = maker
    if not makers:
        raise InputError(f"no policy given; name at least one of {', '.join(subject.policies())}.")
    return makers


class _Copies:
    """Constructor that copies an instance, so that no trial sees another's learned state."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def __call__(self) -> Any:
        import copy

        from .policy import Parameters, clone

        return clone(self.policy) if isinstance(self.policy, Parameters) else copy.deepcopy(self.policy)


def _workloads(subject: Study, workloads: Sequence[str | Workload] | None) -> list[Workload]:
    known = subject.workloads()
    if workloads is None:
        return [each for each in known.values() if not each.is_optional]
    chosen = []
    for each in workloads:
        if isinstance(each, str):
            if each not in known:
                raise unknown(f"{subject.name} workload", each, known)
            chosen.append(known[each])
        else:
            chosen.append(each)
    if not chosen:
        raise InputError(f"give at least one workload of {', '.join(known)}.")
    twice = [name for name, count in Counter(each.name for each in chosen).items() if count > 1]
    if twice:
        raise InputError(f"two workloads are named {twice[0]!r}; give traces folders or files of different names.")
    return chosen


def run_task(subject: Study, makers: Mapping[str, Callable[[], Any]], workload: Workload, seed: int) -> tuple[tuple[str, int], list[Trial]]:
    """Run every policy in one trial; what goes wrong in a policy makes its trial void."""
    bound = subject.bound(workload, seed)
    trials = []
    for name, make in makers.items():
        outcome = judged(one_trial(subject, make, workload, seed), subject.metrics, bound)
        trials.append(Trial(workload.name, name, seed, outcome, bound, workload.is_generated, getattr(make, "level", None)))
    return (workload.name, seed), trials


def one_trial(subject: Study, make: Callable[[], Any], workload: Workload, seed: int) -> Outcome:
    """Run one policy in one trial, not yet judged; a fault of the host is tried again, a fault of the policy makes the trial void.

    Raises
    ------
    JailUnavailable
        If the host fails three times in a row.
    """
    for attempt in range(3):
        try:
            made = ask(make)
            with made if isinstance(made, contextlib.AbstractContextManager) else contextlib.nullcontext():
                return subject.trial(Candidate(made), workload, seed)
        except CandidateError as error:
            cause = error.__cause__
            detail = error.feedback if cause is None else "".join(traceback.format_exception(cause)).strip()
            return Outcome.void(f"{error.kind}: {error}" if error.kind != "crash" else str(error), f"{error}\n{detail}".strip())
        except JailUnavailable:
            if attempt == 2:
                raise
    raise AssertionError("unreachable")


def _run(
    subject: Study, makers: Mapping[str, Callable[[], Any]], tasks: list[tuple[Workload, int]], n_jobs: int, backend: Backend
) -> Iterator[tuple[tuple[str, int], list[Trial]]]:
    if backend == "local" and (n_jobs == 1 or len(tasks) == 1):
        yield from (run_task(subject, makers, *task) for task in tasks)
        return
    import joblib

    with workers(backend):
        jobs = (joblib.delayed(run_task)(subject, makers, *task) for task in tasks)
        # Ray's joblib backend hands everything back at the end
        returns = "list" if backend == "ray" else "generator_unordered"
        pool = joblib.Parallel(n_jobs=n_jobs, return_as=returns, batch_size=1)
        yield from pool(jobs)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def workers(backend: str) -> Iterator[None]:
    """Joblib's workers: processes of this machine, or Ray's (started and stopped here if nothing has started it)."""
    import joblib

    if backend not in ("local", "ray"):
        raise InputError(f"backend must be 'local' or 'ray', got {backend!r}.")
    if backend == "local":
        with joblib.parallel_config(backend="loky", initializer=_leave_interrupts_to_the_parent):
            yield
        return
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise MissingExtra("--backend ray needs Ray", "ray") from None
    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    register_ray()  # type: ignore[no-untyped-call]
    try:
        with joblib.parallel_config(backend="ray"):
            yield
    finally:
        if is_ours:
            ray.shutdown()


def _progress(items: Iterable[Any], total: int, label: str, show: bool) -> Iterator[Any]:
    if not (show and sys.stderr.isatty()):
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, total=total, description=label, console=Console(stderr=True), transient=True)
