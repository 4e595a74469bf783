"""A scheduler in a process of its own, so that a test can kill it: ``tests.spot.scheduler FOLDER ENDPOINT TICK_REAL_S COMMAND...``"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cloudchamber.spot.policies.greedy import GreedyMulti
from cloudchamber.spot.runtime import SpotRunner

from .running import cloud_of, market_of, spec_of

ZONES = ("########................" * 40, "........########........" * 40, "................########" * 40)


def main(folder: Path, endpoint_url: str | None, tick_real_s: float, command: tuple[str, ...]) -> None:
    market = market_of(*ZONES)
    spec = spec_of(market, 150, 900)
    with cloud_of(market, spec, command, folder / "cloud", tick_real_s=tick_real_s, endpoint_url=endpoint_url) as cloud:
        print("up", flush=True)
        result = SpotRunner(GreedyMulti(), cloud, spec, folder).run()
    print(json.dumps(result.to_dict()), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] or None, float(sys.argv[3]), tuple(sys.argv[4:]))
