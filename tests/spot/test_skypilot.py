"""SkyPilotCloud against a recorded client: the calls it makes, whether they fit SkyPilot's real signatures, what it makes of the answers.

``skypilot_calls.json`` holds the signatures of SkyPilot 0.14.1 and a recorded scenario. Where an interpreter that has SkyPilot is
named in ``CHAMBER_SKYPILOT_PYTHON``, or SkyPilot is installed, the signatures are compared with the real ones.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from cloudchamber.core.errors import MissingExtra
from cloudchamber.spot.clouds.checkpoints import CheckpointStore
from cloudchamber.spot.clouds.journal import Journal
from cloudchamber.spot.clouds.remote import Plan
from cloudchamber.spot.clouds.skypilot import _JOB_STATES, Machine, SkyPilotCloud
from cloudchamber.spot.policies.greedy import GreedyMulti
from cloudchamber.spot.runtime import SpotRunner

from .running import market_of, spec_of, walking

RECORD = json.loads(Path(__file__).with_name("skypilot_calls.json").read_text())
ERRORS = ("ResourcesUnavailableError", "ClusterDoesNotExist", "ClusterNotUpError")


class RecordedSky:
    """Stands where the module ``sky`` would: answers from the record, and binds every call to the real signature."""

    def __init__(self, answers: list[list]) -> None:
        self.answers, self.calls = list(answers), []
        self.exceptions = SimpleNamespace(**{name: type(name, (Exception,), {}) for name in ERRORS})
        self.StatusRefreshMode = SimpleNamespace(FORCE="FORCE")

    def __getattr__(self, name: str):
        if name not in RECORD["signatures"]:
            raise AttributeError(f"SkyPilot's recorded interface has no {name!r}")

        def call(*args, **kwargs):
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            parameters = [inspect.Parameter(each, kind, default=None) for each in RECORD["signatures"][name]]
            bound = inspect.Signature(parameters).bind(*args, **kwargs).arguments
            if name in ("Task", "Resources"):
                made = SimpleNamespace(kind=name, **bound)
                made.set_resources = lambda resources: setattr(made, "resources", resources)
                return made
            if name == "get":
                return self._answer(bound["request_id"])
            self.calls.append((name, bound))
            return name

        return call

    def _answer(self, verb: str):
        expected, answer = self.answers.pop(0)
        assert verb == expected, f"SkyPilot was asked to {verb}, the record goes on with {expected}"
        if isinstance(answer, str):
            raise getattr(self.exceptions, answer)(answer)
        if verb == "status":
            return [SimpleNamespace(name=self.name(number), status=SimpleNamespace(name=state)) for number, state in answer]
        if verb == "job_status":
            return {1: SimpleNamespace(name=answer[0])}
        return answer

    def name(self, number: int) -> str:
        return f"chamber-{self.run}-{number}"


@pytest.fixture
def made(tmp_path, healthy):
    def make(answers):
        market = market_of("#" * 10, "#" * 10)
        sky = RecordedSky(answers)
        store = CheckpointStore(tuple(zone.region for zone in market.zones), "sky-" + tmp_path.name, healthy.url)
        machine = Machine("aws", {"accelerators": "V100:1"}, setup="true", grace_s=0.2, idle_minutes=30)
        cloud = SkyPilotCloud(
            spec_of(market, 5, 10), ("python", "train.py"), tmp_path, lambda: np.array([1.0, 2.0]), machine=machine, store=store, client=sky
        )
        sky.run = cloud.run
        return cloud, sky, store

    return make


def verbs(sky: RecordedSky) -> list[str]:
    return [name for name, _ in sky.calls]


def test_a_launch_asks_for_one_spot_machine_in_the_zone_and_never_waits_for_capacity(made):
    cloud, sky, _ = made(RECORD["granted"])
    assert cloud.launch(1, "spot") == 1
    ((name, asked),) = sky.calls
    assert name == "launch"
    task = asked.pop("task")
    assert asked == {"cluster_name": sky.name(1), "retry_until_up": False, "down": True, "idle_minutes_to_autostop": 30}
    assert (task.resources.infra, task.resources.use_spot, task.resources.accelerators) == ("aws/region-1/zone-1", True, "V100:1")
    assert not hasattr(task, "run"), "the job starts once its checkpoint is there"


def test_a_refused_launch_is_cleaned_up_and_free(made):
    cloud, sky, _ = made(RECORD["refused"])
    assert cloud.launch(0, "spot") is None
    assert verbs(sky) == ["launch", "down"]
    assert cloud.status().instances == ()
    assert sum(cloud.ledger().values()) == 0


def test_a_cluster_the_cloud_took_away_is_a_preemption(made):
    cloud, sky, _ = made(RECORD["preempted"])
    number = cloud.launch(0, "spot")
    cloud.start(number)
    cloud.start(number)
    assert [each.state for each in cloud.status().instances] == ["running"]
    assert [each.state for each in cloud.status().instances] == ["preempted"]
    assert [each.state for each in cloud.status().instances] == ["preempted"]
    assert verbs(sky) == ["launch", "exec", "status", "job_status", "status", "down"]
    assert dict(sky.calls[2][1]) == {"cluster_names": [sky.name(1)], "refresh": "FORCE"}
    run = sky.calls[1][1]["task"].run
    assert "cloudchamber.spot.clouds.remote" in run
    assert run.endswith("python train.py")


def test_a_release_asks_the_agent_through_the_bucket_before_the_cluster_goes(made):
    cloud, sky, store = made(RECORD["released"])
    number = cloud.launch(0, "on_demand")
    cloud.start(number)
    cloud.terminate(number)
    cloud.terminate(number)
    assert store.is_asked_to_stop(0, number)
    assert verbs(sky) == ["launch", "exec", "job_status", "job_status", "down"]
    assert cloud.status().instances[0].state == "released"


def test_a_probe_launches_and_takes_down_and_is_billed(made):
    cloud, sky, _ = made(RECORD["probed"])
    assert (cloud.probe(1), cloud.probe(0)) == (True, False)
    assert verbs(sky) == ["launch", "down", "launch", "down"]
    assert cloud.ledger() == pytest.approx({"spot_usd": 0, "on_demand_usd": 0, "egress_usd": 0, "probe_usd": 2.0 * 60 / 3600})


def test_the_checkpoint_is_copied_once_and_billed_to_its_source(made, tmp_path):
    cloud, _, store = made([])
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "progress").write_text("0.25")
    store.upload(tmp_path / "x", 0, "000001-000001")
    cloud.copy(1)
    status = cloud.status()
    assert (status.progress, status.location) == (0.25, 1)
    cloud.copy(0)
    assert cloud.ledger()["egress_usd"] == pytest.approx(0.5)
    assert cloud.fetch(tmp_path / "y")
    assert (tmp_path / "y" / "progress").read_text() == "0.25"


def test_a_cluster_on_record_is_found_again_by_the_next_scheduler(made, tmp_path):
    cloud, _, _ = made(RECORD["granted"])
    cloud.launch(1, "spot")
    again, sky, _ = made(RECORD["found"])
    assert [(each.number, each.state) for each in again.status().instances] == [(1, "waiting")]
    again.close()
    assert verbs(sky) == ["status", "down"]
    assert [each["kind"] for each in Journal(tmp_path / "journal").records if each["kind"] in ("launch", "end")] == ["launch", "end"]


def test_the_runner_drives_a_job_to_its_end_over_skypilot(made, tmp_path, healthy):
    cloud, sky, store = made(RECORD["whole"])
    spec = spec_of(market_of("#" * 10, "#" * 10), 5, 10)
    fast = type(spec)(spec.job, spec.zones, spec.egress_usd, 0.5, spec.probe_s)  # long enough for a busy machine
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "progress").write_text("1")
    start = cloud.start

    def start_and_work(number: int) -> None:
        start(number)
        store.upload(tmp_path / "x", 0, "000001-000001")

    cloud.start = start_and_work
    result = SpotRunner(GreedyMulti(), cloud, fast, tmp_path / "state").run()
    assert (result.is_finished, result.launches, sky.answers) == (True, 1, [])


def test_ledger_bills_by_the_second_at_the_prices_seen(made, monkeypatch):
    cloud, _, _ = made([])
    for record in (
        {"kind": "prices", "usd_h": [36.0, 0.0], "at": 100.0},
        {"kind": "prices", "usd_h": [72.0, 0.0], "at": 150.0},
        {"kind": "launch", "instance": 1, "zone": 0, "mode": "spot", "at": 90.0},
        {"kind": "end", "instance": 1, "fate": "released", "at": 200.0},
        {"kind": "launch", "instance": 2, "zone": 1, "mode": "on_demand", "at": 200.0},
        {"kind": "end", "instance": 2, "fate": "released", "at": 560.0},
    ):
        cloud.books.journal.append(**record)
    assert cloud.ledger() == pytest.approx({"spot_usd": 0.6 + 1.0, "on_demand_usd": 1.0, "egress_usd": 0, "probe_usd": 0})


def agent_on(folder: Path, endpoint_url: str, instance: int, command: tuple[str, ...]) -> subprocess.Popen:
    plan = Plan("remote-" + folder.name, ("region-0",), 0, instance, 0.05, 5.0, 0.05, str(folder / str(instance)), endpoint_url)
    return subprocess.Popen([sys.executable, "-m", "cloudchamber.spot.clouds.remote", msgspec.json.encode(plan).decode(), *command])


def test_the_agent_on_a_machine_stops_on_word_in_the_bucket_and_the_next_one_resumes(tmp_path, healthy):
    store = CheckpointStore(("region-0",), "remote-" + tmp_path.name, healthy.url)
    store.create()
    first = agent_on(tmp_path, healthy.url, 1, walking(1000))
    while store.newest() is None:
        assert first.poll() is None
    store.ask_to_stop(0, 1)
    assert first.wait() == 0
    stopped = store.newest()
    assert stopped is not None
    assert 0 < stopped.progress < 1
    assert agent_on(tmp_path, healthy.url, 2, walking(1000, 0.0)).wait() == 0
    last = store.newest()
    assert last is not None
    store.download(last, tmp_path / "end")
    state = json.loads((tmp_path / "end" / "state").read_text())
    assert (last.progress, state["step"], state["starts"]) == (1, 1000, 2)


def test_without_skypilot_the_message_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sky", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cloudchamber\[skypilot\]'"):
        SkyPilotCloud(spec_of(market_of("#"), 1, 10), ("true",), tmp_path, lambda: np.ones(1))


def test_the_recorded_signatures_are_skypilots():
    python = os.environ.get("CHAMBER_SKYPILOT_PYTHON") or (sys.executable if find_spec("sky") else "")
    if not python:
        pytest.skip("no SkyPilot here; name an interpreter that has it in CHAMBER_SKYPILOT_PYTHON")
    code = (
        "import inspect, json, sky; print('REPORT' + json.dumps([{name: list(inspect.signature(getattr(sky, name)).parameters) "
        f"for name in {list(RECORD['signatures'])!r}}}, sorted(each.name for each in sky.JobStatus), "
        f"[name for name in {ERRORS!r} if hasattr(sky.exceptions, name)]]))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    signatures, job_states, errors = json.loads(done.stdout.partition("REPORT")[2])
    assert signatures == RECORD["signatures"]
    assert job_states == sorted(_JOB_STATES)
    assert errors == list(ERRORS)
