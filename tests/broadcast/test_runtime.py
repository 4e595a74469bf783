from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from cloudchamber.broadcast import Broadcast, BroadcastStudy, DirectStar, Job, TreeSearch
from cloudchamber.broadcast import runtime as real
from cloudchamber.broadcast.node import TokenBucket, digests
from cloudchamber.broadcast.runtime import BroadcastFailed, relay
from cloudchamber.core.errors import CandidateError, InputError

from .worlds import spec

PRICE = [[0, 0.1, 0.2], [0.1, 0, 0.05], [0.1, 0.1, 0]]
NETWORK = spec(PRICE, shared=True)
JOB = Job(0, (1, 2), 100.0, 3)


def in_small(policy, network=NETWORK, job=JOB):
    return relay(policy, network, job, seconds=0.2, megabytes=0.2)


def test_every_byte_arrives_and_takes_about_as_long_as_predicted():
    done = in_small(TreeSearch())
    assert (done.regions, done.links, done.bytes_sent) == (3, 2, 2 * 3 * 66_667)
    assert done.measured_s > 0.1  # caps hold; no upper limit, since the machine may be busy


def test_partitions_may_take_trees_of_their_own():
    class Two:
        def reset(self, spec, rng): ...

        def plan(self, job):
            return Broadcast((((0, 1), (1, 2)), ((0, 2), (2, 1)), ((0, 1), (0, 2))))

    assert in_small(Two()).links == 4


def test_a_link_that_is_not_shared_is_refused():
    with pytest.raises(InputError, match="shared=true"):
        in_small(DirectStar(), spec(PRICE))


def test_wrong_scales_and_plans_are_refused():
    with pytest.raises(InputError, match="megabytes above 0"):
        relay(DirectStar(), NETWORK, JOB, megabytes=0)

    class Nothing:
        def reset(self, spec, rng): ...

        def plan(self, job):
            return Broadcast(((),) * job.partitions)

    class Raises(Nothing):
        def plan(self, job):
            raise ValueError("no idea")

    with pytest.raises(InputError, match="does not get the data"):
        in_small(Nothing())
    with pytest.raises(CandidateError, match="no idea"):
        in_small(Raises())


def test_a_region_that_dies_ends_the_run_with_its_name(monkeypatch):
    started, nodes = real._started, []

    def recorded(errors):
        nodes.append(started(errors))
        if len(nodes) == 2:
            threading.Timer(0.3, nodes[1].kill).start()
        return nodes[-1]

    monkeypatch.setattr(real, "_started", recorded)
    with pytest.raises(BroadcastFailed, match="aws:r1 ended early"):
        relay(TreeSearch(), NETWORK, JOB, seconds=30.0, megabytes=1.0)
    assert all(node.poll() is not None for node in nodes)  # nobody is left behind


def test_bytes_that_differ_are_found(monkeypatch):
    monkeypatch.setattr(real, "digests", lambda *args: [*digests(*args)[:-1], "other"])
    with pytest.raises(BroadcastFailed, match="other bytes"):
        in_small(TreeSearch())


def test_bucket_spreads_bytes_over_time(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    bucket = TokenBucket(1000.0, burst_s=0.0)
    for _ in range(10):
        bucket.take(100)
    assert clock[0] == pytest.approx(101.0)


@pytest.mark.slow
def test_command_writes_a_row():
    command = [sys.executable, "-m", "cloudchamber", "run", "broadcast", "--seconds", "0.2", "--megabytes", "0.1", "--json"]
    row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (row["study"], row["policy"], row["evidence"], row["generated"]) == ("broadcast", "TreeSearch", "measured", True)
    assert set(row) > {"predicted_s", "measured_s", "ratio"} and row["workload"].startswith("smoke")


def test_study_without_the_runtime_needs_none_of_it():
    code = "import sys; import cloudchamber.broadcast.study; print('cloudchamber.broadcast.runtime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
    assert BroadcastStudy().name == "broadcast"
