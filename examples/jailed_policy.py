"""Three strangers' policies in the jail: one honest, one that reaches for the score, one that never answers."""

from cloudchamber.core.errors import CandidateError, JailUnavailable
from cloudchamber.core.parallel import one_trial
from cloudchamber.core.results import Table
from cloudchamber.jail import Limits
from cloudchamber.jail.files import JailedPolicy
from cloudchamber.spot import SpotStudy

POLICY = """
from cloudchamber.spot import Decision, Launch
class Stranger:
    def reset(self, spec, rng):
        pass
    def decide(self, obs):
        {}
        return Decision((Launch(0, "spot"), Launch(0, "on_demand")), until_s=None)
"""
STRANGERS = {
    "honest": "pass",
    "reaches for the score": "import cloudchamber.spot.simulator",
    "reads your keys": "open('/root/.ssh/id_rsa')",
    "calls home": "__import__('socket').create_connection(('example.org', 80))",
    "never answers": "while True: pass",
}

study, rows = SpotStudy(), []
for name, line in STRANGERS.items():
    try:
        policy = JailedPolicy(study, POLICY.format(line), limits=Limits(call_s=1))
        outcome = one_trial(study, policy, study.workloads()["smoke"], seed=0)
        rows.append(
            (name, policy.level, "" if outcome.is_void else f"{outcome.metrics['cost_usd']:.2f}", "; ".join(outcome.violations)[:80])
        )
    except (JailUnavailable, CandidateError) as error:
        rows.append((name, "none", "", str(error)[:80]))
print(Table(("stranger", "jail", "cost_usd", "void because"), tuple(rows)))
