from __future__ import annotations

from cloudchamber.core.policy import Policy
from tests.evolve.machines.model import Choice, Job


class First(Policy):
    """Always the first machine."""

    def choose(self, job: Job) -> Choice:
        return Choice(0, job.seconds[0])


class Fastest(Policy):
    """The machine that is fastest for this job."""

    def choose(self, job: Job) -> Choice:
        machine = min(range(len(job.seconds)), key=lambda i: job.seconds[i])
        return Choice(machine, job.seconds[machine])
