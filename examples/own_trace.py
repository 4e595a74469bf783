"""Study every policy on a trace of one's own: write it as ZONE.json files, then run `chamber study`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

folder = Path(tempfile.mkdtemp()) / "mytrace"
folder.mkdir()
rng = np.random.default_rng(0)
for zone, price in (("us-east-1a", 0.9), ("us-east-1b", 1.1), ("eu-west-1a", 1.0)):
    up = np.repeat(rng.random(150) < 0.7, 4)  # 600 samples of 10 minutes
    content = {"metadata": {"gap_seconds": 600, "on_demand_usd_h": 3.06}, "data": up.astype(int).tolist(), "prices": [price] * len(up)}
    (folder / f"{zone}.json").write_text(json.dumps(content))

command = [
    sys.executable,
    "-m",
    "cloudchamber",
    "study",
    "spot",
    "--trace",
    str(folder),
    "--set",
    "polarity=available",
    "--set",
    "work_h=20",
    "--set",
    "deadline_ratio=1.5",
    "--seeds",
    "4",
    "--policy",
    f"{Path(__file__).parent / 'my_policy.py'}:CheapestZone",
    "--policy",
    "SkyNomad",
    "--policy",
    "UniformProgressSwitch",
    "--policy",
    "OnDemandOnly",
    "--report",
    "reports/own_trace.html",
]
subprocess.run(command, check=True)
