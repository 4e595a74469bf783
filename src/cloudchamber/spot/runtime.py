"""The real world: the policy that was verified in the simulator drives a real job through a cloud.

Same order of things as the simulator: at a tick a dead instance is noticed, the policy is asked if there is reason to, the
standing order's preferences are tried in turn. What the simulator assumes is done here: the new instance is granted first,
then the old one is released and checkpoints, the checkpoint is copied, and only then the job starts on the new one.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from cloudchamber.core.errors import ChamberError, InputError
from cloudchamber.core.messages import decode, encode
from cloudchamber.core.policy import Parameters

from .cloud import CloudAdapter, CloudError, CloudStatus, InstanceStatus, SpotRun
from .clouds.journal import Journal
from .guard import DeadlineGuard
from .model import KEEP, Decision, Idle, Keep, Mode, Probe, SpotObs, SpotPolicy, SpotSpec, State, Try

__all__ = ["CloudAdapter", "CloudError", "CloudStatus", "InstanceStatus", "JobFailed", "SpotRun", "SpotRunner"]
MAX_CRASHES = 3


class JobFailed(ChamberError, RuntimeError):
    """The job itself ended with an error, again and again without progress."""


class SpotRunner:
    """Drives one job to its end under the deadline guard; killed at any moment, it goes on when run again on the same folder.

    Every question to the policy is on record before it is asked, so a restart first brings the policy to where it was.
    An instance that is still up is taken over; any other is shut down.

    Parameters
    ----------
    policy : SpotPolicy
    cloud : CloudAdapter
    spec : SpotSpec
    folder : Path
        State of the run: the journal, and at the end ``result``, the job's last checkpoint.
    seed : int, default 0
    margin_s : float, default 0
        Kept free before the deadline for work that a preemption may lose: at least the time between uploads.

    Raises
    ------
    InputError
        If the folder belongs to another run, is in use, or the policy wants to see the future.
    """

    def __init__(
        self, policy: SpotPolicy, cloud: CloudAdapter, spec: SpotSpec, folder: Path, *, seed: int = 0, margin_s: float = 0.0
    ) -> None:
        if getattr(policy, "clairvoyant", False):
            raise InputError(f"{policy!r} looks into the future, which no real cloud shows; choose another policy.")
        job = spec.job
        margin_s = max(0.0, min(margin_s, job.deadline_s - job.work_s - job.cold_start_s))
        self.cloud, self.spec, self.folder = cloud, spec, folder
        self.planned = replace(spec, job=replace(job, deadline_s=job.deadline_s - margin_s), future=None)
        self.guard = DeadlineGuard(policy)
        self.guard.reset(self.planned, np.random.default_rng(seed))
        self.identity = hashlib.sha256(encode([self.planned, job.deadline_s, seed, _name(policy)])).hexdigest()
        self.held: int | None = None
        self.questions = self.refused = 0
        self._order = Decision((KEEP,))
        self._asked: SpotObs | None = None
        self._until_s = -math.inf
        self._tries: dict[tuple[int, Mode], Try] = {}
        self._probes: tuple[Probe, ...] = ()
        self._done: set[tuple[object, ...]] = set()
        self._crashes, self._crashed_at = 0, -1.0

    def run(self) -> SpotRun:
        """Drive the job to its end, if need be past the deadline; give up when even that time is used up again.

        Raises
        ------
        CandidateError
            If the policy raises or answers with something invalid. What is up stays up: close the cloud, or run again.
        JobFailed
            If the job keeps failing without progress.
        CloudError
            If the cloud cannot be reached.
        """
        with _locked(self.folder / "lock"):
            self._journal = Journal(self.folder / "journal")
            self._recall()
            status = self.cloud.status()
            self._take_over(status)
            job = self.spec.job
            is_fresh = True
            while not self._is_finished(status) and status.time_s < job.deadline_s + job.work_s + job.cold_start_s:
                must_ask, preempted = self._notice(status)
                if must_ask or is_fresh or self._is_due(status):
                    self._ask(status, preempted)
                is_fresh = self._try(status)
                status = self._settle(status)
            return self._finish()

    # -- the past --------------------------------------------------------------------------------------------------

    def _recall(self) -> None:
        """Bring the policy to where it was: the same questions in the same order."""
        records = self._journal.records
        if not records:
            self._journal.append(kind="run", identity=self.identity)
        elif records[0].get("identity") != self.identity:
            raise InputError(
                f"{self.folder} holds the state of another run (another policy, job, market or seed); give the same as "
                "then to go on with it, or another folder to begin anew."
            )
        for record in records[1:]:
            self._asked = decode(base64.b64decode(record["obs"]), SpotObs)
            self.questions, self.refused = self.questions + 1, record["refused"]
            self._decide(self._asked)

    def _take_over(self, status: CloudStatus) -> None:
        """Hold the newest instance if it is up, or if it died unnoticed."""
        if status.instances:
            last, asked = status.instances[-1], self._asked
            is_news = asked is None or asked.mode != "idle" or last.launched_s >= asked.time_s
            if last.is_up or (last.state == "preempted" and is_news):
                self.held = last.number

    # -- one tick --------------------------------------------------------------------------------------------------

    def _notice(self, status: CloudStatus) -> tuple[bool, int | None]:
        """Let go of an instance that is no more; return whether it is, and its zone if it was preempted."""
        held = self._instance(status)
        if held is None or (held.is_up and held.state != "failed"):
            return False, None
        self.held = None
        if held.state == "failed":
            self._crashes = self._crashes + 1 if status.progress <= self._crashed_at else 1
            self._crashed_at = status.progress
            if self._crashes >= MAX_CRASHES:
                why = f"ended with status {held.exit_status}" if held.exit_status else "ended, but did not write 1 to its file `progress`,"
                raise JobFailed(
                    f"the job {why} {self._crashes} times in a row at {status.progress:.1%} of its work; its output is in the log of "
                    f"instance {held.number} below {self.folder}. Repair it and run again; for another command give another folder."
                )
        return True, held.zone if held.state == "preempted" else None

    def _is_due(self, status: CloudStatus) -> bool:
        if self._asked is None:
            return True
        due_s = max(self._until_s, self._asked.time_s + self.spec.tick_s)
        return status.time_s >= due_s - 1e-6 or not np.array_equal(status.spot_usd_h, self._asked.spot_usd_h)

    def _ask(self, status: CloudStatus, preempted: int | None) -> None:
        held = self._instance(status)
        job = self.spec.job
        mode: State = "idle" if held is None else held.mode
        zone = None if held is None else held.zone
        tries = tuple(sorted(self._tries.values(), key=lambda each: (each.zone, each.mode != "spot")))
        obs = SpotObs(
            status.time_s,
            status.progress * job.work_s,
            mode,
            zone,
            status.location,
            _cold_s(held, status.time_s, self.spec),
            status.spot_usd_h,
            preempted,
            tries,
            self._probes,
        )
        self._journal.append(kind="question", obs=base64.b64encode(encode(obs)).decode(), refused=self.refused)
        self._asked, self.questions = obs, self.questions + 1
        self._tries.clear()
        self._order = self._decide(obs)
        self._until_s = -math.inf if self._order.until_s is None else self._order.until_s
        self._probes = tuple([Probe(int(zone), self.cloud.probe(int(zone)), status.time_s) for zone in self._order.probes])

    def _decide(self, obs: SpotObs) -> Decision:
        """Past the deadline no policy has an answer: hold what runs, and from idle let the guard find the cheapest way to the end."""
        if obs.time_s >= self.planned.job.deadline_s and obs.mode != "idle":
            return Decision((KEEP,))
        return self.guard.decide(obs)

    def _try(self, status: CloudStatus) -> bool:
        """Carry out the standing order; whether an instance was launched."""
        held = self._instance(status)
        for pref in self._order.prefs:
            if isinstance(pref, Keep):
                break
            if isinstance(pref, Idle):
                self.held = None
                break
            zone, mode = int(pref.zone), pref.mode
            if held is not None and (zone, mode) == (held.zone, held.mode):
                break
            number = self.cloud.launch(zone, mode)
            self._tries[zone, mode] = Try(zone, mode, number is not None, status.time_s)
            if number is not None:
                self.held = number
                return True
            self.refused += 1
        return False

    def _settle(self, status: CloudStatus) -> CloudStatus:
        """Bring the cloud to what is wanted, step by step, until the next tick."""
        until_s = status.time_s + self.spec.tick_s
        self._done.clear()
        status = self.cloud.status()
        while status.time_s < until_s - 1e-6:
            self._reconcile(status)
            status = self.cloud.wait(until_s)
        return status

    def _reconcile(self, status: CloudStatus) -> None:
        """The next step towards one instance with the job: others are gone, the checkpoint is there, the job starts."""
        others = [each for each in status.instances if each.number != self.held and each.ended_s is None]
        for each in others:
            if each.is_up:
                self._once(self.cloud.terminate, each.number)
        held = self._instance(status)
        if others or held is None or held.state != "waiting":
            return
        zones = self.spec.zones
        if status.location is not None and zones[status.location].region != zones[held.zone].region:
            self._once(self.cloud.copy, held.zone)
        else:
            self._once(self.cloud.start, held.number)

    def _once(self, verb: Callable[[int], None], number: int) -> None:
        """At most once a tick, so that a verb that fails at once cannot hold up the clock."""
        if (verb.__name__, number) not in self._done:
            self._done.add((verb.__name__, number))
            verb(number)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _is_finished(self, status: CloudStatus) -> bool:
        held = self._instance(status)
        return status.progress >= 1 and (held is None or held.state not in ("starting", "running"))

    def _finish(self) -> SpotRun:
        self.held = None
        self._done.clear()
        status = self.cloud.status()
        while any(each.ended_s is None for each in status.instances):
            self._reconcile(status)
            status = self.cloud.wait(status.time_s + self.spec.tick_s)
        result = self.folder / "result"
        has_result = self.cloud.fetch(result)
        self._journal.close()
        return SpotRun(
            is_finished=status.progress >= 1,
            end_s=max((each.ended_s or 0.0 for each in status.instances), default=0.0),
            deadline_s=self.spec.job.deadline_s,
            progress=status.progress,
            spent_usd=dict(self.cloud.ledger()),
            instances=status.instances,
            failed_launches=self.refused,
            questions=self.questions,
            faults=dict(self.cloud.faults()),
            result=result if has_result else None,
        )

    def _instance(self, status: CloudStatus) -> InstanceStatus | None:
        return next((each for each in status.instances if each.number == self.held), None)


def _cold_s(held: InstanceStatus | None, time_s: float, spec: SpotSpec) -> float:
    if held is None:
        return 0.0
    left_s = held.launched_s + spec.job.cold_start_s - time_s
    return spec.tick_s if left_s < 0 and held.state in ("waiting", "starting") else max(left_s, 0.0)


def _name(policy: object) -> str:
    return repr(policy) if isinstance(policy, Parameters) else f"{type(policy).__module__}.{type(policy).__qualname__}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder; the lock goes with the process, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another scheduler drives {path.parent}; wait for it, or give another state directory.") from None
        yield
