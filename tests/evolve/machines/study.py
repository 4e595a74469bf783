"""Studies of the toy problem: one with a sound verifier, and three whose verifiers can be beaten."""

from __future__ import annotations

from cloudchamber.core.errors import CandidateError
from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.study import Study, Workload, rng_of

from .model import Choice, Job, Shop, ToyPolicy
from .policies.simple import Fastest, First


class Sound(Study):
    """Jobs on machines; the mean time counts."""

    name = "toy"
    protocol = ToyPolicy
    metrics = (Metric("mean_s", "s"),)
    floor = ("First",)

    def policies(self):
        return {"First": First, "Fastest": Fastest}

    def workloads(self):
        return {"smoke": Workload(name="smoke", is_generated=True, is_optional=True)}

    def jobs(self, seed):
        return [Job(tuple(row)) for row in rng_of(self.name, "smoke", seed).uniform(1, 9, (6, 3)).tolist()]

    def trial(self, policy, workload, seed):
        policy.reset(Shop(3), rng_of(self.name, workload.name, seed))
        times = []
        for job in self.jobs(seed):
            answer = policy.choose(Job(job.seconds))
            if type(answer) is not Choice or type(answer.machine) is not int or not 0 <= answer.machine < 3:
                return Outcome.void(f"no machine {answer!r}"[:200])
            times.append(job.seconds[answer.machine])
        return Outcome({"mean_s": sum(times) / len(times)})

    def bound(self, workload, seed):
        return Bound(sum(min(job.seconds) for job in self.jobs(seed)) / 6, True)


class Trusting(Sound):
    """Takes the policy's word for the time."""

    def trial(self, policy, workload, seed):
        policy.reset(Shop(3), rng_of(self.name, workload.name, seed))
        times = [policy.choose(job).expected_s for job in self.jobs(seed)]
        return Outcome({"mean_s": sum(times) / len(times)})


class TrustingWithoutBound(Trusting):
    def bound(self, workload, seed):
        return None


class Skipping(Sound):
    """Leaves out the jobs on which the policy failed."""

    def trial(self, policy, workload, seed):
        policy.reset(Shop(3), rng_of(self.name, workload.name, seed))
        times = []
        for job in self.jobs(seed):
            try:
                times.append(job.seconds[policy.choose(job).machine])
            except (CandidateError, IndexError):
                continue
        return Outcome({"mean_s": sum(times) / len(times)} if times else {})


class Sharing(Sound):
    """Makes its jobs once, and changes them by what is chosen."""

    def __init__(self):
        self._jobs = [list(job.seconds) for job in Sound.jobs(self, 0)]

    def trial(self, policy, workload, seed):
        policy.reset(Shop(3), rng_of(self.name, workload.name, seed))
        times = []
        for seconds in self._jobs:
            answer = policy.choose(Job(tuple(seconds)))
            if not 0 <= answer.machine < 3:
                return Outcome.void("no such machine")
            times.append(seconds[answer.machine])
            if answer.machine:
                seconds[0] = 1.0
        return Outcome({"mean_s": sum(times) / len(times)})


class Vacuous(Sound):
    """Never asks the policy on its smoke workload."""

    def trial(self, policy, workload, seed):
        policy.reset(Shop(3), rng_of(self.name, workload.name, seed))
        return Outcome({"mean_s": self.bound(workload, seed).value})


class Peeking(Sound):
    """Swallows a fault and lets its own best policy answer in place of the candidate."""

    def trial(self, policy, workload, seed):
        try:
            return super().trial(policy, workload, seed)
        except CandidateError:
            return super().trial(Fastest(), workload, seed)
