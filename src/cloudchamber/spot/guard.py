"""The deadline guard: part of the world, not a policy. It makes every policy meet every deadline that can be met.

With slack s = (T - t) - (P - p) and cold start d it allows, by one tick of margin:

* from anything but a held spot instance, a spot launch only if s >= 2d + tick (a spot instance may die inside its cold
  start, and on-demand must still fit after it);
* waiting, or giving up an instance, only if s >= d + tick;
* otherwise the on-demand instance with the least o * (P - p + d) + egress, held to the end.

A warm spot instance may always be kept: while it works, its slack does not shrink.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cloudchamber.core.candidate import Candidate
from cloudchamber.core.errors import CandidateError

from .model import FOREVER, IDLE, KEEP, Decision, Idle, Keep, Launch, SpotObs, SpotPolicy, SpotSpec

_ALLOWED = (Launch, Keep, Idle)
_MOST = 4  # entries per zone: twice as many as differ


class DeadlineGuard:
    """Wraps a policy on the trusted side; simulator and runtime ask it instead of the policy.

    Raises
    ------
    CandidateError
        When the policy raises or answers with something that is not a valid :class:`Decision`.
    """

    def __init__(self, policy: SpotPolicy | Candidate) -> None:
        self.policy = policy if isinstance(policy, Candidate) else Candidate(policy)

    def reset(self, spec: SpotSpec, rng: np.random.Generator) -> None:
        """Reset the policy and learn the trial's static facts."""
        self.spec = spec
        self.committed = False
        self._on_demand_usd_h = spec.on_demand_usd_h
        self.policy.reset(spec, rng)

    def decide(self, obs: SpotObs) -> Decision:
        """Return the policy's decision, cut to what the deadline still allows."""
        if self.committed and obs.mode == "on_demand":
            return Decision((KEEP,), (), FOREVER)
        slack_s = self._slack_s(obs)
        spec, tick_s = self.spec, self.spec.tick_s
        can_wait = slack_s >= spec.job.cold_start_s + tick_s - 1e-9
        if obs.mode == "idle" and not can_wait:
            return self._commit(obs)
        decision = checked(self.policy.decide(obs), len(spec.zones))
        can_spot = slack_s >= 2 * spec.job.cold_start_s + tick_s - 1e-9
        prefs = tuple([each for each in decision.prefs if _permitted(each, obs, can_spot, can_wait)])
        shrinks = obs.mode == "idle" or obs.cold_s > 0 or IDLE in prefs
        until_s = self._limit_s(obs, decision.until_s, slack_s if shrinks else FOREVER, can_spot)
        return Decision(prefs or (KEEP,), decision.probes, until_s)

    def _slack_s(self, obs: SpotObs) -> float:
        job = self.spec.job
        return (job.deadline_s - obs.time_s) - (job.work_s - obs.progress_s)

    def _limit_s(self, obs: SpotObs, until_s: float | None, slack_s: float, can_spot: bool) -> float:
        """End the order before slack, where it shrinks, changes what is allowed."""
        tick_s, cold_start_s = self.spec.tick_s, self.spec.job.cold_start_s
        wanted_s = obs.time_s + tick_s if until_s is None else until_s
        spare_s = slack_s - (2 * cold_start_s if can_spot else cold_start_s)
        return max(min(wanted_s, obs.time_s + spare_s), obs.time_s + tick_s)

    def _commit(self, obs: SpotObs) -> Decision:
        """The cheapest on-demand instance, to the end."""
        self.committed = True
        job = self.spec.job
        hours = (job.work_s - obs.progress_s + job.cold_start_s) / 3600
        cost = self._on_demand_usd_h * hours
        if obs.location is not None:
            cost = cost + self.spec.egress_usd[obs.location]
        return Decision((Launch(int(np.argmin(cost)), "on_demand"),), (), FOREVER)


def _permitted(pref: Launch | Keep | Idle, obs: SpotObs, can_spot: bool, can_wait: bool) -> bool:
    if isinstance(pref, Keep):
        return True
    if isinstance(pref, Idle):
        return can_wait
    if pref.zone == obs.zone and pref.mode == obs.mode:
        return True
    return can_spot if pref.mode == "spot" else can_wait or obs.mode == "idle"


def checked(decision: Any, zones: int) -> Decision:
    """Return the decision if it is valid.

    Raises
    ------
    CandidateError
        Saying what is wrong with it.
    """
    if not isinstance(decision, Decision):
        raise CandidateError(f"decide() must return a Decision, got {type(decision).__name__}.")
    if not isinstance(decision.prefs, tuple) or not isinstance(decision.probes, tuple):
        raise CandidateError("Decision.prefs and Decision.probes must be tuples.")
    for name, given in (("prefs", decision.prefs), ("probes", decision.probes)):  # each costs the trusted side work, at every tick
        if len(given) > _MOST * (zones + 1):
            raise CandidateError(f"Decision.{name} holds {len(given)} entries; with {zones} zones at most {_MOST * (zones + 1)} are taken.")
    for pref in decision.prefs:
        if not isinstance(pref, _ALLOWED):
            raise CandidateError(f"Decision.prefs holds a {type(pref).__name__}; allowed: Launch, Keep, Idle.")
        if isinstance(pref, Launch):
            if pref.mode not in ("spot", "on_demand"):
                raise CandidateError(f"Launch.mode must be 'spot' or 'on_demand', got {pref.mode!r}.")
            _check_zone(pref.zone, zones)
    for zone in decision.probes:
        _check_zone(zone, zones)
    until_s = decision.until_s
    if until_s is not None and (not isinstance(until_s, (int, float)) or math.isnan(until_s)):
        raise CandidateError(f"Decision.until_s must be seconds or None, got {until_s!r}.")
    return decision


def _check_zone(zone: Any, zones: int) -> None:
    if not isinstance(zone, (int, np.integer)) or isinstance(zone, bool) or not 0 <= zone < zones:
        raise CandidateError(f"a zone must be an index from 0 to {zones - 1}, got {zone!r}.")
