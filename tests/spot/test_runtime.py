"""The real runtime: the simulator's policies drive real processes, and no fault loses a checkpoint, a process or a bill."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cloudchamber.cli import main
from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.spot.clouds.journal import read_journal
from cloudchamber.spot.clouds.localcloud import bill
from cloudchamber.spot.market import Ticks
from cloudchamber.spot.model import FOREVER, IDLE, KEEP, Decision, Launch
from cloudchamber.spot.policies.greedy import GreedyMulti
from cloudchamber.spot.policies.on_demand_only import OnDemandOnly
from cloudchamber.spot.policies.skynomad import SkyNomad
from cloudchamber.spot.policies.uniform_progress import UniformProgressSwitch
from cloudchamber.spot.runtime import JobFailed, SpotRunner
from cloudchamber.spot.simulator import Simulator

from .running import TICK_S, cloud_of, market_of, processes_of, spec_of, walking
from .scheduler import ZONES

ROOT = Path(__file__).parents[2]


def weights_of(steps: int) -> str:
    """What an undisturbed walk ends with."""
    weights = "start"
    for _ in range(steps):
        weights = hashlib.sha256(weights.encode()).hexdigest()
    return weights


def ended(folder: Path) -> dict:
    return json.loads((folder / "result" / "state").read_text())


def simulated_launches(market, work: int, deadline: int, policy, cold: int = 2) -> list[tuple[int, int, str]]:
    run = Simulator(market, Ticks(work, deadline, cold), checkpoint_gb=5.0).run(policy, np.random.default_rng(0))
    places = list(zip(run.zone.tolist(), run.state.tolist(), strict=True))
    return [
        (t, zone, ("", "spot", "on_demand")[state])
        for t, (zone, state) in enumerate(places)
        if state and (t == 0 or places[t - 1] != (zone, state))
    ]


def launches_of(result) -> list[tuple[int, int, str]]:
    return [(round(each.launched_s / TICK_S), each.zone, each.mode) for each in result.instances]


MARKET = market_of(
    "#########............#####......" + "#" * 4000,
    "......########........##########" + "." * 4000,
    "............#######.............." + "#" * 3999,
    usd_h=(0.1, 0.6, 1.2),  # far below the value of progress, so that a policy that weighs it has no close calls
)


@pytest.mark.parametrize("policy", [GreedyMulti(), UniformProgressSwitch(), SkyNomad("drift")], ids=repr)
def test_the_same_policy_launches_the_same_in_simulator_and_runtime(policy, tmp_path, healthy):
    """Exact where a choice does not hang on a few per cent of progress: of the real job only what a checkpoint holds counts."""
    spec = spec_of(MARKET, 25, 4000)
    expected = simulated_launches(MARKET, 25, 4000, policy)
    job = walking(25, tmp_path / "cloud" / "clock")
    with cloud_of(MARKET, spec, job, tmp_path / "cloud", endpoint_url=healthy.url, upload_every=1, tick_real_s=0.06) as cloud:
        result = SpotRunner(policy, cloud, spec, tmp_path).run()
    assert result.is_finished
    assert launches_of(result) == expected
    assert ended(tmp_path)["weights"] == weights_of(25)


def test_a_job_preempted_ten_times_ends_bit_for_bit_as_if_undisturbed(tmp_path, healthy):
    market = market_of(*ZONES)
    spec = spec_of(market, 150, 900)
    job = walking(120, tmp_path / "cloud" / "clock")  # a step is a tick, so that no machine is too fast for ten preemptions
    with cloud_of(market, spec, job, tmp_path / "cloud", endpoint_url=healthy.url) as cloud:
        result = SpotRunner(GreedyMulti(), cloud, spec, tmp_path).run()
        again = bill(read_journal(tmp_path / "cloud" / "journal"), market, spec, tick=0)
    assert (result.is_finished, result.is_late, result.faults) == (True, False, {})
    assert result.preemptions >= 10 and result.migrations >= 7  # on a busy machine a zone may be back before the move
    assert (ended(tmp_path)["step"], ended(tmp_path)["weights"]) == (120, weights_of(120))
    assert result.spent_usd == pytest.approx(again)
    # on a busy machine a move may come before the first checkpoint, or go back to where the newest lies: both carry nothing
    moves = result.spent_usd["egress_usd"] / 0.5
    assert result.migrations / 2 <= moves <= result.migrations + 1e-9


class Nomad:
    """Moves every few ticks although its instance lives, probing the zone it goes to; for a while it does nothing."""

    def reset(self, spec, rng):
        self.zones = len(spec.zones)

    def decide(self, obs):
        turn = round(obs.time_s / TICK_S) // 15
        if turn == 3:
            return Decision((IDLE,))
        return Decision((Launch(turn % self.zones, "spot"), KEEP), probes=(turn % self.zones,))


def test_an_instance_that_is_left_checkpoints_first(tmp_path, healthy):
    market = market_of("#" * 400, "#" * 400)
    spec = spec_of(market, 100, 400)
    with cloud_of(market, spec, walking(60), tmp_path / "cloud", endpoint_url=healthy.url) as cloud:
        result = SpotRunner(Nomad(), cloud, spec, tmp_path).run()
    assert result.is_finished
    assert (result.preemptions, {each.state for each in result.instances}) == (0, {"released"})
    assert result.migrations >= 2
    assert ended(tmp_path)["weights"] == weights_of(60)
    assert result.spent_usd["probe_usd"] > 0
    ends = [(each.launched_s, each.ended_s) for each in result.instances]
    assert all(end <= start for (_, end), (start, _) in pairwise(ends)), "never two bills at once"


def test_a_zone_that_dies_when_probed_leaves_one_location(tmp_path, healthy):
    flicker = market_of(("#" * 15 + "." * 15) * 20, ("." * 15 + "#" * 15) * 20)
    spec = spec_of(flicker, 60, 600, cold=1)
    with cloud_of(flicker, spec, walking(60), tmp_path / "cloud", endpoint_url=healthy.url) as cloud:
        result = SpotRunner(Nomad(), cloud, spec, tmp_path).run()
    assert result.is_finished
    assert ended(tmp_path)["weights"] == weights_of(60)


def test_when_spot_never_comes_the_guard_goes_on_demand_in_time(tmp_path, healthy):
    market = market_of("." * 120)
    spec = spec_of(market, 60, 100)
    with cloud_of(market, spec, walking(60), tmp_path / "cloud", endpoint_url=healthy.url) as cloud:
        result = SpotRunner(GreedyMulti(), cloud, spec, tmp_path, margin_s=5 * TICK_S).run()
    assert [(each.mode, each.launched_s) for each in result.instances] == [("on_demand", (100 - 5 - 60 - 2) * TICK_S)]
    assert (result.is_finished, result.is_late) == (True, False)
    assert result.failed_launches == (100 - 5 - 60) - (2 * 2 + 1) + 1


def test_a_late_job_is_still_finished_and_said_to_be_late(tmp_path, healthy):
    market = market_of("#" * 40)
    spec = spec_of(market, 10, 20)
    with cloud_of(market, spec, walking(120), tmp_path / "cloud", endpoint_url=healthy.url) as cloud:
        result = SpotRunner(OnDemandOnly(), cloud, spec, tmp_path).run()
    assert result.is_late
    assert result.end_s > 20 * TICK_S


@pytest.mark.parametrize("quirk", ["crash:5", "early:5"])
def test_a_job_that_keeps_failing_is_given_up_and_keeps_its_checkpoint(quirk, tmp_path, healthy):
    market = market_of("#" * 400)
    spec = spec_of(market, 100, 400, cold=0)
    with cloud_of(market, spec, walking(10, 0.1, quirk), tmp_path / "cloud", endpoint_url=healthy.url) as cloud:
        with pytest.raises(JobFailed, match="3 times in a row"):
            SpotRunner(GreedyMulti(), cloud, spec, tmp_path).run()
        assert 0 < cloud.status().progress <= 0.5
    assert processes_of(str(tmp_path)) == []


# -- the scheduler dies ------------------------------------------------------------------------------------------------


def start_scheduler(folder: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.spot.scheduler", str(folder), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first == "up\n", first + process.stdout.read()
    return process


def kill_and_finish(folder: Path, moments_s: list[float], *arguments: str) -> dict:
    """Kill the scheduler after each of these times, then let it finish."""
    for moment_s in moments_s:
        process = start_scheduler(folder, *arguments)
        try:
            process.wait(moment_s)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the job was done before the last kill; give it more steps"
    process = start_scheduler(folder, *arguments)
    output, _ = process.communicate()
    return json.loads(output.splitlines()[-1])


def assert_nothing_lost(folder: Path, result: dict) -> None:
    assert result["finished"], result
    assert processes_of(str(folder)) == []
    records = read_journal(folder / "cloud" / "journal")
    launched = [each["instance"] for each in records if each["kind"] == "launch"]
    assert launched == list(range(1, len(launched) + 1))
    assert sorted(launched) == sorted(each["instance"] for each in records if each["kind"] == "end")
    assert result["launches"] == len(launched)
    market = market_of(*ZONES)
    spent = bill(records, market, spec_of(market, 150, 900), tick=0)
    assert {name: result[name] for name in spent} == pytest.approx(spent)


def test_a_scheduler_killed_at_random_moments_loses_nothing(tmp_path, healthy):
    random_s = random.Random(7)
    result = kill_and_finish(tmp_path, [random_s.uniform(0, 0.5) for _ in range(5)], healthy.url, "0.02", *walking(150))
    assert_nothing_lost(tmp_path, result)
    state = ended(tmp_path)
    assert (state["step"], state["weights"]) == (150, weights_of(150))


def test_an_instance_that_outlives_its_scheduler_works_on_and_is_taken_over(tmp_path, healthy):
    market = market_of("#" * 400)
    spec = spec_of(market, 60, 400)
    gone = cloud_of(market, spec, walking(60), tmp_path / "cloud", endpoint_url=healthy.url)
    gone.open()
    gone.start(gone.launch(0, "spot"))
    gone._stream.close()  # all that the cloud sees of a scheduler's death
    while int((tmp_path / "cloud" / "clock").read_text() if (tmp_path / "cloud" / "clock").exists() else 0) < 20:
        assert processes_of(str(tmp_path)), "the cloud went with its scheduler"
    with cloud_of(market, spec, walking(60), tmp_path / "cloud", endpoint_url=healthy.url) as cloud:
        result = SpotRunner(GreedyMulti(), cloud, spec, tmp_path).run()
    assert (result.is_finished, result.launches) == (True, 1)
    assert ended(tmp_path)["weights"] == weights_of(60)
    gone._process.wait()
    assert processes_of(str(tmp_path)) == []


def test_a_restart_replays_every_question(tmp_path, healthy):
    market = market_of("#####....########" + "#" * 200, "#####....########" + "#" * 200)
    spec = spec_of(market, 60, 200)
    command = walking(60)

    class Watched(SkyNomad):
        def decide(self, obs):
            seen.append(obs)
            return super().decide(obs)

    seen: list = []
    with cloud_of(market, spec, command, tmp_path / "cloud", endpoint_url=healthy.url) as cloud:
        first = SpotRunner(Watched(), cloud, spec, tmp_path).run()
    asked, seen = seen, []
    with cloud_of(market, spec, command, tmp_path / "cloud", endpoint_url=healthy.url) as cloud:
        second = SpotRunner(Watched(), cloud, spec, tmp_path).run()
    assert [each.time_s for each in seen] == [each.time_s for each in asked]
    assert (second.spent_usd, second.questions, second.end_s) == (first.spent_usd, first.questions, first.end_s)


def test_a_folder_belongs_to_one_run_and_one_scheduler(tmp_path, healthy):
    market = market_of("#" * 100)
    spec = spec_of(market, 10, 100, cold=0)
    with cloud_of(market, spec, walking(5), tmp_path / "cloud", endpoint_url=healthy.url) as cloud:
        SpotRunner(GreedyMulti(), cloud, spec, tmp_path).run()
        with pytest.raises(InputError, match="state of another run"):
            SpotRunner(SkyNomad(), cloud, spec, tmp_path).run()
        with pytest.raises(InputError, match="state of another run"):
            SpotRunner(GreedyMulti(), cloud, spec, tmp_path, seed=1).run()


def test_a_clairvoyant_policy_is_refused(tmp_path):
    from cloudchamber.spot import Oracle

    with pytest.raises(InputError, match="looks into the future"):
        SpotRunner(SkyNomad(lifetime=Oracle()), None, spec_of(MARKET, 10, 100), tmp_path)  # type: ignore[arg-type]


def test_a_policy_that_raises_leaves_a_run_that_can_go_on(tmp_path, healthy):
    class Broken:
        def reset(self, spec, rng):
            pass

        def decide(self, obs):
            if obs.time_s > 10 * TICK_S and is_broken:
                raise KeyError("zone")
            return Decision((Launch(0, "spot"),), until_s=None if is_broken else FOREVER)

    market = market_of("#" * 300)
    spec = spec_of(market, 60, 300)
    is_broken = True
    with (
        cloud_of(market, spec, walking(60), tmp_path / "cloud", endpoint_url=healthy.url) as cloud,
        pytest.raises(CandidateError, match="KeyError"),
    ):
        SpotRunner(Broken(), cloud, spec, tmp_path).run()
    assert processes_of(str(tmp_path)) == []
    is_broken = False
    with cloud_of(market, spec, walking(60), tmp_path / "cloud", endpoint_url=healthy.url) as cloud:
        result = SpotRunner(Broken(), cloud, spec, tmp_path).run()
    assert (result.is_finished, result.launches) == (True, 2)
    assert ended(tmp_path)["weights"] == weights_of(60)


def chamber(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["run", "spot", *arguments])
    return int(end.value.code or 0)


def test_the_command_prints_one_measured_object(tmp_path, healthy, capsys):
    status = chamber(
        "--workload",
        "smoke",
        "--policy",
        "GreedyMulti",
        "--speedup",
        "36000",
        "--state",
        str(tmp_path / "state"),
        "--s3-endpoint",
        healthy.url,
        "--json",
        "--",
        *walking(20),
    )
    found = json.loads(capsys.readouterr().out)
    assert (status, found["evidence"], found["finished"], found["late"]) == (0, "measured", True, False)
    assert found["total_usd"] == pytest.approx(sum(found[name] for name in ("spot_usd", "on_demand_usd", "egress_usd", "probe_usd")))
    assert processes_of(str(tmp_path)) == []


def test_the_command_ends_with_status_1_when_the_job_fails(tmp_path, healthy, capsys):
    status = chamber(
        "--workload",
        "smoke",
        "--policy",
        "GreedyMulti",
        "--speedup",
        "36000",
        "--state",
        str(tmp_path / "state"),
        "--s3-endpoint",
        healthy.url,
        "--",
        "false",
    )
    assert (status, "ended with status 1 3 times in a row" in capsys.readouterr().err) == (1, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--policy", "GredyMulti"], "did you mean GreedyMulti"),
        (["--workload", "nowhere"], "no spot workload named 'nowhere'"),
        (["--set", "work_h"], "KEY=VALUE"),
        (["--cloud", "skypilot"], "generated market"),
        (["--speedup", "0"], "speedup must be a positive number"),
    ],
)
def test_bad_usage_ends_with_status_2_and_says_what_to_do(options, words, tmp_path, capsys):
    status = chamber("--state", str(tmp_path / "s"), *options, "--", "true")
    error = capsys.readouterr().err
    assert (status, words in error) == (2, True), error


@pytest.mark.slow
def test_a_scheduler_of_a_torch_job_killed_at_twenty_random_moments_loses_nothing(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    job = str(ROOT / "examples" / "spot_train.py")
    alone = tmp_path / "alone"
    alone.mkdir()
    subprocess.run(
        [sys.executable, job, "--steps", "2500", "--pause", "0"], env={**os.environ, "CHAMBER_CHECKPOINT_DIR": str(alone)}, check=True
    )
    random_s = random.Random(11)
    moments_s = [random_s.uniform(0, 4.0) for _ in range(20)]
    command = (sys.executable, job, "--steps", "2500", "--pause", "0.02")
    result = kill_and_finish(tmp_path / "run", moments_s, "", "0.6", *command)
    assert_nothing_lost(tmp_path / "run", result)
    hashes = {(folder / "weights.sha256").read_text() for folder in (alone, tmp_path / "run" / "result")}
    assert len(hashes) == 1
