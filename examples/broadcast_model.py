"""Copy a model to several regions: the published baseline, a rule of one's own, and the search."""

from cloudchamber import study
from cloudchamber.broadcast import Broadcast, Job


class CheapChain:
    """From region to region, always over the cheapest link to one that has nothing yet."""

    def reset(self, spec, rng) -> None:
        self.spec = spec

    def plan(self, job: Job) -> Broadcast:
        here, left, chain = job.source, list(job.destinations), []
        while left:
            there = min(left, key=lambda region: self.spec.price_usd_gb[here, region])
            chain.append((here, there))
            left.remove(there)
            here = there
        return Broadcast((tuple(chain),) * job.partitions)


if __name__ == "__main__":
    print(study("broadcast", policies=["DijkstraPaths", CheapChain, "DreyfusWagner", "TreeSearch"], workloads=["smoke"], seeds=12).table())
