"""A study of one's own: how long to wait for a batch to fill before running it."""

from pathlib import Path
from typing import Protocol

import numpy as np

from cloudchamber import Policy, Study, study
from cloudchamber.core.messages import Message
from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.policy import Integer
from cloudchamber.core.study import Workload, rng_of


class QueueObs(Message, frozen=True):
    """How many requests wait, and for how many ticks the oldest has."""

    waiting: int
    oldest_ticks: int


class BatchingPolicy(Protocol):
    """Decides whether to run the batch now."""

    def reset(self, spec: None, rng: np.random.Generator) -> None: ...

    def decide(self, obs: QueueObs) -> bool: ...


class RunAtOnce(Policy):
    """Run whatever waits: no delay, no sharing."""

    def decide(self, obs: QueueObs) -> bool:
        return True


class WaitForBatch(Policy):
    """Run when ``size`` requests wait.

    Parameters
    ----------
    size : int, default 4
    """

    _constraints = {"size": Integer(1)}

    def __init__(self, size: int = 4) -> None:
        self.size = size

    def decide(self, obs: QueueObs) -> bool:
        return obs.waiting >= self.size or obs.oldest_ticks >= 10


class BatchingStudy(Study):
    """A batch costs 5, every tick of every waiting request 1."""

    name = "batching"
    title = "When to run a batch"
    papers = ("A two-line queueing problem",)
    protocol = BatchingPolicy
    metrics = (Metric("cost", "1"), Metric("batches", "1"))
    floor = ("RunAtOnce",)

    def policies(self):
        return {"WaitForBatch": WaitForBatch, "RunAtOnce": RunAtOnce}

    def workloads(self):
        return {"smoke": Workload(name="smoke", seeds=5, is_generated=True)}

    def trial(self, policy, workload, seed):
        arrivals = self._arrivals(workload, seed)
        policy.reset(None, rng_of(self.name, workload.name, seed))
        queue, cost, batches = [], 0, 0
        for tick, count in enumerate(arrivals):
            queue += [tick] * count
            if queue and policy.decide(QueueObs(len(queue), tick - queue[0])):
                cost, batches, queue = cost + 5, batches + 1, []
            cost += len(queue)
        return Outcome({"cost": cost + 5 * bool(queue), "batches": batches + bool(queue)})

    def bound(self, workload, seed):
        """The optimum, by dynamic programming: least[t] is the least cost of serving all that arrived before t."""
        arrivals = self._arrivals(workload, seed)
        least = [0.0]
        for end in range(1, len(arrivals) + 1):
            waiting, best = 0, least[end - 1] + 5
            for start in reversed(range(end)):  # one batch at tick end - 1 serves [start, end)
                waiting += arrivals[start] * (end - 1 - start)
                best = min(best, least[start] + waiting + 5 * any(arrivals[start:end]))
            least.append(best)
        return Bound(least[-1], is_exact=True)

    def _arrivals(self, workload, seed):
        return rng_of(f"{self.name}.arrivals", workload.name, seed).poisson(0.6, size=100).tolist()


if __name__ == "__main__":
    results = study(BatchingStudy(), policies=["RunAtOnce", WaitForBatch(2), WaitForBatch(4), WaitForBatch(8)])
    print(results.table())
    print(results.report(Path("reports") / "batching.html"))
