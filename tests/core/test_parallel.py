from __future__ import annotations

import json
import sys

import pytest

from cloudchamber import study
from cloudchamber.core.errors import ChamberError, InputError, MissingExtra, UnknownName
from cloudchamber.core.registry import load_policy, load_study
from cloudchamber.spot import SkyNomad

MINE = """
from cloudchamber.spot import Decision, Launch
class Mine:
    def reset(self, spec, rng): pass
    def decide(self, obs): return Decision((Launch(0, "on_demand"),))
"""


def small(**options):
    return study("spot", ["SkyNomad", "GreedySpot", "OnDemandOnly"], ["smoke"], 3, **options)


def test_any_number_of_workers_gives_the_same_bytes():
    assert small().to_json() == small(n_jobs=2).to_json()


@pytest.mark.slow
def test_ray_gives_the_same_bytes():
    pytest.importorskip("ray")
    assert small().to_json() == small(n_jobs=2, backend="ray").to_json()


def test_ray_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cloudchamber\[ray\]'"):
        small(n_jobs=2, backend="ray")


def test_instances_are_copied_for_every_trial():
    mine = SkyNomad(margin=0.1)
    results = study("spot", [mine], ["smoke"], 2)
    assert results.policies == ["SkyNomad(margin=0.1)"] and not hasattr(mine, "spec_")


def test_void_trials_have_no_score_but_keep_their_place():
    class Lazy:
        def reset(self, spec, rng):
            pass

        def decide(self, obs):
            return 1 / 0

    results = study("spot", [Lazy, "OnDemandOnly"], ["smoke"], 2)
    rows = [json.loads(line) for line in results.to_json().splitlines()]
    lazy = [row for row in rows if row["policy"] == "Lazy"]
    assert len(lazy) == 2 and all(row["cost_usd"] is None and row["ratio"] is None for row in lazy)
    assert "ZeroDivisionError in decide, line" in lazy[0]["void"]
    assert "void 2/2" in str(results.table()) and results.summary()[0].mean is None


def test_table_ratio_is_that_of_the_sums():
    results = small()
    row = results.summary()[0]
    trials = results.of("smoke", row.policy)
    expected = sum(t.outcome.metrics["cost_usd"] for t in trials) / sum(t.bound.value for t in trials)
    assert row.ratio == pytest.approx(expected) and row.worst == max(t.ratio(results.study.objective) for t in trials)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "spott"}, "did you mean spot"),
        ({"policies": ["SkyNomat"]}, "did you mean .*SkyNomad"),
        ({"workloads": ["nope"]}, "no spot workload named 'nope'"),
        ({"seeds": 0}, "at least 1"),
        ({"backend": "slurm"}, "'local' or 'ray'"),
        ({"policies": []}, "name at least one"),
        ({"workloads": []}, "at least one workload"),
        ({"policies": ["SkyNomad(value='fast')"]}, "value must be one of"),
        ({"policies": ["SkyNomad(speed=3)"]}, "speed"),
        ({"policies": ["SkyNomad(__import__('os'))"]}, "not a name of"),
        ({"policies": ["missing.py"]}, "no policy file 'missing.py'"),
    ],
)
def test_wrong_arguments_say_what_to_do(arguments, message):
    with pytest.raises(InputError, match=message):
        study(**{"name": "spot", "workloads": ["smoke"], **arguments})


def test_unknown_names_are_key_errors_too():
    with pytest.raises(KeyError):
        load_study("nope")
    assert issubclass(UnknownName, ChamberError)


class TestPolicyFiles:
    def load(self, tmp_path, text, name=""):
        (tmp_path / "mine.py").write_text(text)
        return load_policy(load_study("spot"), f"{tmp_path / 'mine.py'}{name}", "none")

    def test_runs_like_a_built_in_also_in_other_processes(self, tmp_path):
        with pytest.warns(UserWarning, match="level 'none': the policy runs in this process with all your rights"):
            self.load(tmp_path, MINE)
        path = str(tmp_path / "mine.py")
        with pytest.warns(UserWarning):
            results = study("spot", [path, "OnDemandOnly"], ["smoke"], 2, n_jobs=2, jail="none")
        mine, builtin = (results.of("smoke", name) for name in results.policies)
        assert [t.outcome.metrics["cost_usd"] for t in mine] == [t.outcome.metrics["cost_usd"] for t in builtin]
        assert {t.jail for t in mine} == {"none"} and {t.jail for t in builtin} == {None}

    def test_unnamed_class_is_the_one_with_the_verbs(self, tmp_path):
        with pytest.warns(UserWarning):
            self.load(tmp_path, "class Other: pass\n" + MINE).check()

    @pytest.mark.parametrize(
        ("text", "name", "message"),
        [
            ("x = (", "", "does not run: SyntaxError"),
            ("1/0", "", "does not run: ZeroDivisionError"),
            ("class A: pass", "", "found none"),
            (MINE + MINE.replace("Mine", "Two"), "", "found Mine, Two; name it"),
            (MINE, ":Yours", "no class 'Yours'; it has .*Mine"),
            ("class A:\n  def reset(self, spec, rng): pass", ":A", r"A lacks decide\(\)"),
            (
                MINE.replace("reset(self, spec, rng): pass", "__init__(self, must): pass\n    def reset(self, spec, rng): pass"),
                "",
                r"Mine\(\) failed",
            ),
        ],
    )
    def test_unusable_files_are_refused(self, tmp_path, text, name, message):
        with pytest.warns(UserWarning), pytest.raises(InputError, match=message):
            self.load(tmp_path, text, name).check()
