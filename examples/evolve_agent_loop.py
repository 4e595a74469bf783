"""An agent's loop by hand: ask for a task, change the parent's source, tell it. Put a model of your own where ``improved`` is."""

from cloudchamber.evolve import Budget, Search, Settings, judge

IDEAS = ("size_gb", "rate * size_gb / slo", "rate / slo + 0.05 * size_gb")


def improved(source: str, turn: int) -> str:
    """What a model would do: here, another order in which models are placed."""
    return source.replace("return rate / slo", f"return {IDEAS[turn]}")


settings = Settings(start="PrismGreedy", workloads=("smoke",), trials=(3, 2, 12), seed=1)
with Search("placement", settings, budget=Budget(evaluations=3)) as search:
    start = search.starts[0]
    print(f"{'':<32} {'status':<10} {'training score':>14}")
    print(f"{'the start: rate / slo':<32} {start.status:<10} {start.score:>14.4f}")
    for turn, idea in enumerate(IDEAS):
        task = search.ask()[0]
        verdict = search.tell(task.id, improved(start.source, turn), note=f"order by {idea}")
        score = "" if verdict.score is None else f"{verdict.score:.4f}"
        print(f"{idea:<32} {verdict.status:<10} {score:>14}  {verdict.reason}")
    print(f"best: candidate {search.best().number}; held out, {judge(search)[0]}")
