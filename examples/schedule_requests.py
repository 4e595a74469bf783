"""Schedule an LLM server: a policy of one's own against the order of arrival, on drawn conversations."""

from cloudchamber import study
from cloudchamber.core.policy import Policy
from cloudchamber.engine import SchedulerPolicy


class FewestTokensLeft(Policy, SchedulerPolicy):
    """Whoever needs the fewest prompt tokens first, but nobody waits longer than two seconds for it."""

    def order(self, view, waiting):
        late = {r.id for r in waiting if view.now - r.arrival > 2.0}
        return [r.id for r in sorted(waiting, key=lambda r: (r.id not in late, r.n_input - r.n_cached_now, r.arrival))]


if __name__ == "__main__":
    print(study("engine", policies=["FCFS", "LongestPrefixMatch", FewestTokensLeft], workloads=["chat"], seeds=1).table())
