"""The search: ask for a task, propose, tell; everything durable, every trial on the trusted side, the same on any study."""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.parallel import workers
from cloudchamber.core.registry import load_study
from cloudchamber.core.study import Study
from cloudchamber.jail.levels import best_level, contract_of
from cloudchamber.jail.limits import Limits

from . import code
from .archive import ARCHIVES, Archive, Bandit
from .cascade import Evaluator, Hints
from .model import (
    Budget,
    BudgetSpent,
    Context,
    ModelUnavailable,
    Proposal,
    Proposer,
    ProposerUnavailable,
    Scored,
    Spend,
    Task,
    Verdict,
)
from .proposers import make_proposers
from .settings import Settings, check_same, settings_from
from .splits import Splits, split
from .store import Store, settings_of
from .subject import chosen_workloads, home_of, problem_of, siblings, starting, verifier_of
from .trials import Opener, Trial, quality

ATTEMPTS = 40  # proposals in a row that may be no candidate, or one that is known
IDLE = 50  # tasks in a row that may bring nothing
LEASE_S = 3600.0
PATIENCE_S = 600.0  # how long to wait for an endpoint when no other proposer is left


class Search:
    """A run: ask, tell, and everything between.

    Parameters
    ----------
    study : str or Study
    settings : Settings
    store : path-like or None
        The run's file; None keeps it in memory. A file that holds a run goes on with it, and must be of the same study.
    budget : Budget
    proposers : mapping of str to Proposer, optional
        Objects to use instead of those ``settings.proposers`` names.

    Raises
    ------
    InputError
        If a name is unknown, the store is locked or of another verifier, or the study's policies cannot travel as messages.
    JailUnavailable
        If candidates cannot be jailed on this machine.

    Examples
    --------
    >>> from cloudchamber.evolve import Budget, Search, Settings
    >>> search = Search("placement", Settings(start="PrismGreedy", workloads=("smoke",), trials=(2, 1, 2), seed=1), budget=Budget(4))
    >>> search.run()
    >>> search.evaluations
    4
    """

    def __init__(
        self,
        study: str | Study,
        settings: Settings | None = None,
        *,
        store: str | Path | None = None,
        budget: Budget | None = None,
        proposers: Mapping[str, Proposer] | None = None,
    ) -> None:
        self.study = load_study(study) if isinstance(study, str) else study
        self.store = Store(store)
        try:
            self._open(settings or Settings(), budget, proposers)
        except BaseException:
            self.store.close()
            raise

    def _open(self, settings: Settings, budget: Budget | None, proposers: Mapping[str, Proposer] | None) -> None:
        self._began_s, self._earlier_s = time.monotonic(), 0.0
        known = self.store["settings"]
        if known is not None:
            if known["study"] != self.study.name:
                raise InputError(f"{self.store.path} is a run of study {known['study']!r}, not of {self.study.name!r}.")
            check_same(settings, settings_from(known), str(self.store.path))
            settings = settings_from(known)
            self._earlier_s = float(self.store["wall_s"] or 0.0)
        else:
            level = best_level() if settings.jail == "auto" else settings.jail
            seed = secrets.randbits(48) if settings.seed is None else settings.seed
            settings = replace(settings, jail=level, seed=seed)
        self.settings = settings
        self.seed = int(settings.seed or 0)
        contract_of(self.study.protocol)  # raises if its messages cannot travel
        workloads, self.notes = chosen_workloads(self.study, settings)
        self.splits: Splits = split(self.study, workloads, self.seed, settings.trials)
        self.notes += self.splits.notes
        self.evaluator = Evaluator(Opener(self.study, settings.jail), self.splits)
        self.problem = problem_of(self.study)
        self.verifier = verifier_of(self.study, self.splits)
        if known is not None and self.store["verifier"] != self.verifier:
            raise InputError(
                f"{self.store.path} was scored by another verifier: the study's code or data changed since. "
                f"Start a new run from its winner: `chamber evolve export --store {self.store.path} winner.py`, then --from winner.py."
            )
        self.proposers = dict(proposers) if proposers is not None else make_proposers(settings.proposers, settings.llm)
        for proposer in self.proposers.values():
            if hasattr(proposer, "bind"):
                proposer.bind(self)
        self.budget = budget or Budget(**(self.store["budget"] or {}))
        self.donors = siblings(self.study) if settings.siblings else ()
        self.archive: Archive = ARCHIVES[settings.archive]()
        self.bandit = Bandit({name: getattr(each, "share", 1.0) for name, each in self.proposers.items()})
        self.starts: tuple[Scored, ...] = ()
        self._seen: dict[tuple[str, int], float] = {}
        self._reference: dict[tuple[str, str, int], float] = {}
        self._resting: dict[str, float] = {}
        self._tired: dict[str, int] = {}
        self._silent_since_s = math.inf
        self._last_fault = ""
        self._warn: Callable[[str], None] | None = None
        self._idle = 0
        self._best: Scored | None = None
        self._evaluations = self.store.evaluations()
        self._next_task, self._next_candidate = self.store.last_task() + 1, 1
        self._abandoned: list[int] = []
        if known is None:
            self._begin()
        else:
            self._replay()
        self.store["budget"] = asdict(self.budget)

    # the life of a run

    def _begin(self) -> None:
        """Put the settings and the starting policies on disk, all or nothing, and evaluate them."""
        if not self.study.floor and not any(self.study.bound(point.workload, point.seed) for point in self.splits.training[:1]):
            self.notes.append(f"study {self.study.name!r} has neither a bound nor a floor: nothing tells a good policy from a trick.")
        sources = starting(self.study, self.settings.start)
        with self.store.transaction():
            self.store["settings"] = {"study": self.study.name, **asdict(self.settings)}
            self.store["verifier"] = self.verifier
            for name, source in sources.items():
                self._tell(None, Scored(self._next_candidate, source, note=name))
        self._evaluate_starts()

    def _evaluate_starts(self) -> None:
        for told in self.store.candidates("status = 'told'"):
            self._absorb(*self._evaluate(told))
        self._check_starts()
        slowest_s = 0.0
        for start in self.starts:  # a trial more of each, now that bounds and jail are there
            before_s = time.monotonic()
            self.evaluator.opener.run(start.source, self.splits.training[0])
            slowest_s = max(slowest_s, time.monotonic() - before_s)
        self.store["cpu_s"] = float(max(2, math.ceil(5 * slowest_s)))
        self._limit()

    def _limit(self) -> None:
        """No trial of a candidate may take much longer than the slowest starting policy's: what never ends is found out soon."""
        cpu_s = self.store["cpu_s"]
        if cpu_s is not None:
            limits = Limits(cpu_s=cpu_s, call_s=max(10.0, 3 * cpu_s), wall_s=max(20.0, 5 * cpu_s))
            self.evaluator = Evaluator(replace(self.evaluator.opener, limits=limits), self.splits)

    def _check_starts(self) -> None:
        if not self.archive.members:
            reasons = "; ".join(f"{each.note}: {each.reason}" for each in self.store.candidates("task IS NULL"))
            raise InputError(f"no starting policy gives a valid result, so there is nothing to improve ({reasons}).")

    def _replay(self) -> None:
        """Take in what an earlier sitting left: scored candidates in the order they were told, then those told and not scored yet."""
        self._limit()
        self._abandoned = [number for number, _, proposer, _ in self.store.open_tasks() if proposer == "search"]
        for candidate in self.store.candidates("status != 'told'"):
            self._take_in(candidate, self.store.trials(candidate.number))
        waiting = self.store.candidates("status = 'told'")
        self._next_candidate = max([self._next_candidate, *(each.number + 1 for each in waiting)])
        if self.store["cpu_s"] is None:
            self._evaluate_starts()
            return
        for candidate in waiting:
            self._absorb(*self._evaluate(candidate))
        self._check_starts()

    def run(
        self,
        n_jobs: int = 1,
        backend: str = "local",
        watch: Callable[[Search], None] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """Search until the budget is spent.

        Parameters
        ----------
        n_jobs : int
            Candidates evaluated at the same time, each in a worker with a jail of its own. One worker is reproducible bit for bit, also
            when it is killed and resumed; with more, runs with the same number are.
        backend : {"local", "ray"}
        watch : callable, optional
            Called after every step.
        warn : callable, optional
            Called with a line of text when a proposer that worked until now (or was not asked yet) cannot work.

        Raises
        ------
        ProposerUnavailable
            If no proposer has worked for ten minutes; the run can be resumed.
        """
        import joblib

        self._warn = warn
        size = joblib.effective_n_jobs(n_jobs) if backend == "local" else max(1, n_jobs)
        with workers(backend) if size > 1 else contextlib.nullcontext():
            while (left := self.left()) > 0:
                try:
                    self.step(min(size, left))
                except BudgetSpent:
                    break
                if watch is not None:
                    watch(self)

    def step(self, size: int = 1) -> None:
        """Propose, tell and evaluate ``size`` candidates.

        Raises
        ------
        BudgetSpent, ProposerUnavailable
        """
        told: list[Scored] = []
        for _ in range(size):
            try:
                made = self._proposed()
            except (BudgetSpent, ProposerUnavailable):
                if not told:
                    raise
                break  # what was told comes first
            if made is None:
                continue
            task, proposal, proposer = made
            candidate = Scored(self._next_candidate, proposal.source, proposal.parents, proposer, proposal.note)
            told.append(self._tell(task, candidate))
        waiting = [each for each in told if each.status == "told"]
        if len(waiting) <= 1:
            results = [self._evaluate(each) for each in waiting]
        else:
            import joblib

            hints = self._hints()
            results = joblib.Parallel(n_jobs=len(waiting), batch_size=1)(
                joblib.delayed(self.evaluator.evaluate)(each, hints) for each in waiting
            )
        for candidate, trials in results:
            self._absorb(candidate, trials)
        self._idle = 0 if waiting else self._idle + 1
        if self._idle >= IDLE:
            raise BudgetSpent(f"{IDLE} tasks in a row brought nothing new; give other proposers, or another start.")

    def left(self) -> int:
        """Evaluations that may still be made; 0 once any limit of the budget is met."""
        spent = self.store.spent()
        limits = ((self.budget.tokens, spent.tokens), (self.budget.usd, spent.usd), (self.budget.wall_s, self.wall_s))
        if any(limit is not None and used >= limit for limit, used in limits):
            return 0
        return max(0, self.budget.evaluations - self._evaluations)

    @property
    def wall_s(self) -> float:
        """Seconds of this sitting and all before."""
        return self._earlier_s + time.monotonic() - self._began_s

    @property
    def evaluations(self) -> int:
        """Evaluations so far."""
        return self._evaluations

    def close(self) -> None:
        """Close the store."""
        with contextlib.suppress(Exception):
            self.store["wall_s"] = self.wall_s
        self.store.close()

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ask and tell

    def ask(self, n: int = 1, lease_s: float = LEASE_S) -> list[Task]:
        """Return tasks for proposers outside: parents to start from and a lease. Those whose lease has run out are given out again first.

        Parameters
        ----------
        n : int
        lease_s : float
            Seconds until an unanswered task goes to who asks next. Either answer is taken after that, the first that comes.

        Raises
        ------
        InputError
            If the lease is not above 0.
        BudgetSpent
            If nothing is left to evaluate.
        """
        if not lease_s > 0:
            raise InputError(f"lease_s must be above 0 seconds, got {lease_s!r}.")
        self.left() or _spent(self)
        leased = self.store.expired(time.time())[:n]
        while len(leased) < n:
            number, self._next_task = self._next_task, self._next_task + 1
            rng = np.random.default_rng([self.seed, number])
            leased.append((number, f"{number}-{secrets.token_hex(4)}", tuple(each.number for each in self.archive.sample(rng).all)))
        for number, identifier, parents in leased:
            self.store.add_task(number, identifier, "external", parents, time.time() + lease_s)
        return [Task(identifier, number, "external", parents, lease_s) for number, identifier, parents in leased]

    def tell(self, task_id: str, source: str, spend: Spend | None = None, note: str = "") -> Verdict:
        """Take in a proposal for a task, once; it is on disk before it is evaluated, and evaluated before this returns.

        Raises
        ------
        InputError
            If there is no such task, or it was told already.
        BudgetSpent
            If nothing is left to evaluate.
        """
        known = self.store.task(task_id)
        if known is None:
            raise InputError(f"there is no task {task_id!r}; ask for one.")
        number, proposer, parents, state = known
        if state != "open":
            raise InputError(f"task {task_id} was told already; ask for another.")
        if not isinstance(source, str):
            raise InputError(f"the source must be text, got {type(source).__name__}.")
        self.left() or _spent(self)
        clean = source.encode("utf-8", "replace").decode()
        with self.store.transaction():
            if spend is not None:
                self.store.settle(self.store.reserve(number, spend), spend)
            candidate = self._tell(number, Scored(self._next_candidate, clean, parents, proposer, note[:200]))
        if candidate.status == "told":
            candidate = self._absorb(*self._evaluate(candidate))
        is_best = bool(self.archive.members) and self.archive.members[0].number == candidate.number  # of what a proposer may know
        return Verdict(candidate.number, candidate.status, candidate.score, candidate.reason, candidate.feedback, is_best)

    def _tell(self, task: int | None, candidate: Scored) -> Scored:
        """Stage 0, and durable."""
        identity = skeleton = ""
        try:
            self._check(candidate.source)
            identity, skeleton = code.identity(candidate.source), code.skeleton(candidate.source)
            if task is not None and self.store.knows(identity):
                raise InputError("the same policy was told before (comments and layout apart).")
        except InputError as error:
            candidate = replace(candidate, status="rejected", reason=str(error)[:600], feedback=str(error)[:600])
        with self.store.transaction():
            self.store.tell(task, candidate, identity, skeleton)
            self.store.event("told", f"candidate {candidate.number} by {candidate.proposer}: {candidate.note}"[:300])
        self._next_candidate = candidate.number + 1
        if candidate.status == "told" and task is not None:
            self._evaluations += 1
        return candidate

    def _check(self, source: str) -> None:
        """Stage 0; a study whose candidates are no policies brings its own."""
        own = getattr(self.study, "check_source", None)
        if own is not None:
            own(source)
        else:
            code.check(source, self.problem.verbs, self.problem.libraries, home_of(self.study))

    def _evaluate(self, candidate: Scored) -> tuple[Scored, list[Trial]]:
        return self.evaluator.evaluate(candidate, self._hints(), is_start=candidate.proposer == "start")

    def _hints(self) -> Hints:
        starts = max((each.score for each in self.starts if each.score is not None), default=-math.inf)
        members = self.archive.members
        winners = {name: max((each.scores.get(name, -math.inf) for each in members), default=-math.inf) for name in self.splits.names}
        return Hints(self.archive.threshold, winners, max(starts, self.archive.threshold), dict(self._seen), dict(self._reference))

    def _absorb(self, candidate: Scored, trials: list[Trial]) -> Scored:
        """Take in a scored candidate, and put it on disk."""
        candidate = self._take_in(candidate, trials)
        with self.store.transaction():
            self.store.score(candidate, self.verifier, trials)
            self.store.event(candidate.status, f"candidate {candidate.number}: {candidate.reason or f'score {candidate.score}'}"[:300])
            self.store["wall_s"] = self.wall_s
            if self._best is not None:
                self.store["best"] = self._best.number
        return candidate

    def _take_in(self, candidate: Scored, trials: list[Trial]) -> Scored:
        """The one place where the search learns; on resume it is fed the same again."""
        self._next_candidate = max(self._next_candidate, candidate.number + 1)
        if candidate.status == "rejected":
            return candidate
        main = next((each for each in self.archive.members if candidate.parents and each.number == candidate.parents[0]), None)
        if candidate.proposer == "start" and candidate.score is not None:
            self._learn_reference(trials)
            scores = {
                name: math.fsum(each) / len(each) for name, each in self.evaluator.qualities(_of(trials, "training"), self._hints()).items()
            }
            hidden = self.evaluator.mean_quality(_of(trials, "validation"), self._hints())
            candidate = replace(candidate, scores=scores, score=math.fsum(scores.values()) / len(scores), validation=hidden)
        is_whole = candidate.status in ("scored", "archived") and not candidate.reason
        if is_whole:
            self._learn_seen(trials)
            is_kept = self.archive.add(candidate)
            candidate = replace(candidate, status="archived" if is_kept else "scored")
            if candidate.validation is not None and (self._best is None or self._merit(candidate) > self._merit(self._best)):
                self._best = candidate
        if candidate.proposer == "start" and is_whole:
            self.starts = (*self.starts, candidate)
        if main is not None:
            self.archive.children(main.number)
        self.bandit.reward(candidate.proposer, self._gain(candidate, main) if is_whole else 0.0)
        return candidate

    def _learn_reference(self, trials: list[Trial]) -> None:
        for trial in trials:
            self._reference.setdefault((trial.split, trial.workload, trial.seed), trial.metrics[self.study.objective.name])

    def _learn_seen(self, trials: list[Trial]) -> None:
        metric = self.study.objective
        for trial in _of(trials, "training"):
            key = (trial.workload, trial.seed)
            objective = trial.metrics[metric.name]
            reached = quality(objective, trial.bound, metric, self._reference.get(("training", *key), objective))
            self._seen[key] = max(self._seen.get(key, -math.inf), reached)

    def _gain(self, candidate: Scored, main: Scored | None) -> float:
        if candidate.score is None or main is None or main.score is None or candidate.score <= main.score:
            return 0.0
        return min(1.0, 20 * (candidate.score - main.score) / max(abs(main.score), 1e-9))

    def _merit(self, candidate: Scored) -> float:
        """Training and validation together, by their numbers of trials."""
        a, b, _ = self.settings.trials
        return ((candidate.score or 0.0) * a + (candidate.validation or 0.0) * b) / (a + b)

    def best(self) -> Scored | None:
        """The best candidate by training and hidden trials together; a starting policy if nothing beats it."""
        return self._best

    # proposing

    def _number(self) -> int:
        if self._abandoned:
            return self._abandoned.pop(0)
        self._next_task += 1
        return self._next_task - 1

    def _proposed(self) -> tuple[int, Proposal, str] | None:
        """A task and a proposal that is a new candidate; None if this task came to nothing."""
        number = self._number()
        self.store.add_task(number, f"{number}", "search", (), None)
        rng = np.random.default_rng([self.seed, number])
        for attempt in range(ATTEMPTS):
            name = self._awake(rng, attempt)
            proposer = self.proposers[name]
            context = Context(self.archive.sample(rng).all, self.donors, self.store, self.problem)
            try:
                proposal = proposer.propose(context, rng)
            except ProposerUnavailable as error:
                self._rest(name, error)
                continue
            self._works(name)
            if proposal is None:
                continue
            is_paid = proposal.spend != Spend()
            if is_paid or self._is_new(proposal.source):
                return number, proposal, name
        self.store.end_task(number)
        self.store.event("idle", f"task {number}: {ATTEMPTS} proposals in a row were known or no candidates")
        return None

    def _is_new(self, source: str) -> bool:
        try:
            self._check(source)
            return not self.store.knows(code.identity(source))
        except InputError:
            return False

    def _awake(self, rng: np.random.Generator, attempt: int) -> str:
        """The proposer to use now; waits if all are resting."""
        while True:
            now = time.monotonic()
            deadline = min(self._silent_since_s, now) + PATIENCE_S
            awake = tuple(name for name in self.proposers if self._resting.get(name, 0.0) <= now)
            if awake:
                return self.bandit.choose(rng, awake) if attempt < ATTEMPTS // 2 else awake[int(rng.integers(len(awake)))]
            if self.left() == 0:
                raise BudgetSpent("the budget is spent.")
            wait = min(self._resting.values()) - now
            if now + wait > deadline:
                raise ProposerUnavailable(
                    f"no proposer has worked for {PATIENCE_S:.0f} s ({self._last_fault}); resume the run when the endpoint answers."
                )
            time.sleep(min(max(wait, 0.05), 1.0))

    def _rest(self, name: str, error: ProposerUnavailable) -> None:
        """Let a proposer rest, longer each time in a row, and say so the first time."""
        fault = f"{name}: {'the model cannot be reached: ' if isinstance(error, ModelUnavailable) else ''}{error}".rstrip(".")
        self._last_fault = fault
        self._tired[name] = self._tired.get(name, 0) + 1
        self._resting[name] = time.monotonic() + min(60.0, 0.5 * 2 ** self._tired[name])
        self._silent_since_s = min(self._silent_since_s, time.monotonic())
        self.store.event("unavailable", fault)
        if self._tired[name] == 1 and self._warn is not None:
            now = time.monotonic()
            is_alone = all(self._resting.get(other, 0.0) > now for other in self.proposers)
            self._warn(f"{fault}; {f'no other can go on, so it is tried for {PATIENCE_S:.0f} s' if is_alone else 'others go on'}.")

    def _works(self, name: str) -> None:
        """A proposer that answered is tired no more."""
        self._tired.pop(name, None)
        self._silent_since_s = math.inf


def _spent(search: Search) -> int:
    raise BudgetSpent(f"the budget is spent: {search.evaluations} of {search.budget.evaluations} evaluations. Resume with a larger one.")


def _of(trials: Sequence[Trial], name: str) -> list[Trial]:
    return [trial for trial in trials if trial.split == name]


def resume(path: str | Path, *, study: Study | None = None, budget: Budget | None = None) -> Search:
    """Go on with a run.

    Parameters
    ----------
    path : path-like
        Its store.
    study : Study, optional
        Needed only for a study that is not registered.
    budget : Budget, optional
        Of the whole run; default: the one it was last given.

    Raises
    ------
    InputError
        If there is no run, or the study's code or data changed since.
    """
    reader = Store(path, is_reader=True)
    known = settings_of(reader)
    reader.close()
    return Search(study or str(known["study"]), settings_from(known), store=path, budget=budget)


def changed_budget(path: str | Path, **given: float | None) -> Budget:
    """The budget a run was last given, with what is given now in its place."""
    reader = Store(path, is_reader=True)
    known = reader["budget"] or {}
    reader.close()
    return Budget(**{**known, **{name: value for name, value in given.items() if value is not None}})
