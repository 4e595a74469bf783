"""How long a spot instance will live: Nelson-Aalen over each zone's observed runs, or an oracle that looks.

Every zone keeps a *virtual instance*: successful launches, probes and held time extend its run, a refusal or preemption
ends it (an event), leaving voluntarily or losing sight of it censors it.
"""

from __future__ import annotations

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.core.jit import njit
from cloudchamber.core.policy import Parameters, Real
from cloudchamber.spot.model import SpotSpec


class Lifetime(Parameters):
    """What :class:`~cloudchamber.spot.SkyNomad` asks of a lifetime model. All times in seconds."""

    clairvoyant = False

    def reset(self, spec: SpotSpec) -> None:
        """Forget all runs."""
        raise NotImplementedError

    def seen(self, zone: int, available: bool, time_s: float) -> None:
        """Note that spot was, or was not, to be had in a zone."""
        raise NotImplementedError

    def left(self, zone: int, time_s: float) -> None:
        """Note that the zone is no longer watched: its run is censored."""
        raise NotImplementedError

    def expected_s(self, time_s: float, held: int) -> np.ndarray:
        """Expected remaining life in every zone of an instance launched now (or held now, for zone ``held``)."""
        raise NotImplementedError


class NelsonAalen(Lifetime):
    """Learn lifetimes from what the policy itself observes.

    H(l) = sum of events / at risk, S = exp(-gamma H), L(age) = integral of S from age on / S(age); beyond the last observed age
    an exponential tail. ``gamma`` >= 1 raises the hazard when a recent window saw more preemptions than expected.

    Parameters
    ----------
    prior_s : float, default 7200
        Length of the pseudo-run every zone starts with, censored.
    gamma_cap : float, default 4
        Largest factor on the hazard; 1 turns the correction off.
    forget_s : float, default 3600
        A zone not observed for this long has its run censored, so a stale run neither ages nor ends.

    References
    ----------
    SkyNomad: On Using Multi-Region Spot Instances to Minimize AI Batch Job Cost.
    """

    _constraints = {"prior_s": Real(1, 1e9), "gamma_cap": Real(1, 100), "forget_s": Real(1, 1e9)}

    def __init__(self, *, prior_s: float = 7200.0, gamma_cap: float = 4.0, forget_s: float = 3600.0) -> None:
        self.prior_s = prior_s
        self.gamma_cap = gamma_cap
        self.forget_s = forget_s

    def reset(self, spec: SpotSpec) -> None:
        """Forget all runs."""
        zones = len(spec.zones)
        self._length = np.zeros((zones, 64))  # ended runs of every zone, by length
        self._is_event = np.zeros((zones, 64), dtype=np.bool_)
        self._ended = np.zeros((zones, 64))
        self._count = np.zeros(zones, dtype=np.int64)
        self._start = np.full(zones, -1.0)  # of the run that is open; -1 where none is
        self._last = np.full(zones, np.inf)

    def seen(self, zone: int, available: bool, time_s: float) -> None:
        """Note that spot was, or was not, to be had in a zone."""
        is_open = self._start[zone] >= 0
        if available:
            if not is_open:
                self._start[zone] = time_s
            self._last[zone] = time_s
        elif is_open:
            self._end(zone, time_s - self._start[zone], True, time_s)

    def left(self, zone: int, time_s: float) -> None:
        """Censor the zone's run at the time it was last seen alive."""
        if self._start[zone] >= 0:
            self._end(zone, self._last[zone] - self._start[zone], False, time_s)

    def _end(self, zone: int, length_s: float, is_event: bool, time_s: float) -> None:
        self._start[zone], self._last[zone] = -1.0, np.inf
        if length_s <= 0 and not is_event:
            return
        n = self._count[zone]
        if n == self._length.shape[1]:
            for name in ("_length", "_is_event", "_ended"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros_like(old)], axis=1))
        at = int(np.searchsorted(self._length[zone, :n], length_s))
        for array, value in ((self._length, length_s), (self._is_event, is_event), (self._ended, time_s)):
            array[zone, at + 1 : n + 1] = array[zone, at:n]
            array[zone, at] = value
        self._count[zone] = n + 1

    def expected_s(self, time_s: float, held: int) -> np.ndarray:
        """Expected remaining life in every zone of an instance launched now (or held now)."""
        if time_s - self._last.min() > self.forget_s:
            for zone in np.flatnonzero(time_s - self._last > self.forget_s):
                if zone != held:
                    self.left(int(zone), time_s)
        life_s: np.ndarray = _expected(
            self._length, self._is_event, self._ended, self._count, self._start, time_s, self.prior_s, self.gamma_cap
        )
        return life_s


@njit
def _expected(length, is_event, ended, count, start, time_s, prior_s, gamma_cap):  # type: ignore[no-untyped-def]  # pragma: no cover
    out = np.empty(len(count))
    for zone in range(len(count)):
        n = count[zone]
        age = time_s - start[zone] if start[zone] >= 0 else 0.0
        gamma = _recent_excess(length[zone], is_event[zone], ended[zone], n, age, time_s, prior_s, gamma_cap)
        out[zone] = expected_life(length[zone, :n], is_event[zone, :n], age, prior_s, gamma)
    return out


@njit
def expected_life(length, is_event, age, prior_s, gamma):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Mean remaining life at ``age``: runs sorted by length, plus the censored prior and the open run at risk up to ``age``."""
    n = len(length)
    events, exposure, last = 0, prior_s + age, 0.0
    for k in range(n):
        events += is_event[k]
        exposure += length[k]
        last = max(last, length[k])
    # S relative to S(age), integrated from age on, over the steps of H
    survival, life, at = 1.0, 0.0, age
    k = 0
    while k < n:
        step, same, died = length[k], k, 0
        while same < n and length[same] == step:
            died += is_event[same]
            same += 1
        if died and step > age:
            at_risk = (n - k) + (prior_s >= step)
            life += survival * (step - at)
            survival *= np.exp(-gamma * died / at_risk)
            at = step
        k = same
    knot = max(at, last)
    life += survival * max(knot - at, 0.0)
    tail = max(exposure / (events + 1), age) / gamma
    return life + survival * tail


@njit
def _recent_excess(length, is_event, ended, n, age, time_s, prior_s, cap):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Largest observed / expected preemptions over the last 1, 3, 9 and 27 hours, in [1, cap].

    Expected is the zone's rate, (events + 1) / exposure, times the time it was watched in the window. Half the prior counts as
    watched too, and a single preemption is no pattern, so that short windows do not cry wolf.
    """
    total, events = prior_s + age, 0.0
    for k in range(n):
        total += length[k]
        events += is_event[k]
    rate = (events + 1) / total
    worst = 1.0
    for window in (3600.0, 10800.0, 32400.0, 97200.0):
        seen, watched = 0.0, min(age, window) + prior_s * 0.5
        for k in range(n):
            if ended[k] > time_s - window:
                seen += is_event[k]
                watched += min(length[k], window - (time_s - ended[k]))
        if seen >= 2:
            worst = max(worst, seen / (rate * watched))
    return min(worst, cap)


class Oracle(Lifetime):
    """Look the remaining life up in the trial's future: what perfect lifetime prediction would be worth."""

    clairvoyant = True

    def reset(self, spec: SpotSpec) -> None:
        """Read the future.

        Raises
        ------
        InputError
            In a world that does not show it (the real one, or a jail).
        """
        if spec.future is None:
            raise InputError("Oracle needs the future, which only a simulated trial can show; use lifetime=NelsonAalen().")
        available = spec.future.available
        ticks = len(available)
        remaining = np.zeros((ticks + 1, available.shape[1]))
        for t in range(ticks - 1, -1, -1):
            remaining[t] = np.where(available[t], remaining[t + 1] + spec.tick_s, 0.0)
        self._remaining_s, self._tick_s = remaining, spec.tick_s

    def seen(self, zone: int, available: bool, time_s: float) -> None:
        """Nothing to learn."""

    def left(self, zone: int, time_s: float) -> None:
        """Nothing to learn."""

    def expected_s(self, time_s: float, held: int) -> np.ndarray:
        """The true remaining life; where nothing is available now, 0."""
        return self._remaining_s[int(time_s / self._tick_s + 0.5)]  # type: ignore[no-any-return]
