"""Order a batch of bank transactions, see what the order is worth under three ways of waiting, and let policies compete."""

import numpy as np

from cloudchamber import study
from cloudchamber.core.results import Table
from cloudchamber.transactions import SMF, BatchSpec, batch_of, lower_bound, makespan

rng = np.random.default_rng(0)
transfers = [rng.choice(12, 2, replace=False, p=np.array([0.3, 0.2, *[0.05] * 10])) for _ in range(60)]
batch = batch_of(f"r-{a} r-{b} w-{a} w-{b} *" for a, b in transfers)

rows = []
for model in ("mv", "2pl", "occ"):
    policy = SMF(k=10)
    policy.reset(BatchSpec(budget=10_000, model=model), np.random.default_rng(0))
    arrival, ordered = makespan(batch, range(60), model), makespan(batch, policy.order(batch), model)
    rows.append((model, str(arrival), str(ordered), str(lower_bound(batch, model))))
print(Table(("model", "arrival order", "SMF", "no order below"), tuple(rows)), end="\n\n")

print(study("transactions", ["LocalSearch", "SMFAll", "SMF", "FIFO", "Random"], ["tpcc", "smallbank"], seeds=2).table())
