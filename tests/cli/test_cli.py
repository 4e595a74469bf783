from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

import pytest

from cloudchamber.cli import main
from cloudchamber.spot import SpotStudy

from ..spot.test_traces import write

GOOD = """
from cloudchamber.spot import Decision, Launch
class Mine:
    def reset(self, spec, rng): pass
    def decide(self, obs): return Decision((Launch(0, "spot"), Launch(0, "on_demand")), until_s=None)
"""


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def chamber(*arguments):
    """Run the command in this process, as its entry point does."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings(), patch.object(sys, "argv", ["chamber", *arguments]):
        warnings.simplefilter("always")
        try:
            main(list(arguments))
        except SystemExit as done:
            code = int(done.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def process(*arguments, **environment):
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "cloudchamber", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_json_is_one_object_per_line_and_nothing_else():
    done = process("study", "spot", "--workload", "smoke", "--json", "--jobs", "1")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    study = SpotStudy()
    assert done.returncode == 0 and len(rows) == 2 * len(study.policies())
    keys = [
        "study",
        "workload",
        "policy",
        "seed",
        *(metric.name for metric in study.metrics),
        "bound",
        "ratio",
        "void",
        "generated",
        "jail",
        "evidence",
    ]
    assert all(list(row) == keys for row in rows)
    assert rows[0]["generated"] is True and rows[0]["evidence"] == "simulated" and rows[0]["void"] is None


def test_jobs_do_not_change_a_byte():
    one, two = (
        chamber("study", "spot", "--workload", "smoke", "--policy", "SkyNomad", "--json", "--jobs", jobs).stdout for jobs in ("1", "2")
    )
    assert one == two and one


def test_table_and_report(tmp_path):
    done = chamber(
        "study", "spot", "--workload", "smoke", "--policy", "SkyNomad", "--seeds", "1", "--jobs", "1", "--report", str(tmp_path / "r.html")
    )
    assert "optimum" in done.stdout and "SkyNomad" in done.stdout and f"Report: {tmp_path / 'r.html'}" in done.stdout
    assert "chamber study spot --workload smoke" in (tmp_path / "r.html").read_text()


def test_own_trace_and_own_policy(tmp_path):
    trace = tmp_path / "mytrace"
    trace.mkdir()
    write(trace, "us-east-1a", [1, 1, 0, 1] * 200, [1.0] * 800)
    (tmp_path / "mine.py").write_text(GOOD)
    done = chamber(
        "study",
        "spot",
        "--policy",
        f"{tmp_path / 'mine.py'}:Mine",
        "--policy",
        "SkyNomad",
        "--trace",
        str(trace),
        "--set",
        "polarity=available",
        "--set",
        "work_h=20",
        "--seeds",
        "2",
        "--jobs",
        "1",
        "--jail",
        "none",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["workload"] for line in done.stdout.splitlines()} == {"mytrace"}
    assert {json.loads(line)["jail"] for line in done.stdout.splitlines()} == {"none", None}
    assert "the policy runs in this process with all your rights" in done.stderr and "ran without a jail" in done.stderr


def test_changed_named_workload_says_so():
    done = chamber("study", "spot", "--workload", "smoke", "--set", "work_h=4", "--policy", "OnDemandOnly", "--jobs", "1", "--json")
    assert json.loads(done.stdout.splitlines()[0])["workload"] == "smoke[work_h=4]"


def test_void_of_a_named_policy_exits_1(tmp_path):
    (tmp_path / "bad.py").write_text(GOOD.replace("return Decision", "return 1 or Decision"))
    done = chamber("study", "spot", "--policy", str(tmp_path / "bad.py"), "--workload", "smoke", "--seeds", "1")
    assert (
        done.returncode == 1 and "void 1/1" in done.stdout and "decide(): not a valid Decision: Expected `object`, got `int`" in done.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("study", "spotty"), "did you mean spot"),
        (("study", "spot", "--workload", "nope"), "no spot workload named 'nope'"),
        (("study", "spot", "--policy", "Sky"), "no spot policy named 'Sky'"),
        (("study", "spot", "--set", "work_h"), "--set takes KEY=VALUE"),
        (("study", "spot", "--set", "speed=3"), "no parameter 'speed'"),
        (("study", "spot", "--trace", "/nowhere", "--set", "polarity=available"), "no trace at '/nowhere'"),
        (("study", "spot", "--seeds", "0"), "--seeds"),
        (("study", "spot", "--workload", "smoke", "--backend", "slurm"), "'local' or 'ray'"),
        (("data", "nope"), "no dataset named 'nope'"),
        (("data", "--fetch"), "name of one dataset"),
        (("nonsense",), "nonsense"),
    ],
)
def test_bad_usage_exits_2_with_one_clear_line(arguments, message):
    done = chamber(*arguments)
    assert done.returncode == 2 and message in done.stderr and done.stdout == "" and "Traceback" not in done.stderr


def test_undeclared_polarity_names_the_option(tmp_path):
    write(tmp_path, "us-east-1a", [1, 0] * 400, [1.0] * 800)
    done = chamber("study", "spot", "--trace", str(tmp_path))
    assert done.returncode == 2 and "--set polarity=available" in done.stderr


def test_list_names_policies_workloads_and_papers():
    done = chamber("list", "spot")
    assert "SkyNomad" in done.stdout and "h100-gang16-tp1.1" in done.stdout and "Can't Be Late" in done.stdout
    assert "spot" in {json.loads(line)["study"] for line in chamber("list", "--json").stdout.splitlines()}


def test_data_says_where_licence_size_and_how(tmp_path):
    done = process("data", CLOUDCHAMBER_DATA=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0
    for word in ("not here; chamber data spot --fetch", "Apache-2.0", "MB in 38 files", "origin"):
        assert word in done.stdout


def test_closed_pipe_is_not_an_error():
    command = f"{sys.executable} -m cloudchamber list spot | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_version():
    assert chamber("--version").stdout.startswith("cloudchamber 0.")


@pytest.mark.parametrize(("level", "jobs"), [("auto", "1"), ("none", "1"), ("none", "2")])
def test_what_policies_print_never_reaches_the_rows(tmp_path, level, jobs):
    loud = "import os\nprint('at import')\n" + GOOD.replace(
        "def reset(self, spec, rng): pass", "def reset(self, spec, rng): print('hi'); os.write(1, b'raw')"
    )
    (tmp_path / "loud.py").write_text(loud)
    command = ("study", "spot", "--policy", str(tmp_path / "loud.py"), "--workload", "smoke", "--json", "--jobs", jobs, "--jail", level)
    done = process(*command)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["policy"] for line in done.stdout.splitlines()] == ["loud.py"] * 2
    assert ("raw" in done.stderr) == (level == "none")  # a jailed one is heard only when it fails


def test_policy_that_exits_is_void_not_success(tmp_path):
    (tmp_path / "quits.py").write_text(GOOD.replace("return Decision", "return __import__('sys').exit(0) or Decision"))
    done = chamber("study", "spot", "--policy", str(tmp_path / "quits.py"), "--workload", "smoke", "--jobs", "1")
    assert done.returncode == 1 and "SystemExit in " in done.stdout


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("short.csv", "zone,time_s,available,spot_usd_h\na-1,0,1,1\na-1,60", "every row needs numbers"),
        ("binary.csv", b"\xff\xfe\x00", "cannot read"),
        ("head.csv", "zone,time_s,available,spot_usd_h\n", "holds no rows"),
        ("half.csv", "zone,time_s,available,spot_usd_h\na-1,0,0.7,1\na-1,60,1,1", "availability is 0, 1 or a count"),
        ("shift.csv", "zone,time_s,available,spot_usd_h\na-1,0,1,1\na-1,60,1,1\nb-1,600,1,1\nb-1,660,1,1", "start at different times"),
        ("one.json", '{"metadata": {"gap_seconds": 60, "on_demand_usd_h": "abc"}, "data": [1]}', "one.json: not a zone trace"),
    ],
)
def test_unusable_traces_are_one_line_not_a_traceback(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    done = chamber("study", "spot", "--trace", str(tmp_path / name), "--set", "polarity=available", "--set", "on_demand_usd_h=3")
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--policy", "Keep()"), "is not a policy of study 'spot'"),
        (("--policy", "NelsonAalen()"), "is not a policy"),
        (("--policy", "SkyNomad(**{'margin': 9})"), "write the parameters out"),
        (("--jobs", "0"), "n_jobs must be"),
        (("--report", "."), "it is a folder"),
        (("--report", "/proc/none/r.html"), "give another --report"),
        (("--set", "gang=3"), "no parameter 'gang'"),
    ],
)
def test_odd_options_are_refused(arguments, message):
    done = chamber("study", "spot", "--workload", "smoke", *arguments)
    assert done.returncode == 2 and message in done.stderr


def test_rewritten_trace_is_read_again(tmp_path):
    costs = []
    for price in (1.0, 5.0):
        write(tmp_path, "us-east-1a", [1] * 400, [price] * 400)
        workload = SpotStudy().workload(tmp_path, polarity="available", work_h=10)
        costs.append(workload.world(0).optimum.cost_usd)
    assert costs[1] == pytest.approx(5 * costs[0], rel=0.5)
