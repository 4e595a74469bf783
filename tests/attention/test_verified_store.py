"""The cache in a file: the same numbers as in memory, pages counted as the system counts them, broken files refused."""

from __future__ import annotations

import os

import numpy as np
import pytest

from cloudchamber.attention.verified.decode import Cache, VAttention, dense
from cloudchamber.attention.verified.model import BudgetSpec
from cloudchamber.attention.verified.policies.fixed import FixedBudget
from cloudchamber.attention.verified.store import PAGE, KVFile
from cloudchamber.core.errors import InputError


@pytest.fixture
def arrays():
    keys, values = np.random.default_rng(0).standard_normal((2, 2, 3000, 64)).astype(np.float32)
    return keys, values + np.float32(1)


@pytest.fixture
def kv(arrays, tmp_path):
    with KVFile.write(tmp_path / "a.kv", *arrays) as made:
        yield made


def test_a_step_from_the_file_is_a_step_from_memory(kv, arrays):
    q = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    attention = VAttention(spec=BudgetSpec(epsilon=0.2))
    filed, held = attention(q, kv.cache), attention(q, Cache.of(*arrays))
    assert np.array_equal(filed.out, held.out) and filed.certificates == held.certificates
    assert np.array_equal(dense(q, kv.cache), dense(q, Cache.of(*arrays)))


def test_pages_are_those_of_the_rows(kv):
    tokens = np.zeros((2, 3000), bool)
    assert len(kv.pages(tokens)) == 0
    tokens[0, [0, 7, 8]] = tokens[1, 2999] = True  # a row of key and value takes 512 bytes: 8 to a page
    assert kv.pages(tokens).tolist() == [1, 2, (PAGE + 512 * 5999) // PAGE]
    assert len(kv.pages(~np.zeros((2, 3000), bool))) * PAGE == kv.size_bytes - PAGE


@pytest.mark.parametrize("dim", [3, 96, 700])
def test_rows_across_pages_count_every_page(tmp_path, dim):
    keys = np.zeros((1, 40, dim), np.float32)
    with KVFile.write(tmp_path / "b.kv", keys, keys) as kv:
        for t in range(40):
            tokens = np.zeros((1, 40), bool)
            tokens[0, t] = True
            first, last = PAGE + t * 8 * dim, PAGE + (t + 1) * 8 * dim - 1
            assert kv.pages(tokens).tolist() == list(range(first // PAGE, last // PAGE + 1))


def test_a_step_from_the_disk_brings_in_the_pages_it_is_charged_for(kv):
    kv.drop()
    if kv.resident() != 0:
        pytest.skip("the system does not drop pages of this file, or does not say what it holds")
    attention = VAttention(budget=FixedBudget(0.02), sink=16, window=16, top=0.01, spec=BudgetSpec(floor=8))
    sketches = [attention.scorer.sketch(np.zeros((3000, 64), np.float32))] * 2
    done = attention(np.ones((2, 64), np.float32), kv.cache, sketches)
    assert kv.count(done) == kv.bytes_read < 0.5 * kv.size_bytes
    assert kv.bytes_read <= kv.resident() <= kv.bytes_read + 64 * PAGE


def test_bytes_add_up_over_steps(kv):
    attention = VAttention(budget=FixedBudget(0.02), spec=BudgetSpec(floor=8))
    q = np.ones((2, 64), np.float32)
    counted = [kv.count(attention(q, kv.cache, step=i)) for i in range(3)]
    assert kv.bytes_read == sum(counted) and min(counted) > 0


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda path: os.truncate(path, path.stat().st_size - 1), "cut short"),
        (lambda path: os.truncate(path, 10), "no cache"),
        (lambda path: os.truncate(path, 0), "no cache"),
        (lambda path: path.write_bytes(path.read_bytes() + b"more"), "wrong size"),
        (lambda path: path.write_bytes(b"GGUF" + path.read_bytes()[4:]), "no cache"),
        (lambda path: path.write_bytes(path.read_bytes()[:8] + b"\x09" + path.read_bytes()[9:]), "version 9"),
    ],
)
def test_broken_files_are_refused_in_words(arrays, tmp_path, break_it, words):
    path = tmp_path / "c.kv"
    KVFile.write(path, *arrays).close()
    break_it(path)
    with pytest.raises(InputError, match=words):
        KVFile(path)


def test_wrong_arrays_and_places_are_refused_in_words(arrays, tmp_path, kv):
    with pytest.raises(InputError, match="exists"):
        KVFile.write(kv.path, *arrays)
    with pytest.raises(InputError, match="shape"):
        KVFile.write(tmp_path / "d.kv", arrays[0], arrays[1][:1])
    with pytest.raises(InputError, match="shape"):
        KVFile.write(tmp_path / "d.kv", arrays[0][:, :0], arrays[1][:, :0])
    with pytest.raises(InputError, match="booleans of shape"):
        kv.pages(np.zeros(4, bool))
    with pytest.raises(FileNotFoundError):
        KVFile(tmp_path / "none.kv")
