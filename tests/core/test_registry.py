from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2]

THIRD_PARTY = '''
from cloudchamber.core.outcome import Metric, Outcome
from cloudchamber.core.study import Study, Workload

class Guess:
    """A policy."""
    def reset(self, spec, rng): self.rng = rng
    def guess(self): return float(self.rng.random())

class Guessing(Study):
    """Third party."""
    name = "guessing"
    title = "Guess a number"
    papers = ("None",)
    protocol = Guess
    metrics = (Metric("error", "1"),)
    def policies(self): return {"Guess": Guess}
    def workloads(self): return {"smoke": Workload(name="smoke", seeds=3, is_generated=True)}
    def trial(self, policy, workload, seed):
        import numpy as np
        policy.reset(None, np.random.default_rng(seed))
        return Outcome({"error": abs(policy.guess() - 0.5)})
'''


@pytest.fixture
def installed(tmp_path):
    """A third party's package as pip leaves it: a module and its entry points."""
    (tmp_path / "guessing.py").write_text(THIRD_PARTY)
    info = tmp_path / "guessing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guessing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        textwrap.dedent("""\
        [cloudchamber.studies]
        guessing = guessing:Guessing
        broken = nothing_here:Study
        """)
    )
    return tmp_path


def chamber(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "cloudchamber", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": f"{folder}:{SOURCE / 'src'}", "PATH": "/usr/bin:/bin", "HOME": str(folder)},
    )


def test_third_partys_study_shows_up_and_runs(installed):
    assert "guessing: Guess a number" in chamber(installed, "list", "guessing").stdout
    done = chamber(installed, "study", "guessing", "--json", "--jobs", "1")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3


def test_study_that_does_not_load_says_which_package(installed):
    done = chamber(installed, "study", "broken")
    assert done.returncode == 2 and "'broken' (nothing_here:Study) does not load" in done.stderr


@pytest.mark.slow
def test_real_pip_install_of_a_third_partys_package(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "guessing.py").write_text(THIRD_PARTY)
    (package / "pyproject.toml").write_text(
        textwrap.dedent("""\
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"
        [project]
        name = "guessing"
        version = "1.0"
        [project.entry-points."cloudchamber.studies"]
        guessing = "guessing:Guessing"
        [tool.hatch.build.targets.wheel]
        only-include = ["guessing.py"]
        """)
    )
    target = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(package)], check=True)
    assert "guessing" in chamber(target, "list").stdout
