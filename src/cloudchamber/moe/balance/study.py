"""The study ``moe.balance``: every known balancer, the floor and a bound, on generated loads or a recorded history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloudchamber.core.outcome import Bound, Metric, Outcome
from cloudchamber.core.study import Figure, Study, rng_of

from .claims import CLAIMS
from .model import BalancePolicy

if TYPE_CHECKING:
    from cloudchamber.core.results import Results

    from .simulator import Run, Simulator
    from .workloads import BalanceWorkload


class BalanceStudy(Study):
    """How often each expert of a mixture-of-experts model is replicated, and on which GPU each replica lies (``moe.balance``)."""

    name = "moe.balance"
    title = "Expert-parallel load balancing"
    systems = ("EPLB", "vLLM", "SGLang")
    papers = (
        "DeepSeek-V3 Technical Report (EPLB)",
        "Barbarians at the Gate: How AI is Upending Systems Research",
        "ADRS: AI-Driven Research for Systems",
    )
    protocol = BalancePolicy
    metrics = (
        Metric("balancedness", "1", "max", high=1 + 1e-9),
        Metric("moved_gb", "GB"),
        Metric("plan_s", "s", is_timed=True),
        Metric("total_s", "s"),
        Metric("step_ms", "ms"),
        Metric("move_s", "s"),
        Metric("slot_balancedness", "1", "max", high=1 + 1e-9),
        Metric("idle_replicas", "1"),
        Metric("plans", "1"),
    )
    floor = ("Static", "RandomPlan")
    claims = CLAIMS
    notes = (
        "Balancedness: sum over layers and windows of the mean device load over that of the largest, each window served with a plan "
        "made from those before it.",
        "total_s is all steps and all moves of weights; plan_s, by the world's clock, is the policy's mean time per plan and enters "
        "nothing else. The first plan is loaded, not moved.",
        "ExactILP is exact on layers of up to 16 experts; larger ones get LocalSearch's plan. The bound knows the next window.",
    )

    def policies(self) -> Mapping[str, Callable[[], Any]]:
        """The built-in policies; ``GreedyEPLB`` is hierarchical where the nodes divide the groups, ``GreedyEPLB-global`` never."""
        from . import ExactILP, GreedyEPLB, Incremental, LocalSearch, LPTHeap, RandomPlan, Static, Zigzag

        return {
            "GreedyEPLB": GreedyEPLB,
            "GreedyEPLB-global": partial(GreedyEPLB, "global"),
            "LPTHeap": LPTHeap,
            "Zigzag": Zigzag,
            "LocalSearch": LocalSearch,
            "Incremental": Incremental,
            "ExactILP": ExactILP,
            "Static": Static,
            "RandomPlan": RandomPlan,
        }

    def workloads(self) -> Mapping[str, BalanceWorkload]:
        """The named workloads."""
        from .workloads import named_workloads

        return named_workloads()

    def workload(self, trace: Path, **params: Any) -> BalanceWorkload:
        """Return the workload of a user's load history (JSON, as vLLM records it)."""
        from .workloads import user_workload

        return user_workload(trace, params)

    def adjusted(self, workload: Any, **params: Any) -> BalanceWorkload:
        """Return a workload with parameters changed."""
        from .workloads import adjusted

        return adjusted(workload, params)

    def trial(self, policy: Any, workload: Any, seed: int) -> Outcome:
        """Serve one history with the plans of a policy."""
        world = workload.world(seed).simulator
        run = world.run(policy, rng_of(self.name, workload.name, seed))
        return _outcome(run, world)

    def bound(self, workload: Any, seed: int) -> Bound:
        """The exact optimum of small layers (and the plans that attain it), else a bound that no plan can beat."""
        world = workload.world(seed)
        best = world.optimum
        return Bound(world.bound, best is not None, _outcome(best, world.simulator) if best is not None else None)

    def figures(self, results: Results) -> Sequence[Figure]:
        """Device loads window by window, and balance against moved weights."""
        from .figures import figures

        return figures(results)


def _outcome(run: Run, world: Simulator) -> Outcome:
    from .simulator import audit
    from .workloads import balancedness

    spec = world.spec
    mean, top = run.device_load.mean(axis=2), run.device_load.max(axis=2)
    tokens = run.device_load.sum(axis=2)
    different = {id(plan): plan for plan in run.plans}.values()
    idle = {id(plan): spec.layers * spec.slots - int(plan.held(spec).sum()) for plan in different}
    moved_gb = float(run.sent.sum()) * spec.expert_mb / 1000
    total_s = float(run.step_s.sum()) * spec.steps + float(run.move_s.sum())
    metrics = {
        "balancedness": balancedness(mean, top),
        "moved_gb": moved_gb,
        "plan_s": run.plan_s / max(run.asked, 1),
        "total_s": total_s,
        "step_ms": float(run.step_s.mean()) * 1000,
        "move_s": float(run.move_s.sum()),
        "slot_balancedness": balancedness(tokens / spec.slots, run.slot_top),
        "idle_replicas": float(np.mean([idle[id(plan)] for plan in run.plans])),
        "plans": float(run.asked),
    }
    shown = int(np.argmax(world.history.max(axis=2).sum(axis=0)))  # the layer with the hottest experts, whatever the policy
    series = {
        "device_load": run.device_load[:, shown].astype(np.float32),
        "balancedness": np.divide(mean.sum(axis=1), top.sum(axis=1), out=np.ones(len(mean)), where=top.sum(axis=1) > 0).astype(np.float32),
        "sent": run.sent.astype(np.int64),
    }
    return Outcome(metrics, audit(run, world), series, _feedback(run, world, metrics))


def _feedback(run: Run, world: Simulator, metrics: Mapping[str, float]) -> str:
    """The objective, and what limited it: the worst layer and window, one expert too hot, or the change between windows."""
    spec = world.spec
    mean, top = run.device_load.mean(axis=2), run.device_load.max(axis=2)
    window, layer = (int(i) for i in np.unravel_index(np.argmax(top / np.maximum(mean, 1e-12)), top.shape))
    ratio = top[window, layer] / max(mean[window, layer], 1e-12)
    largest_slot = run.slot_top[window, layer] / max(mean[window, layer], 1e-12)
    seen = run.plans[window].device_load(world.history[window], spec)[layer]
    then = float(seen.max() / max(seen.mean(), 1e-12))
    return (
        f"balancedness {metrics['balancedness']:.4f}, moved {metrics['moved_gb']:.1f} GB in {metrics['plans']:.0f} plans, "
        f"steps and moves {metrics['total_s']:.1f} s. Worst: layer {layer} in window {window + 1}, where the hottest device carried "
        f"{ratio:.2f} of the mean (its largest single slot {largest_slot:.2f}) and {then:.2f} in the window before."
    )
