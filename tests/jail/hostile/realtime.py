# expect: harmless
"""Takes the processor from everyone else."""
import os

from tests.jail.play import Guess


def attack():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    return "taken"


class Hostile:
    def reset(self, rng):
        pass

    def guess(self, clue):
        try:
            met = f"got: {attack()}"
        except Exception as error:
            met = f"stopped: {error!r}"
        return Guess(0.0, text=met[:500])
