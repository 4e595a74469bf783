from __future__ import annotations

import json

import numpy as np
import pytest

from cloudchamber.core import datasets
from cloudchamber.transactions import FIFO, SMF, Random, SMFAll, TransactionsStudy, lower_bound, simple_bound
from cloudchamber.transactions.data import _convert, txn_dataset

STUDY = TransactionsStudy()


@pytest.fixture(scope="module")
def folder():
    found = datasets.find(txn_dataset())
    if found is None:
        pytest.skip("the dataset 'txn-scheduling' is not on this machine")
    return found


@pytest.fixture(scope="module")
def worlds(folder):
    return [STUDY.ready(STUDY.workloads()[name])[0].world(0) for name in ("w1", "w2", "w3")]


def spans(worlds, policy, seeds=1):
    return [np.mean([w.schedule(w.ask(policy, np.random.default_rng(seed))).makespan for seed in range(seeds)]) for w in worlds]


@pytest.mark.data
def test_files_are_the_declared_ones(folder):
    assert datasets.check(txn_dataset(), folder) == []


@pytest.mark.data
def test_known_makespans_are_reproduced(worlds):
    assert spans(worlds, FIFO()) == [452, 38, 47]
    assert spans(worlds, Random(), 40) == pytest.approx([432, 53, 170], rel=0.05)
    assert spans(worlds, SMF(10), 20) == pytest.approx([252, 55, 54], rel=0.05)
    assert spans(worlds, SMFAll(), 20) == pytest.approx([220, 55, 41], rel=0.02)


@pytest.mark.data
def test_known_bounds_are_reproduced_and_ours_are_higher(worlds):
    assert [simple_bound(w.batch) for w in worlds] == [67, 21, 18]
    assert [lower_bound(w.batch) for w in worlds] == [127, 33, 25]


@pytest.mark.data
def test_twins_resemble_the_real_batches(worlds):
    """Means over six generated batches of each kind lie near the real one's figures."""
    for i, (name, margin) in enumerate((("w1", 0.2), ("w2", 0.1), ("w3", 0.25))):
        twin = STUDY.workloads()[name].twin()
        drawn = [twin.world(seed) for seed in range(6)]
        for policy, real in ((FIFO(), spans(worlds, FIFO())[i]), (SMFAll(), spans(worlds, SMFAll(), 5)[i])):
            assert np.mean(spans(drawn, policy)) == pytest.approx(real, rel=margin)


@pytest.mark.data
def test_converter_reproduces_the_compact_files_from_the_raw_form(tmp_path, folder):
    """The raw layout, Python literals of JSON text, is rebuilt from the compact files; converting it must give the same bytes."""
    raw = tmp_path / "in" / "skydiscover-abc" / "benchmarks/ADRS/txn_scheduling/evaluator"
    raw.mkdir(parents=True)
    texts = [json.dumps(json.loads((folder / f"w{i}.json").read_text()), separators=(",", ":")) for i in (1, 2, 3)]
    lines = [f"WORKLOAD_{i} = {text!r}" for i, text in enumerate(texts, 1)]
    (raw / "workloads.py").write_text("\n".join(["import os", *lines, "X = 1\n"]))
    (tmp_path / "out").mkdir()
    _convert([tmp_path / "in"], tmp_path / "out")
    assert datasets.check(txn_dataset(), tmp_path / "out") == []
