from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from cloudchamber.broadcast import BroadcastStudy, DreyfusWagner, generate, read_grids, run
from cloudchamber.broadcast.data import _COLUMNS, JOBS, _convert, cloudcast_dataset
from cloudchamber.broadcast.twin import calibrate, continent, statistics
from cloudchamber.core import datasets
from cloudchamber.core.errors import InputError

STUDY = BroadcastStudy()
JOB = {
    "source_node": "aws:a",
    "dest_nodes": ["aws:b", "gcp:c"],
    "data_vol": 30,
    "num_partitions": 2,
    "ingress_limit": {"aws": 10, "gcp": 16},
    "egress_limit": {"aws": 5, "gcp": 7},
}


@pytest.fixture
def mine(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    names = ["aws:a", "aws:b", "gcp:c"]
    pairs = [(a, b) for a in names for b in names if a != b]
    (folder / "cost.csv").write_text("src,dest,cost\n" + "".join(f"{a},{b},0.1\n" for a, b in pairs))
    (folder / "throughput.csv").write_text("src_region,dst_region,throughput_sent\n" + "".join(f"{a},{b},5e9\n" for a, b in pairs))
    for i in range(4):
        (folder / f"job{i}.json").write_text(json.dumps({**JOB, "data_vol": 30 + i}))
    return folder


@pytest.mark.data
def test_files_are_the_declared_ones(cloudcast_data):
    assert datasets.check(cloudcast_dataset(), cloudcast_data) == []


@pytest.mark.data
def test_converter_reproduces_the_compact_files_from_the_raw_form(tmp_path, cloudcast_data):
    """The raw layout is rebuilt from the compact files; converting it must give the same bytes."""
    origin = tmp_path / "raw" / "gepa" / "examples/adrs/cloudcast/utils/cloudcast"
    (origin / "profiles").mkdir(parents=True)
    (origin / "config").mkdir()
    shutil.copy(cloudcast_data / "cost.csv", origin / "profiles")
    for job in JOBS:
        shutil.copy(cloudcast_data / f"{job}.json", origin / "config")
    lines = (cloudcast_data / "throughput.csv").read_text().splitlines()
    head = [old for old, _ in _COLUMNS]
    raw = [",".join([*head[:8], "stdout_path", *head[8:]])]
    raw += [",".join([*cells[:8], "/some/log", *cells[8:]]) for cells in (line.split(",") for line in lines[1:])]
    (origin / "profiles/throughput.csv").write_text("\n".join(raw) + "\n")
    made = tmp_path / "made"
    made.mkdir()
    _convert([tmp_path / "raw"], made)
    assert datasets.check(cloudcast_dataset(), made) == []


@pytest.mark.data
def test_twin_is_calibrated_to_the_real_grids(cloudcast_data):
    regions, price, speed = read_grids(str(cloudcast_data))
    assert json.loads(json.dumps(calibrate(regions, price, speed))) == statistics()
    made = [generate(71, np.random.default_rng(seed)) for seed in range(8)]
    is_link = np.isfinite(price)
    assert np.mean([each[1][np.isfinite(each[1])].mean() for each in made]) == pytest.approx(price[is_link].mean(), rel=0.05)
    assert np.mean([np.log(each[2][each[2] > 0]).mean() for each in made]) == pytest.approx(np.log(speed[is_link]).mean(), abs=0.1)


def test_same_seed_same_network():
    first, second = (generate(9, np.random.default_rng(3)) for _ in range(2))
    assert first[0] == second[0] and first[1].tobytes() == second[1].tobytes() and first[2].tobytes() == second[2].tobytes()


@pytest.mark.parametrize(
    ("region", "where"),
    [
        ("aws:sa-east-1", "south-america"),
        ("azure:brazilsouth", "south-america"),
        ("aws:ap-southeast-2", "oceania"),
        ("aws:ap-southeast-1", "asia"),
        ("azure:southafricanorth", "africa"),
        ("azure:southcentralus", "america"),
        ("azure:uksouth", "europe"),
        ("gcp:me-west1-a", "middle-east"),
        ("gcp:us-east1-b", "america"),
    ],
)
def test_continents_by_name(region, where):
    assert continent(region) == where


def test_without_data_the_twin_stands_in_and_says_so(monkeypatch):
    def refuse(dataset):
        raise datasets.DatasetUnavailable(f"dataset {dataset.name!r} is not here.")

    monkeypatch.setattr("cloudchamber.broadcast.study.locate", refuse)
    ready, note = STUDY.ready(STUDY.workloads()["cloudcast"])
    assert ready.is_generated and ready.name == "cloudcast" and "generated twins" in note
    network, job = ready.world(33)
    assert len(network.regions) == 71 and len(job.destinations) in (6, 7)


def test_parts_of_a_finite_set_are_disjoint_and_cover_it(mine):
    whole = STUDY.workload(mine)
    parts = [whole.part(lo, hi) for lo, hi in ((0, 0.5), (0.5, 0.75), (0.75, 1))]
    assert [(part.first, part.seeds) for part in parts] == [(0, 2), (2, 1), (3, 1)]
    assert [part.world(seed)[1].volume_gb for part in parts for seed in range(part.seeds)] == [30, 31, 32, 33]
    assert whole.part(0.5, 0.5) is None and whole.twin() is None
    with pytest.raises(InputError, match="seeds are 0 to 1"):
        parts[0].world(2)


def test_a_generator_has_no_parts_and_is_its_own_twin():
    smoke = STUDY.workloads()["smoke"]
    assert smoke.part(0.5, 0.75) is smoke and smoke.twin() is smoke


def test_renaming_keeps_the_bill_of_who_does_not_look_at_ids():
    smoke = STUDY.workloads()["smoke"]
    renamed = smoke.renamed(np.random.default_rng(1))
    (first, job), (second, moved) = smoke.world(0), renamed.world(0)
    assert first.regions != second.regions and sorted(first.regions) == sorted(second.regions)
    assert {first.regions[i] for i in job.destinations} == {second.regions[i] for i in moved.destinations}
    bills = [run(DreyfusWagner(), *world, np.random.default_rng(0)).egress_usd for world in ((first, job), (second, moved))]
    assert bills[0] == pytest.approx(bills[1]) and renamed.name == smoke.name


def test_a_users_folder_is_studied(mine):
    from cloudchamber import study

    results = study(STUDY, policies=["DreyfusWagner", "DirectStar"], workloads=[STUDY.workload(mine, vms=1)])
    assert results.summary()[0].mean is not None


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("cost.csv", "a,b\n1,2\n", "columns src, dest and cost"),
        ("cost.csv", "src,dest,cost\naws:a,aws:b,x\n", "columns src, dest and cost"),
        ("cost.csv", "src,dest,cost\naws:a,aws:b,-1\n", "at least 0"),
        ("throughput.csv", "src_region,dst_region,throughput_sent\n", "there must be one"),
        ("job0.json", "{", "is not a job"),
        ("job0.json", "{}", "has no 'source_node'"),
        ("job0.json", json.dumps({**JOB, "source_node": "aws:x"}), "no region 'aws:x'"),
        ("job0.json", json.dumps({**JOB, "dest_nodes": ["aws:a"]}), "none of them the source"),
        ("job0.json", json.dumps({**JOB, "data_vol": 0}), "volume_gb must be above 0"),
        ("job0.json", json.dumps({**JOB, "egress_limit": {"aws": 5}}), "names no provider 'gcp'"),
        ("job0.json", json.dumps({**JOB, "egress_limit": {"aws": 0, "gcp": 1}}), "limit must be a number above 0"),
    ],
)
def test_unusable_files_say_why(file, content, says, mine):
    (mine / file).write_text(content)
    with pytest.raises(InputError, match=says):
        STUDY.workload(mine)


def test_folders_without_jobs_or_at_all_are_refused(mine, tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        STUDY.workload(tmp_path / "none")
    for file in mine.glob("*.json"):
        file.unlink()
    with pytest.raises(InputError, match="holds no job"):
        STUDY.workload(mine)
    (mine / "job0.json").write_text(json.dumps(JOB))
    (mine / "cost.csv").unlink()
    with pytest.raises(InputError, match="cannot read"):
        STUDY.workload(mine)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"region": 3}, "allowed: seeds, vms"),
        ({"destinations": "7-6"}, "range like 6-7"),
        ({"shared": "perhaps"}, "true or false"),
        ({"regions": 4}, "more than the destinations"),
        ({"regions": 4000}, "at most 400"),
        ({"vm_usd_h": -1}, "above 0"),
    ],
)
def test_wrong_parameters_are_refused(params, says):
    with pytest.raises(InputError, match=says):
        STUDY.adjusted(STUDY.workloads()["smoke"], **params)


def test_parameters_of_drawn_jobs_do_not_change_files(mine):
    with pytest.raises(InputError, match="reads its jobs from files"):
        STUDY.workload(mine, volume_gb=3)
    with pytest.raises(InputError, match="at most that"):
        STUDY.workload(mine, seeds=9)
    changed = STUDY.adjusted(STUDY.workloads()["smoke"], shared="true", destinations="2-3", regions=5, volume_gb="10")
    assert (changed.shared, changed.destinations, changed.regions, changed.volume_gb) == (True, (2, 3), 5, 10.0)
