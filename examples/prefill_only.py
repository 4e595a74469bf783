"""Requests for one token: how much looking at the cache again before every dispatch is worth, and how far it is from the best order."""

from cloudchamber import study

if __name__ == "__main__":
    policies = ["CalibratedSJF", "CalibratedSJF(lam=0)", "FrozenSJF", "FCFS", "OracleMeanOrder"]
    print(study("engine.prefillonly", policies=policies, workloads=["tiny"]).table())
