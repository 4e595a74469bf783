"""The local cloud: journal, checkpoints, instances that live and die by the market, and what it bills."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from cloudchamber.core.errors import InputError, MissingExtra
from cloudchamber.core.messages import decode
from cloudchamber.spot.cloud import CloudError, CloudStatus
from cloudchamber.spot.clouds.agent import Agent
from cloudchamber.spot.clouds.checkpoint import CheckpointError, read_progress
from cloudchamber.spot.clouds.checkpoints import CheckpointStore
from cloudchamber.spot.clouds.instances import World
from cloudchamber.spot.clouds.journal import Journal, read_journal
from cloudchamber.spot.clouds.localcloud import LocalCloud, Pace, bill

from .running import FaultyS3, cloud_of, market_of, processes_of, spec_of, walking


@pytest.fixture
def store(healthy: FaultyS3, request):
    made = CheckpointStore(("a", "a", "b"), f"test-{request.node.name}", healthy.url)
    made.create()
    return made


def folder_with(path: Path, text: str, progress: float = 0.5) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "weights").write_text(text)
    (path / "progress").write_text(str(progress))
    return path


def advance(cloud: LocalCloud, tick: int) -> CloudStatus:
    status = cloud.status()
    while status.time_s < tick * 60 - 1e-6:
        status = cloud.wait(tick * 60.0)
    return status


def until(cloud: LocalCloud, is_so, limit: int = 500) -> CloudStatus:
    status = cloud.status()
    for tick in range(round(status.time_s / 60) + 1, limit):
        if is_so(status):
            return status
        status = advance(cloud, tick)
    raise AssertionError(f"did not happen in {limit} ticks: {status}")


# -- journal -----------------------------------------------------------------------------------------------------------


def test_a_torn_last_line_is_cut_off_and_counted(tmp_path):
    Journal(tmp_path / "log").append(kind="launch", instance=1)
    with (tmp_path / "log").open("ab") as file:
        file.write(b'{"kind": "end", "inst')
    assert read_journal(tmp_path / "log") == [{"kind": "launch", "instance": 1}]
    again = Journal(tmp_path / "log")
    again.append(kind="end", instance=1)
    assert again.torn_lines == 1
    assert [each["kind"] for each in Journal(tmp_path / "log").records] == ["launch", "end"]


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    (tmp_path / "log").write_text("hello\nworld\n")
    with pytest.raises(InputError, match="line 1"):
        Journal(tmp_path / "log")


def test_a_journal_on_a_full_disk_stays_whole(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "log")
    journal.append(kind="launch")
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    with pytest.raises(OSError, match="free some disk space"):
        journal.append(kind="end")
    monkeypatch.undo()
    assert [each["kind"] for each in Journal(tmp_path / "log").records] == ["launch"]


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_byte_for_byte(store, tmp_path):
    source = folder_with(tmp_path / "x", "w1")
    (source / "deep").mkdir()
    (source / "deep" / "optimizer").write_bytes(bytes(range(256)))
    done = store.upload(source, 0, "000001-000001")
    assert (store.newest(), done.progress) == (done, 0.5)
    store.download(done, tmp_path / "y")
    assert (tmp_path / "y" / "deep" / "optimizer").read_bytes() == bytes(range(256))


def test_a_torn_upload_does_not_count(store, tmp_path):
    first = store.upload(folder_with(tmp_path / "x", "old"), 0, "000001-000001")
    answers = iter([True, False, False])
    with pytest.raises(CheckpointError, match="died while uploading"):
        store.upload(folder_with(tmp_path / "x", "new"), 0, "000001-000002", lambda: next(answers))
    assert store.newest() == first


def test_an_s3_fault_keeps_the_old_checkpoint(store, healthy, tmp_path):
    first = store.upload(folder_with(tmp_path / "x", "old"), 0, "000001-000001")
    healthy.fail = ("PUT",)
    with pytest.raises(CheckpointError, match="failed"):
        store.upload(folder_with(tmp_path / "x", "new"), 0, "000001-000002")
    with pytest.raises(CheckpointError, match="failed"):
        store.copy(first, 2)
    healthy.fail = ()
    assert store.newest() == first


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_counts(store, tmp_path):
    first = store.upload(folder_with(tmp_path / "x", "old"), 0, "000001-000001")
    second = store.upload(folder_with(tmp_path / "x", "new"), 0, "000001-000002")
    store.client.put_object(Bucket=store.buckets[0], Key="checkpoints/000001-000002/files/weights", Body=b"nex")
    with pytest.raises(CheckpointError, match="not what was uploaded"):
        store.download(second, tmp_path / "y")
    assert store.newest() == first


def test_a_checkpoint_moves_with_a_copy_and_is_not_sent_where_it_is(store, tmp_path):
    first = store.upload(folder_with(tmp_path / "x", "old"), 1, "000001-000001")
    assert store.holds(first, 0)
    assert not store.holds(first, 2)
    moved = store.copy(first, 2)
    assert (store.newest(), moved.zone) == (moved, 2)
    assert store.holds(moved, 0)
    back = store.copy(moved, 0)
    assert (store.newest(), back.zone) == (back, 0)


def test_only_the_newest_two_versions_of_a_region_are_kept(store, tmp_path):
    for number in range(1, 5):
        store.upload(folder_with(tmp_path / "x", str(number)), 0, f"000001-{number:06d}")
    keys = [each["Key"] for each in store.client.list_objects_v2(Bucket=store.buckets[0])["Contents"]]
    assert sorted({key.split("/")[1] for key in keys}) == ["000001-000003", "000001-000004"]


def test_a_full_disk_keeps_the_old_checkpoint(store, tmp_path, monkeypatch):
    seen = []
    agent = Agent(store, 0, 1, walking(1000), tmp_path, upload_every_s=1e9, grace_s=5, saw=seen.append)
    assert agent.prepare(None)
    agent.spawn({})
    folder_with(agent.checkpoint_dir, "old")
    assert agent._upload()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", full)
        folder_with(agent.checkpoint_dir, "new")
        assert not agent._upload()
    assert [type(each) for each in seen] == [type(store.newest()), OSError]
    assert store.newest() == seen[0]
    agent.shut_down()
    assert len(seen) == 3  # once there is room again the last upload goes through


@pytest.mark.parametrize("text", ["half", "1.5", "nan", "-1"])
def test_progress_must_be_a_share(tmp_path, text):
    (tmp_path / "progress").write_text(text)
    with pytest.raises(InputError, match="from 0 to 1"):
        read_progress(tmp_path)


# -- instances ---------------------------------------------------------------------------------------------------------


def test_a_spot_instance_dies_with_its_zone_and_leaves_its_last_checkpoint(tmp_path, healthy):
    market = market_of("#" * 150 + "." * 30)  # three seconds, enough for an interpreter to start on a busy machine
    with cloud_of(market, spec_of(market, 10, 180), walking(100_000), tmp_path, endpoint_url=healthy.url) as cloud:
        number = cloud.launch(0, "spot")
        cloud.start(number)
        status = advance(cloud, 150)
        assert [(each.state, each.ended_s) for each in status.instances] == [("preempted", 9000.0)]
        assert status.location == 0
        assert cloud.launch(0, "spot") is None
        assert cloud.launch(0, "on_demand") == 2
        assert cloud.ledger()["spot_usd"] == pytest.approx(150 / 60)
    assert processes_of(str(tmp_path)) == []


def test_a_job_deaf_to_sigterm_is_killed_and_keeps_what_was_uploaded(tmp_path, healthy):
    market = market_of("#" * 20 + "." * 300)
    with cloud_of(
        market, spec_of(market, 10, 30, cold=0), walking(100_000, 0.01, "stubborn"), tmp_path, grace_s=0.3, endpoint_url=healthy.url
    ) as cloud:
        cloud.start(cloud.launch(0, "spot"))
        before = until(cloud, lambda status: status.progress > 0)
        status = advance(cloud, 20)
        assert status.instances[0].state == "preempted"
        assert status.progress >= before.progress
        assert cloud.faults()["TimeoutExpired"] == 1
    assert processes_of(str(tmp_path)) == []


def test_a_preemption_in_the_cold_start_never_starts_the_job(tmp_path, healthy):
    market = market_of("##" + "." * 30)
    with cloud_of(market, spec_of(market, 10, 30, cold=5), walking(100), tmp_path, endpoint_url=healthy.url) as cloud:
        cloud.start(cloud.launch(0, "spot"))
        status = advance(cloud, 8)
        assert (status.instances[0].state, status.location, cloud.ledger()["spot_usd"]) == ("preempted", None, pytest.approx(2 / 60))
        assert not (tmp_path / "instances" / "000001" / "log").exists()


def test_a_preemption_during_a_copy_leaves_one_location(tmp_path, healthy):
    market = market_of("#" * 400, "#" * 15 + "." * 385)
    with cloud_of(market, spec_of(market, 10, 30, cold=12), walking(100_000), tmp_path, endpoint_url=healthy.url) as cloud:
        store = CheckpointStore(cloud.world.regions, "chamber-" + run_of(cloud), healthy.url)
        store.upload(folder_with(tmp_path / "seed", "w"), 0, "000000-000001")
    with cloud_of(market, spec_of(market, 10, 30, cold=12), walking(100_000), tmp_path, endpoint_url=healthy.url) as cloud:
        status = advance(cloud, 5)
        assert status.location == 0
        healthy.slow, healthy.delay_s = "x-amz-copy-source", 0.5
        number = cloud.launch(1, "spot")
        cloud.copy(1)
        status = advance(cloud, 15)
        assert healthy.delayed.is_set()
        assert (status.instances[-1].number, status.instances[-1].state) == (number, "preempted")
        assert status.location == 0
        until(cloud, lambda each: each.location == 1)
        assert cloud.ledger()["egress_usd"] == pytest.approx(0.5)
        cloud.copy(0)
        until(cloud, lambda each: each.location == 0)
        assert cloud.ledger()["egress_usd"] == pytest.approx(0.5), "what lies there already is not paid for again"


def test_uploads_that_fail_are_counted_and_the_job_goes_on(tmp_path, healthy):
    market = market_of("#" * 2000)
    with cloud_of(market, spec_of(market, 10, 2000), walking(100, 0.01), tmp_path, endpoint_url=healthy.url) as cloud:
        cloud.start(cloud.launch(0, "spot"))
        before = until(cloud, lambda status: status.progress > 0)
        healthy.fail = ("PUT",)
        until(cloud, lambda _: cloud.faults().get("CheckpointError", 0) >= 1)
        during = cloud.status()
        assert before.progress <= during.progress < 1
        healthy.fail = ()
        until(cloud, lambda status: status.instances[0].state == "done", limit=2000)
        assert cloud.status().progress == 1


def test_a_command_that_does_not_exist_fails_the_instance(tmp_path, healthy):
    market = market_of("#" * 30)
    with cloud_of(market, spec_of(market, 10, 30), ("no-such-program",), tmp_path, endpoint_url=healthy.url) as cloud:
        cloud.start(cloud.launch(0, "spot"))
        status = until(cloud, lambda each: each.instances[0].state == "failed")
        assert status.instances[0].exit_status == 127
        assert cloud.faults() == {"FileNotFoundError": 1}


# -- the cloud ---------------------------------------------------------------------------------------------------------


def test_a_closed_cloud_goes_on_with_its_clock_bill_and_checkpoint(tmp_path):
    market = market_of("#" * 60)
    arguments = (market, spec_of(market, 10, 60, cold=0), walking(100_000), tmp_path)
    with cloud_of(*arguments) as cloud:
        cloud.start(cloud.launch(0, "spot"))
        until(cloud, lambda status: status.progress > 0)
    with cloud_of(*arguments) as cloud:
        after = cloud.status()
        assert (after.instances[0].state, after.location) == ("released", 0)
        assert after.progress > 0
        assert cloud.ledger()["spot_usd"] == pytest.approx(after.instances[0].ended_s / 3600)
        assert cloud.launch(0, "spot") == 2


def test_a_killed_cloud_leaves_no_process_no_open_bill_and_its_checkpoints(tmp_path, healthy):
    market = market_of("#" * 400)
    arguments = (market, spec_of(market, 10, 400, cold=0), walking(100_000), tmp_path)
    cloud = cloud_of(*arguments, endpoint_url=healthy.url)
    cloud.open()
    cloud.start(cloud.launch(0, "spot"))
    before = until(cloud, lambda status: status.progress > 0)
    os.kill(cloud._process.pid, signal.SIGKILL)
    cloud._process.wait()
    with pytest.raises(CloudError, match="is gone"):
        cloud.status()
    assert processes_of(str(tmp_path)), "the job runs on, which the next cloud must end"
    with cloud_of(*arguments, endpoint_url=healthy.url) as again:
        after = again.status()
        assert (after.instances[0].state, after.time_s) == ("released", before.time_s)
        assert after.progress >= before.progress
        assert again.ledger()["spot_usd"] == pytest.approx((before.time_s / 60 + 1) / 60), "the tick it died in is billed"
    assert processes_of(str(tmp_path)) == []


def test_a_folder_is_one_clouds_only(tmp_path, healthy):
    market = market_of("#" * 30)
    with cloud_of(market, spec_of(market, 10, 30), walking(5), tmp_path, endpoint_url=healthy.url):
        pass
    with pytest.raises(InputError, match="another job or market"):
        cloud_of(market, spec_of(market, 10, 30), walking(6), tmp_path).open()


def test_a_wrong_verb_says_what_is_wrong(tmp_path, healthy):
    market = market_of("#" * 30)
    with cloud_of(market, spec_of(market, 10, 30), walking(5), tmp_path, endpoint_url=healthy.url) as cloud:
        with pytest.raises(CloudError, match="no instance 7 is up; there are none"):
            cloud.terminate(7)
        assert cloud.status().time_s == 0
    with pytest.raises(CloudError, match="not open"):
        cloud.status()


def test_a_cloud_that_does_not_come_up_says_why(tmp_path):
    market = market_of("#" * 30)
    with pytest.raises(CloudError, match="did not come up"):
        cloud_of(market, spec_of(market, 10, 30), walking(5), tmp_path, endpoint_url="http://127.0.0.1:1").open()


def test_bill_by_hand():
    market = market_of("#" * 10, "#" * 10, usd_h=(60.0, 120.0))
    records = [
        {"kind": "launch", "instance": 1, "zone": 0, "mode": "spot", "tick": 1},
        {"kind": "end", "instance": 1, "tick": 4},  # 3 x $1
        {"kind": "launch", "instance": 2, "zone": 1, "mode": "on_demand", "tick": 5},  # up to now, 4 x $10/60
        {"kind": "launch", "instance": 3, "zone": 1, "mode": "spot", "tick": 4},
        {"kind": "end", "instance": 3, "tick": 4},  # a started tick: $2
        {"kind": "egress", "source": 0, "target": 1},
        {"kind": "probe", "zone": 0, "tick": 2},
    ]
    spent = bill(records, market, spec_of(market, 5, 10), tick=9)
    assert spent == pytest.approx({"spot_usd": 5.0, "on_demand_usd": 40 / 60, "egress_usd": 0.5, "probe_usd": 1.0})


@pytest.mark.parametrize("name", ["speedup", "grace_s", "linger_s"])
def test_pace_must_be_positive(name):
    with pytest.raises(InputError, match=name):
        Pace(**{name: 0.0})


def test_without_boto3_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cloudchamber\[localcloud\]'"):
        CheckpointStore(("a",), "x")


def run_of(cloud: LocalCloud) -> str:
    return decode((cloud.folder / "world").read_bytes(), World).run
