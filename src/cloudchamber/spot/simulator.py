"""The verified world: one job in one market, tick by tick, with a ledger that bills every started tick.

A policy is asked only when something it may see has changed; between questions a compiled loop carries out its standing
order. Per tick: a dead spot instance is noticed, the order's preferences are tried, one tick is billed, cold start or work
advances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np

from cloudchamber.core.jit import njit

from .guard import DeadlineGuard
from .market import Market, Ticks
from .model import LEDGER, MODES, Decision, Future, Keep, Launch, Probe, SpotObs, SpotPolicy, SpotSpec, State, Try

STATES: tuple[State, ...] = ("idle", "spot", "on_demand")
_IDLE, _SPOT, _ON_DEMAND = 0, 1, 2
_KEEP, _RELEASE = -1, -2  # kinds of preference; from 0 on: zone * 2 + (mode is on-demand)
_ASK, _PREEMPTED, _DONE, _LATE = 0, 1, 2, 3
# state vector
_T, _STATE, _ZONE, _COLD, _DONE_TICKS, _LOCATION, _LAUNCHES, _PREEMPTIONS, _MIGRATIONS, _FAILED = range(10)


@dataclass(frozen=True, eq=False)
class Run:
    """One finished simulation.

    Parameters
    ----------
    spent_usd : dict
        The ledger: ``spot_usd``, ``on_demand_usd``, ``egress_usd``, ``probe_usd``.
    state, zone : ndarray of int, shape (ticks,)
        Per tick: 0 idle, 1 spot, 2 on-demand; the zone or -1.
    progress : ndarray of int, shape (ticks + 1,)
        Work ticks done before each tick; ``cost_usd`` likewise is the bill before each tick.
    """

    spent_usd: dict[str, float]
    state: np.ndarray
    zone: np.ndarray
    progress: np.ndarray
    cost_usd: np.ndarray
    launches: int
    preemptions: int
    migrations: int
    failed_launches: int
    questions: int
    is_finished: bool

    @property
    def total_usd(self) -> float:
        """The whole bill."""
        return float(sum(self.spent_usd.values()))


@njit
def _advance(  # type: ignore[no-untyped-def]
    available,
    spot_usd,
    on_demand_usd,
    egress_usd,
    next_change,
    order,
    until,
    work,
    cold_start,
    state,
    ledger,
    tries,
    log_state,
    log_zone,
    log_progress,
    log_cost,
):  # pragma: no cover
    """Carry out one standing order until something happens; return what."""
    ticks = available.shape[0]
    start = state[_T]
    until = min(max(until, start + 1), next_change[start])
    while True:
        t = state[_T]
        launched = False
        for k in range(len(order)):
            kind = order[k]
            if kind == _KEEP:
                break
            if kind == _RELEASE:
                state[_STATE], state[_ZONE], state[_COLD] = _IDLE, -1, 0
                break
            zone, mode = kind // 2, 1 + kind % 2
            if state[_STATE] == mode and state[_ZONE] == zone:
                break
            granted = mode == _ON_DEMAND or available[t, zone]
            tries[zone, mode - 1, 0], tries[zone, mode - 1, 1] = t, granted
            if not granted:
                state[_FAILED] += 1
                continue
            if state[_LOCATION] >= 0:
                ledger[2] += egress_usd[state[_LOCATION], zone]
                state[_MIGRATIONS] += state[_LOCATION] != zone
            state[_STATE], state[_ZONE], state[_LOCATION], state[_COLD] = mode, zone, zone, cold_start
            state[_LAUNCHES] += 1
            launched = True
            break
        if state[_STATE] != _IDLE:
            if state[_STATE] == _SPOT:
                ledger[0] += spot_usd[t, state[_ZONE]]
            else:
                ledger[1] += on_demand_usd[state[_ZONE]]
            if state[_COLD] > 0:
                state[_COLD] -= 1
            else:
                state[_DONE_TICKS] += 1
        log_state[t], log_zone[t] = state[_STATE], state[_ZONE]
        t += 1
        state[_T] = t
        log_progress[t] = state[_DONE_TICKS]
        log_cost[t] = ledger[0] + ledger[1] + ledger[2] + ledger[3]
        if state[_DONE_TICKS] >= work:
            return _DONE
        if t >= ticks:
            return _LATE
        if state[_STATE] == _SPOT and not available[t, state[_ZONE]]:
            state[_STATE], state[_ZONE], state[_COLD] = _IDLE, -1, 0
            state[_PREEMPTIONS] += 1
            return _PREEMPTED
        if launched or t >= until:
            return _ASK


def next_price_change(spot_usd: np.ndarray) -> np.ndarray:
    """For every tick, the first later tick at which some price differs (the number of ticks when none does)."""
    ticks = len(spot_usd)
    changed = np.flatnonzero((spot_usd[1:] != spot_usd[:-1]).any(axis=1)) + 1
    after = np.searchsorted(changed, np.arange(ticks), side="right")
    return np.append(changed, ticks)[after].astype(np.int64)


class Simulator:
    """Runs policies on one job in one market window.

    Parameters
    ----------
    market : Market
        Exactly the window of the trial: its first tick is the job's start, its last the one before the deadline.
    job : Ticks
    checkpoint_gb : float
    probe_s : float
        Seconds of spot price billed for a successful probe.
    """

    def __init__(self, market: Market, job: Ticks, *, checkpoint_gb: float = 0.0, probe_s: float = 60.0) -> None:
        self.market = market.window(0, job.deadline)
        self.job = job
        hours = market.tick_s / 3600
        self._available = np.array(self.market.available, order="C")
        self._prices_usd_h = np.array(self.market.spot_usd_h, order="C")
        self._prices_usd_h.flags.writeable = False
        self._spot_usd = self._prices_usd_h * hours
        self._on_demand_usd = market.on_demand_usd_h * hours
        self._egress_usd = market.egress_usd_gb * checkpoint_gb
        self._probe_usd = self._prices_usd_h * (probe_s / 3600)
        self._next_change = next_price_change(self._spot_usd)
        self._spec = SpotSpec(
            job=job.job(market.tick_s, checkpoint_gb),
            zones=market.zones,
            egress_usd=self._egress_usd,
            tick_s=market.tick_s,
            probe_s=probe_s,
        )

    @property
    def spec(self) -> SpotSpec:
        """What a policy knows beforehand; a copy, so that no policy can spoil another's world."""
        return msgspec.structs.replace(self._spec, egress_usd=self._egress_usd.copy())

    def run(self, policy: SpotPolicy, rng: np.random.Generator, *, show_future: bool = False) -> Run:
        """Run a policy to the end of the job or the deadline, under the deadline guard.

        Raises
        ------
        CandidateError
            If the policy raises or answers with something invalid.
        """
        future = Future(self._available.copy(), self._prices_usd_h.copy()) if show_future else None
        guard = DeadlineGuard(policy)
        guard.reset(msgspec.structs.replace(self.spec, future=future), rng)
        return _Trial(self, guard).finish()


class _Trial:
    """The changing part of one run."""

    def __init__(self, world: Simulator, guard: DeadlineGuard) -> None:
        ticks, zones = world._available.shape
        self.world, self.guard = world, guard
        self.state = np.array([0, _IDLE, -1, 0, 0, -1, 0, 0, 0, 0], dtype=np.int64)
        self.ledger = np.zeros(4)
        self.tries = np.full((zones, 2, 2), -1, dtype=np.int64)
        self.log_state = np.zeros(ticks, dtype=np.int8)
        self.log_zone = np.full(ticks, -1, dtype=np.int16)
        self.log_progress = np.zeros(ticks + 1, dtype=np.int64)
        self.log_cost = np.zeros(ticks + 1)
        self.questions = 0
        self.attempts = 0

    def finish(self) -> Run:
        world, state = self.world, self.state
        preempted: int | None = None
        probes: tuple[Probe, ...] = ()
        event = _ASK
        while event < _DONE:
            decision = self.guard.decide(self._observe(preempted, probes))
            self.questions += 1
            probes = self._probe(decision.probes)
            event = _advance(
                world._available,
                world._spot_usd,
                world._on_demand_usd,
                world._egress_usd,
                world._next_change,
                _order(decision),
                self._until(decision),
                world.job.work,
                world.job.cold_start,
                state,
                self.ledger,
                self.tries,
                self.log_state,
                self.log_zone,
                self.log_progress,
                self.log_cost,
            )
            preempted = int(self.log_zone[state[_T] - 1]) if event == _PREEMPTED else None
        return self._result(event == _DONE)

    def _until(self, decision: Decision) -> int:
        if decision.until_s is None:
            return int(self.state[_T]) + 1
        return math.ceil(min(max(decision.until_s / self.world.market.tick_s - 1e-9, 0.0), len(self.log_state)))

    def _probe(self, zones: tuple[int, ...]) -> tuple[Probe, ...]:
        if not zones:
            return ()
        t, world = int(self.state[_T]), self.world
        found = []
        for zone in zones:
            is_up = bool(world._available[t, zone])
            if is_up:
                self.ledger[3] += world._probe_usd[t, zone]
            found.append(Probe(int(zone), is_up, t * world.market.tick_s))
        return tuple(found)

    def _observe(self, preempted: int | None, probes: tuple[Probe, ...]) -> SpotObs:
        t, code, zone, cold, done, location = self.state[:6].tolist()
        tick_s = self.world.market.tick_s
        return SpotObs(
            t * tick_s,
            done * tick_s,
            STATES[code],
            zone if zone >= 0 else None,
            location if location >= 0 else None,
            cold * tick_s,
            self.world._prices_usd_h[t].copy(),  # a view would show the rest of the window
            preempted,
            self._new_tries(tick_s),
            probes,
        )

    def _new_tries(self, tick_s: float) -> tuple[Try, ...]:
        """The last attempt for each zone and mode since the last question."""
        attempts = self.state.item(_LAUNCHES) + self.state.item(_FAILED)
        if attempts == self.attempts:
            return ()
        self.attempts = attempts
        made = np.argwhere(self.tries[:, :, 0] >= 0).tolist()
        found = tuple(
            [
                Try(zone, MODES[mode], bool(granted), float(tick * tick_s))
                for zone, mode in made
                for tick, granted in [self.tries[zone, mode]]
            ]
        )
        self.tries[:, :, 0] = -1
        return found

    def _result(self, is_finished: bool) -> Run:
        end = int(self.state[_T])
        launches, preemptions, migrations, failed = self.state[_LAUNCHES:].tolist()
        return Run(
            spent_usd=dict(zip(LEDGER, self.ledger.tolist(), strict=True)),
            state=self.log_state[:end],
            zone=self.log_zone[:end],
            progress=self.log_progress[: end + 1],
            cost_usd=self.log_cost[: end + 1],
            launches=launches,
            preemptions=preemptions,
            migrations=migrations,
            failed_launches=failed,
            questions=self.questions,
            is_finished=is_finished,
        )


def _order(decision: Decision) -> np.ndarray:
    kinds = [
        _KEEP if isinstance(pref, Keep) else pref.zone * 2 + (pref.mode == "on_demand") if isinstance(pref, Launch) else _RELEASE
        for pref in decision.prefs
    ]
    return np.array(kinds, dtype=np.int64)


def changes(state: np.ndarray, zone: np.ndarray) -> np.ndarray:
    """Ticks at which a log's state or zone differs from the tick before, the first included."""
    differs = (np.diff(state, prepend=-1) != 0) | (np.diff(zone, prepend=-2) != 0)
    return np.flatnonzero(differs)


def audit(run: Run, world: Simulator) -> tuple[str, ...]:
    """Check a finished run against the market, from its tick log alone; return what does not hold, in words."""
    market, job = world.market, world.job
    ticks, zone = np.arange(len(run.state)), run.zone.astype(np.int64)
    wrong = []
    if not run.is_finished:
        late_h = (job.work - int(run.progress[-1])) * market.tick_s / 3600
        wrong.append(f"missed the deadline with {late_h:.2f} h of work left")
    on_spot, on_demand = run.state == _SPOT, run.state == _ON_DEMAND
    if not market.available[ticks[on_spot], zone[on_spot]].all():
        wrong.append("ran on spot capacity that was not there")
    if (zone[on_spot | on_demand] < 0).any() or (zone[run.state == _IDLE] >= 0).any():
        wrong.append("the log's states and zones disagree")
    gained = np.diff(run.progress)
    moved = changes(run.state, run.zone)
    cold = np.zeros(len(ticks) + job.cold_start, dtype=bool)
    for k in range(job.cold_start):
        cold[moved + k] = True
    if ((gained < 0) | (gained > 1)).any() or gained[(run.state == _IDLE) | cold[: len(ticks)]].any():
        wrong.append("progress was credited while idle or cold, or twice")
    hours = market.tick_s / 3600
    visited = zone[zone >= 0]
    billed = (
        market.spot_usd_h[ticks[on_spot], zone[on_spot]].sum() * hours
        + market.on_demand_usd_h[zone[on_demand]].sum() * hours
        + world._egress_usd[visited[:-1], visited[1:]].sum()
        + run.spent_usd["probe_usd"]
    )
    if abs(billed - run.total_usd) > 1e-6 * max(1.0, billed):
        wrong.append(f"the ledger says {run.total_usd:.6f} USD, the tick log {billed:.6f}")
    return tuple(wrong)
