"""A real torch job on a spot market in half a minute: more than ten preemptions, and bit for bit the weights of an undisturbed run.

Three zones take turns in having capacity. The job runs as real processes that get SIGTERM and SIGKILL, its checkpoints lie in
S3 buckets (moto's) and are copied when it moves. ``pip install 'cloudchamber[localcloud]' torch``
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from cloudchamber.spot.clouds.localcloud import LocalCloud, Pace
from cloudchamber.spot.market import Market
from cloudchamber.spot.model import Job, SpotSpec, Zone
from cloudchamber.spot.policies.greedy import GreedyMulti
from cloudchamber.spot.runtime import SpotRunner

TICK_S, TICKS, STEPS = 60.0, 900, 350
TRAIN = (sys.executable, str(Path(__file__).with_name("spot_train.py")), "--steps", str(STEPS), "--pause", "0.01")


def turns() -> Market:
    """Zones that have capacity in turns: mostly for minutes, too short for torch to start, now and then for longer; at last one stays.

    The first long turn is too short for the whole job and the second one comes after ten preemptions, however fast the machine.
    """
    available, tick = np.zeros((TICKS, 3), dtype=bool), 0
    for turn, length in enumerate((3, 3, 60, *(3,) * 10, 60, 3, 60, 3, 3, TICKS)):
        available[tick : tick + length, turn % 3] = True
        tick += length
    zones = tuple(Zone(name, region, 3.0) for name, region in (("east-a", "east"), ("west-a", "west"), ("north-a", "north")))
    return Market(zones, TICK_S, available, np.full((TICKS, 3), (0.1, 0.11, 0.12)), 0.02 * (1 - np.eye(3)))


def main() -> None:
    market = turns()
    job = Job(work_s=120 * TICK_S, deadline_s=TICKS * TICK_S, cold_start_s=2 * TICK_S, checkpoint_gb=1.0)
    spec = SpotSpec(job, market.zones, market.egress_usd_gb * job.checkpoint_gb, TICK_S, 60.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "pyc")  # so that torch is compiled once even where its folder is read-only
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        (folder / "alone").mkdir()
        alone = subprocess.Popen(TRAIN, env={**os.environ, "CHAMBER_CHECKPOINT_DIR": str(folder / "alone")})
        with LocalCloud(market, spec, TRAIN, folder / "run" / "cloud", pace=Pace(speedup=1000)) as cloud:
            result = SpotRunner(GreedyMulti(), cloud, spec, folder / "run", margin_s=TICK_S).run()
        alone.wait()
        for key, value in result.to_dict().items():
            print(f"{key:<18}{value}")
        hashes = [(each / "weights.sha256").read_text() for each in (folder / "alone", folder / "run" / "result")]
    if hashes[0] != hashes[1] or result.preemptions < 10 or not result.spent_usd["egress_usd"]:
        sys.exit(f"not the same weights, or too quiet a market: {hashes}, {result.preemptions} preemptions, {result.spent_usd}")
    print(f"same weights after {result.preemptions} preemptions: {hashes[0][:16]}…")


if __name__ == "__main__":
    main()
