"""Attacks against a study's verifier and the jail: each known way of beating an evaluator, tried on any registered study.

An attack is an honest built-in policy with one hostile act added: when its file is loaded, before a decision, or to an answer. It gains
if its trial is valid and better than honest policies are (or than the bound), if it reaches something outside its jail, if a fault of
its own goes unpunished, or if the honest policy scores differently after it. Everything else is void, or legal play.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from cloudchamber.core.errors import InputError, unknown
from cloudchamber.core.outcome import Outcome, judged
from cloudchamber.core.parallel import one_trial
from cloudchamber.core.registry import jailed, load_study
from cloudchamber.core.source import make_policy, verbs_of
from cloudchamber.core.study import Study, Workload
from cloudchamber.jail.levels import best_level
from cloudchamber.jail.limits import Limits

from .attacks import LEFT, NOT_HERE, TOUCHED, Attack, attacks_on, source_of_attack
from .subject import built_in
from .trials import bound_of

Verdict = Literal["void", "nothing", "legal", "gain"]
LIMITS = Limits(cpu_s=20.0, wall_s=60.0, call_s=10.0)
SMALL = Limits(cpu_s=2.0, wall_s=8.0, call_s=2.0, memory=256 << 20, output=1 << 20)  # for attacks that use things up


@dataclass(frozen=True)
class Row:
    """What became of one attack.

    Parameters
    ----------
    attack, what : str
    items : tuple of str
        Of the list of known attacks.
    verdict : {"void", "nothing", "legal", "gain"}
        ``nothing``: every metric as without the attack. ``legal``: a valid answer that scores no better than honest policies.
    reason : str
    objective : float or None
    """

    attack: str
    what: str
    items: tuple[str, ...]
    verdict: Verdict
    reason: str
    objective: float | None = None


@dataclass(frozen=True)
class RedTeam:
    """Every attack on one study.

    Parameters
    ----------
    study, level, honest : str
        ``honest`` is the built-in policy that the attacks wrap.
    rows : tuple of Row
    not_applicable : mapping of str to str
        Known attacks that cannot be tried here, and why.
    """

    study: str
    level: str
    honest: str
    rows: tuple[Row, ...]
    not_applicable: Mapping[str, str] = field(default_factory=dict)

    @property
    def gains(self) -> tuple[Row, ...]:
        """The attacks that gained something."""
        return tuple(row for row in self.rows if row.verdict == "gain")

    def table(self) -> str:
        """One line per attack, those that gained first."""
        order = {"gain": 0, "legal": 1, "nothing": 2, "void": 3}
        name_width = max([6, *(len(row.attack) for row in self.rows)])
        items_width = max([5, *(len(",".join(row.items)) for row in self.rows)])
        lines = [f"{'attack':{name_width}} {'items':{items_width}} {'verdict':8} why"]
        for row in sorted(self.rows, key=lambda row: order[row.verdict]):
            verdict = row.verdict.upper() if row.verdict == "gain" else row.verdict
            why = textwrap.shorten(row.reason, 110, placeholder=" ...")
            lines.append(f"{row.attack:{name_width}} {','.join(row.items):{items_width}} {verdict:8} {why}")
        counts = ", ".join(
            f"{sum(row.verdict == verdict for row in self.rows)} {verdict}" for verdict in ("void", "nothing", "legal", "gain")
        )
        lines.append(f"{self.study}: {len(self.rows)} attacks on {self.honest} in a {self.level} jail: {counts}.")
        return "\n".join(lines)

    def to_json(self) -> str:
        """One JSON object per attack, then one per item that is not applicable."""
        rows = [
            {
                "study": self.study, "level": self.level, "attack": row.attack, "items": list(row.items), "what": row.what,
                "verdict": row.verdict, "reason": row.reason, "objective": row.objective,
            }
            for row in self.rows
        ]  # fmt: skip
        rows += [
            {"study": self.study, "items": [item], "verdict": "not applicable", "reason": why} for item, why in self.not_applicable.items()
        ]
        return "".join(json.dumps(row) + "\n" for row in rows)


def red_team(
    study: str | Study, level: str = "auto", attacks: Sequence[str] | None = None, watch: Callable[[Row], None] | None = None
) -> RedTeam:
    """Attack a study and say what each attack gained.

    Parameters
    ----------
    study : str or Study
    level : {"auto", "namespace", "landlock", "subprocess"}
        Walls around the attackers. Behind ``subprocess`` they have all your rights, so some gain.
    attacks : sequence of str, optional
        Names, or beginnings of names; default: all.
    watch : callable, optional
        Called with every row as it comes.

    Raises
    ------
    InputError
        If a name is unknown, the level is ``none``, or the study has no built-in policy that could be wrapped.
    JailUnavailable
        If this machine cannot jail them.
    """
    subject = load_study(study) if isinstance(study, str) else study
    if level == "none":
        raise InputError("attacks end, hang and fill the process they run in; red-team with level auto, namespace, landlock or subprocess.")
    chosen = best_level() if level == "auto" else level
    with _Ground(subject, chosen) as ground:
        for name in attacks or ():
            if not any(each.startswith(name) for each in ground.attacks):
                raise unknown("attack", name, ground.attacks)
        rows = []
        for row in ground.panel() if attacks is None else ():
            rows.append(row)
            _tell(watch, row)
        for attack in list(ground.attacks):
            if attacks is None or any(attack.startswith(name) for name in attacks):
                rows.append(ground.tried(attack))
                _tell(watch, rows[-1])
    return RedTeam(subject.name, chosen, ground.honest_name, tuple(rows), dict(NOT_HERE))


def _tell(watch: Callable[[Row], None] | None, row: Row) -> None:
    if watch is not None:
        watch(row)


class _Watched:
    """Constructor of a policy whose faults are counted on their way into the world."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.questions, self.faults = 0, 0

    def __call__(self) -> Any:
        policy, owner = self._make(), self

        class Watched:
            clairvoyant = getattr(policy, "clairvoyant", False)

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *exit_: Any) -> None:
                if hasattr(policy, "__exit__"):
                    policy.__exit__(*exit_)

            def __getattr__(self, name: str) -> Any:
                value = getattr(policy, name)
                return owner._asked(name, value) if callable(value) else value

        return Watched()

    def _asked(self, name: str, verb: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any) -> Any:
            self.questions += name != "reset"
            try:
                return verb(*args)
            except BaseException:
                self.faults += 1
                raise

        return asked


class _Ground:
    """A study, an honest policy, what honest policies reach, and canaries around."""

    def __init__(self, study: Study, level: str) -> None:
        self.study, self.level = study, level
        self.workload: Workload = study.workloads()["smoke"]
        self.verbs = verbs_of(study.protocol)
        self.bound = bound_of(study, self.workload, 0)
        self.canaries = Canaries()

    def _renew(self) -> None:
        """Fresh canaries, so that what one attack reached is not laid to the next."""
        self.canaries.__exit__(None, None, None)
        self.canaries = Canaries().__enter__()  # a new object: threads of the old one may still be on their way out
        self.attacks = {each.name: each for each in attacks_on(self.study, self.canaries)}

    def __enter__(self) -> _Ground:
        self.canaries.__enter__()
        try:
            self.attacks = {each.name: each for each in attacks_on(self.study, self.canaries)}
            self._find_honest()
        except BaseException:
            self.canaries.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.canaries.__exit__(kind, error, trace)

    def _find_honest(self) -> None:
        sources = dict(built_in(self.study))
        order = [*(name for name in self.study.floor if name in sources), *sources]
        makers = self.study.policies()
        self.own = {
            name: judged(one_trial(self.study, make, self.workload, 0), self.study.metrics, self.bound) for name, make in makers.items()
        }
        for name in order:
            class_name = type(makers[name]()).__name__
            outcome, _ = self._trial(jailed(self.study, sources[name], name=class_name, level=self.level, limits=LIMITS))
            if not outcome.is_void:
                self.honest_name, self.honest_source, self.honest_class, self.honest = name, sources[name], class_name, outcome
                return
        raise InputError(
            f"no built-in policy of study {self.study.name!r} gives a valid result behind a {self.level} jail; nothing to wrap."
        )

    def _trial(self, make: Callable[[], Any]) -> tuple[Outcome, _Watched]:
        watched = _Watched(make)
        return one_trial(self.study, watched, self.workload, 0), watched

    def _honest_again(self) -> Outcome:
        return self._trial(jailed(self.study, self.honest_source, name=self.honest_class, level=self.level, limits=LIMITS))[0]

    def _value(self, outcome: Outcome) -> float:
        return float(outcome.metrics.get(self.study.objective.name, math.nan))

    def _is_better(self, value: float, than: float) -> bool:
        slack = 1e-9 * max(1.0, abs(than))
        return value < than - slack if self.study.objective.direction == "min" else value > than + slack

    @property
    def best(self) -> float:
        """The best objective of any built-in policy."""
        values = [self._value(outcome) for outcome in self.own.values() if not outcome.is_void]
        return (min if self.study.objective.direction == "min" else max)([*values, self._value(self.honest)])

    def panel(self) -> list[Row]:
        """Policies that deserve nothing: the floor, and the honest one a second time."""
        rows = []
        others = [self._value(outcome) for name, outcome in self.own.items() if name not in self.study.floor and not outcome.is_void]
        best = (min if self.study.objective.direction == "min" else max)(others) if others else math.nan
        for name in self.study.floor:
            outcome = self.own[name]
            is_above = bool(others) and not outcome.is_void and self._is_better(self._value(outcome), best)
            verdict: Verdict = "gain" if is_above else "void" if outcome.is_void else "legal"
            reason = "better than every policy that is not trivial" if is_above else "no better than the others"
            value = None if outcome.is_void else self._value(outcome)
            rows.append(Row(f"floor: {name}", "a trivial policy", ("B15",), verdict, "; ".join(outcome.violations) or reason, value))
        changed = self._changed()
        rows.append(
            Row(
                "honest: again", "the same policy, the same trial", ("A3",), "gain" if changed else "nothing", changed or "the same metrics"
            )
        )
        return rows

    def _changed(self) -> str:
        again = self._honest_again()
        if again.is_void or not self._is_same(again.metrics):
            was, now = self._value(self.honest), "void" if again.is_void else f"{self._value(again):g}"
            return f"the honest policy scores {now} now, {was:g} before"
        return ""

    def _is_same(self, metrics: Mapping[str, float]) -> bool:
        return all(metric.is_timed or metrics.get(metric.name) == self.honest.metrics[metric.name] for metric in self.study.metrics)

    def tried(self, name: str) -> Row:
        """Run an attack, and the honest policy after it."""
        attack = self.attacks[name]
        source = source_of_attack(attack, self.honest_source, self.honest_class, self.verbs)
        outcome, watched = Outcome.void("not run"), _Watched(lambda: None)
        touched = ""
        for _ in range(attack.times):
            outcome, watched = self._trial(self._maker(attack, source))
            touched = touched or self.canaries.touched(outcome)
        if touched:
            self._renew()
        verdict, reason = self._verdict(outcome, watched, touched)
        changed = "" if verdict == "gain" else self._changed()
        if changed:
            verdict, reason = "gain", changed
        value = self._value(outcome)
        shown = textwrap.shorten(reason, 300, placeholder=" ...")
        return Row(attack.name, attack.what, attack.items, verdict, shown, value if math.isfinite(value) else None)

    def _maker(self, attack: Attack, source: str) -> Callable[[], Any]:
        if attack.is_here:
            return lambda: make_policy(source, self.verbs, "Attacker")
        return jailed(self.study, source, name="Attacker", level=self.level, limits=SMALL if attack.is_greedy else LIMITS)

    def _verdict(self, outcome: Outcome, watched: _Watched, touched: str) -> tuple[Verdict, str]:
        if touched:
            return "gain", touched
        value = self._value(outcome)
        if outcome.is_void:
            return "void", "; ".join(outcome.violations)
        if watched.faults:
            return "gain", f"{watched.faults} faults of the policy went unpunished: the trial is valid"
        if watched.questions == 0:
            return "gain", "the policy was never asked, and the trial is valid"
        if self.bound is not None and self._is_better(value, self.bound.value) and not _is_near(value, self.bound.value):
            return "gain", f"{self.study.objective.name} {value:g} is better than the bound {self.bound.value:g}"
        final = judged(outcome, self.study.metrics, self.bound)
        if final.is_void:
            return "void", "; ".join(final.violations)
        if self._is_same(outcome.metrics):
            return "nothing", "the same metrics as without it"
        if self._is_better(value, self.best):
            found = f"{self.study.objective.name} {value:g} is better than every built-in policy's, at best {self.best:g}"
            # valid actions below a proven bound are a policy, and may be a lucky one; where nothing is proven they may be a hole
            return ("legal", f"{found}; within the bound {self.bound.value:g}: look at it") if self.bound is not None else ("gain", found)
        return "legal", f"{self.study.objective.name} {value:g}; the honest policy {self._value(self.honest):g}, the best {self.best:g}"


def _is_near(value: float, bound: float) -> bool:
    return abs(value - bound) <= 1e-6 * max(1.0, abs(bound))


class Canaries:
    """Things outside the jail that no attacker may reach: a file, a folder, the environment, ports, a process.

    Used as a context; all of it is this process's own.
    """

    def __enter__(self) -> Canaries:
        self.secret = f"CHAMBER-CANARY-{secrets.token_hex(16)}"
        self.mark = f"chamber-left-{secrets.token_hex(8)}"
        self._folder = tempfile.TemporaryDirectory(prefix="chamber-canary-")
        self.folder = Path(self._folder.name)
        self.file = self.folder / "secret.txt"
        self.file.write_text(self.secret)
        self.variable = "CHAMBER_CANARY"
        self._before = os.environ.get(self.variable)
        os.environ[self.variable] = self.secret
        asleep = [sys.executable, "-c", "import time; time.sleep(3600)", self.secret]
        self.victim = subprocess.Popen(asleep, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._visits: list[str] = []
        self.abstract = f"\0chamber-{secrets.token_hex(8)}"
        self._sockets = [self._listen(socket.AF_INET, ("127.0.0.1", 0)), self._listen(socket.AF_UNIX, str(self.folder / "socket"))]
        if sys.platform == "linux":
            self._sockets.append(self._listen(socket.AF_UNIX, self.abstract))
        self.port = int(self._sockets[0].getsockname()[1])
        return self

    def _listen(self, family: int, address: Any) -> socket.socket:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.bind(address)
        listener.listen(8)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                if self._is_over:
                    return
                self._visits.append(str(address))
                connection.close()

        self._is_over = False
        threading.Thread(target=accept, daemon=True).start()
        return listener

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over = True
        for listener in self._sockets:
            with socket.socket(listener.family, socket.SOCK_STREAM) as waker:  # accept() does not end by closing alone
                waker.connect_ex(listener.getsockname())
            listener.close()
        self.victim.kill()
        self.victim.wait()
        if self._before is None:
            os.environ.pop(self.variable, None)
        else:
            os.environ[self.variable] = self._before
        for place in LEFT:
            Path(place, self.mark).unlink(missing_ok=True)
        self._folder.cleanup()

    def touched(self, outcome: Outcome) -> str:
        """What an attacker reached, in words; empty if nothing."""
        said = f"{outcome.feedback}\n{outcome.violations}"
        if self.secret in said:
            return "it read a secret from outside"
        if TOUCHED in said:
            return f"it reached {textwrap.shorten(said.split(TOUCHED, 1)[1].splitlines()[0], 100)}"
        if any((ord(each) < 32 and each not in "\n\t") or each in "\x7f\u202e\u2066" for each in said):
            return "its control characters came through into the feedback"
        if self._visits:
            return f"it connected to {self._visits.pop()!r}"
        if self.victim.poll() is not None:
            return "it ended another process"
        names = {each.name for each in self.folder.iterdir()}
        if self.file.read_text() != self.secret or names - {"secret.txt", "socket"}:
            return f"it wrote to files outside: {', '.join(sorted(names))}"
        return ""
