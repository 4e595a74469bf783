"""``kill -9`` of the whole process group at random points: nothing told is lost, nothing is counted twice, the end is the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloudchamber.evolve.store import Store

ROOT = Path(__file__).parents[2]
RUN = """
import sys, warnings
warnings.simplefilter("ignore")
from cloudchamber.evolve import Budget, Search, Settings
from tests.evolve.toy.study import PricingStudy
settings = Settings(start="BySize", trials=(2, 2, 2), seed=5, jail=sys.argv[3])
with Search(PricingStudy(), settings, store=sys.argv[1], budget=Budget(int(sys.argv[2]))) as search:
    print("begun", flush=True)
    search.run()
"""


def start(path, evaluations, level):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(path), str(evaluations), level],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def dump(path):
    store = Store(path, is_reader=True)
    try:
        return store.dump()
    finally:
        store.close()


def told(path):
    """Sources on disk, by number; the file may not be there yet."""
    try:
        store = Store(path, is_reader=True)
    except Exception:
        return {}
    try:
        return {each.number: each.source for each in store.candidates()}
    finally:
        store.close()


def killed_at_random(tmp_path, kills, evaluations, level):
    whole, path = tmp_path / "whole.db", tmp_path / "run.db"
    undisturbed = start(whole, evaluations, level)
    assert undisturbed.wait(600) == 0, undisturbed.stderr.read().decode()
    draw, known = random.Random(1), {}
    for turn in range(kills):
        process = start(path, evaluations, level)
        if turn % 5:  # most kills while it searches, some while it starts
            process.stdout.readline()
        time.sleep(draw.uniform(0, 0.25) if turn % 5 else draw.uniform(0.2, 1.2))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        now = told(path)
        assert now.items() >= known.items(), "a told source was lost or changed"
        known = now
    last = start(path, evaluations, level)
    assert last.wait(600) == 0, last.stderr.read().decode()
    assert dump(path) == dump(whole)


@pytest.mark.parametrize("level", ["none"])
def test_killed_run_ends_as_an_undisturbed_one(tmp_path, level):
    killed_at_random(tmp_path, kills=4, evaluations=120, level=level)


@pytest.mark.slow
def test_killed_at_fifty_random_points(tmp_path):
    killed_at_random(tmp_path, kills=50, evaluations=400, level="none")


@pytest.mark.slow
@pytest.mark.jail
def test_killed_with_jailed_candidates_leaves_no_process(tmp_path):
    killed_at_random(tmp_path, kills=6, evaluations=30, level="namespace")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        orphans = ["pgrep", "-c", "-P", "1", "-f", "cloudchamber.jail.inside"]  # those of other tests at the same time have a parent
        left = subprocess.run(orphans, capture_output=True, text=True, check=False).stdout.strip()
        if left == "0":
            return
        time.sleep(0.2)
    pytest.fail(f"{left} zygotes are left")
