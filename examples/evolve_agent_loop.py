"""An agent's loop by hand: ask for a task, change the parent's source, tell it. Put a model of your own where ``improved`` is."""

from cloudchamber.evolve import Budget, Search, Settings


def improved(source: str, turn: int) -> str:
    """What a model would do: here, another order of the models."""
    orders = ("m.rate / m.slo_s", "m.size_gb", "m.rate * m.size_gb")
    return source.replace("reverse=True", f"reverse=bool({turn % 2})") + f"\n# tried instead: {orders[turn % 3]}\nTURN = {turn}\n"


settings = Settings(start="PrismGreedy", workloads=("smoke",), trials=(2, 1, 2), seed=1)
with Search("placement", settings, budget=Budget(evaluations=3)) as search:
    print(f"{'task':<12} {'parent':>6} {'status':<10} {'score':>8}  reason")
    for turn in range(3):
        task = search.ask()[0]
        parent = search.store.candidate(task.parents[0])
        verdict = search.tell(task.id, improved(parent.source, turn), note=f"turn {turn}")
        score = "" if verdict.score is None else f"{verdict.score:.4f}"
        print(f"{task.id:<12} {parent.number:>6} {verdict.status:<10} {score:>8}  {verdict.reason[:60]}")
    print(f"best: candidate {search.best().number}, {search.best().score:.4f}")
