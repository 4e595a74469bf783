"""The torch executor: transformers' greedy tokens whatever happens around them, faults that stay where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.engine.policies.fcfs import FCFS
from cloudchamber.engine.sampling import SamplingParams

from . import models
from .engines import answer, engine, load, request

FOLDERS: dict[str, object] = {}
MODELS: dict[str, object] = {}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Folder and model of an architecture, made once."""

    def made(name):
        if name not in MODELS:
            FOLDERS[name] = models.write(tmp_path_factory.mktemp(name) / name, name)
            MODELS[name] = load(FOLDERS[name])
        return FOLDERS[name], MODELS[name]

    yield made
    FOLDERS.clear()
    MODELS.clear()


@st.composite
def scenes(draw):
    """Prompts, some with a common beginning, coming in at some step, some aborted; a pool that may be tiny."""
    base = draw(st.lists(st.integers(0, 96), min_size=8, max_size=24))
    prompts = []
    for _ in range(draw(st.integers(1, 6))):
        shared = base[: draw(st.integers(0, len(base)))]
        prompts.append([*shared, *draw(st.lists(st.integers(0, 96), min_size=1, max_size=24))])
    answers = [draw(st.integers(1, 10)) for _ in prompts]
    size = draw(st.sampled_from([1, 2, 4, 8, 16]))
    least = max(-(-(len(p) + n - 1) // size) for p, n in zip(prompts, answers, strict=True))
    sizes = {
        "block_tokens": size,
        "blocks": least + draw(st.integers(0, 6)),
        "token_budget": draw(st.sampled_from([3, 7, 16, 64])),
        "max_running": draw(st.integers(1, 6)),
        "prefix_cache": draw(st.booleans()),
    }
    arrivals = [draw(st.integers(0, 12)) for _ in prompts]
    aborted = draw(st.sets(st.integers(0, len(prompts) - 1), max_size=1)) if len(prompts) > 1 else set()
    return prompts, answers, sizes, arrivals, aborted


@pytest.mark.parametrize("name", models.ARCHITECTURES)
@settings(max_examples=6)
@given(scene=scenes())
def test_greedy_tokens_are_those_of_transformers(checkpoint, name, scene):
    prompts, answers, sizes, arrivals, aborted = scene
    folder, model = checkpoint(name)
    core = engine(model, **sizes)
    requests = [request(i, p, n) for i, (p, n) in enumerate(zip(prompts, answers, strict=True))]
    step = 0
    while core.requests or step <= max(arrivals):
        for r in requests:
            if arrivals[r.id] == step:
                core.add(r)
        core.step()
        step += 1
        for i in aborted:
            if step == arrivals[i] + 3:
                core.abort(i)
    for r, prompt in zip(requests, prompts, strict=True):
        assert r.finish == "length" or (r.id in aborted and r.finish == "abort"), r.error
        models.assert_greedy(folder, prompt, r.tokens[r.n_input :])
    assert core.kv.counts().used == 0


def test_many_sequences_of_very_different_lengths_share_a_step(checkpoint):
    folder, model = checkpoint("qwen3-window")
    rng = np.random.default_rng(0)
    prompts = [rng.integers(97, size=n).tolist() for n in (1, 2, 3, 30, 31, 90, 200, 210)]
    core = engine(model, blocks=300, token_budget=700)
    answers = answer(core, [request(i, p, 12) for i, p in enumerate(prompts)])
    for prompt, tokens in zip(prompts, answers, strict=True):
        assert len(tokens) == 12
        models.assert_greedy(folder, prompt, tokens)


class Everything:
    """Reads all keys, one sequence at a time, straight from the pages; notes what it was told of."""

    def __init__(self, windows):
        self.windows, self.wrote_rows = windows, []

    def wrote(self, layer, kv, rows):
        assert kv.pool.keys(layer)[rows].abs().sum() > 0  # they are there already
        self.wrote_rows.append((layer, rows.tolist()))

    def __call__(self, layer, q, kv):
        out = torch.empty_like(q)
        for i, n in enumerate(kv.lengths.tolist()):
            rows = torch.from_numpy(kv.pool.rows(kv.pages[i], n))[-(self.windows[layer] or n) :]
            k, v = (x[rows].repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (kv.pool.keys(layer), kv.pool.values(layer)))
            weights = torch.softmax(torch.einsum("hd,nhd->hn", q[i], k) * q.shape[2] ** -0.5, 1)
            out[i] = torch.einsum("hn,nhd->hd", weights, v)
        return out


@pytest.mark.parametrize("name", ["llama3", "gemma3"])
def test_a_decode_attention_that_reads_everything_gives_the_same_tokens(checkpoint, name):
    _, model = checkpoint(name)
    rng = np.random.default_rng(1)
    prompts = [rng.integers(97, size=n).tolist() for n in (3, 17, 40)]
    plain = answer(engine(model, token_budget=16), [request(i, p, 20) for i, p in enumerate(prompts)])
    reading = Everything(model.config.windows)
    core = engine(model, token_budget=16, decode_attention=reading)
    assert answer(core, [request(i, p, 20) for i, p in enumerate(prompts)]) == plain
    layers, rows = zip(*reading.wrote_rows, strict=True)
    assert set(layers) == set(range(model.config.layers))
    assert sum(map(len, rows)) == model.config.layers * sum(len(p) + 19 for p in prompts)


def test_bytes_read_are_counted(checkpoint):
    _, model = checkpoint("qwen3-window")
    core = engine(model)
    found = []
    execute = core.executor.execute
    core.executor.execute = lambda plan: found.append(execute(plan)) or found[-1]
    answer(core, [request(0, [5] * 19, 2)])
    row = 2 * model.config.kv_heads * model.config.head_dim * 4
    assert [each.kv_bytes for each in found] == [0, row * (12 + 12 + 20)]


class KeepSome(FCFS):
    """Keeps the KV of a prompt's first tokens only."""

    def keep(self, view, r):
        return 6


def test_what_is_not_kept_is_computed_all_the_same(checkpoint):
    folder, model = checkpoint("gemma3")
    core = engine(model, blocks=3, policy=KeepSome())
    core.max_scored_len = 100
    prompts = [list(range(30)), [*range(20), 4, 4], list(range(40, 90))]
    requests = [request(i, p, 1) for i, p in enumerate(prompts)]
    for r, prompt in zip(requests, prompts, strict=True):
        models.assert_greedy(folder, prompt, answer(core, [r])[0])
    assert [r.n_hit for r in requests] == [0, 4, 0]  # whole blocks of the 6 tokens kept


def test_an_exception_fails_the_requests_of_its_step_alone(checkpoint, monkeypatch):
    folder, model = checkpoint("llama2")
    core = engine(model, max_running=2)
    requests = [request(i, [i + 1] * 9, 6) for i in range(4)]
    for r in requests:
        core.add(r)
    core.step()

    def broken(*args):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(model.layers[1], "finish", broken)
        core.step()
    while core.requests:
        core.step()
    assert [r.finish for r in requests] == ["error", "error", "length", "length"]
    assert "out of memory" in requests[0].error
    for r in requests[2:]:
        models.assert_greedy(folder, r.tokens[:9], r.tokens[9:])
    assert core.kv.counts().used == core.kv.counts().pinned == 0


def test_logits_that_are_no_numbers_fail_their_request_alone(checkpoint, monkeypatch):
    folder, model = checkpoint("llama2")
    core = engine(model, blocks=12)
    poisoned = model.embedding.clone()
    poisoned[96] = torch.nan
    good = [request(i, [i + 1] * 9, 6) for i in (1, 2)]
    with monkeypatch.context() as patch:
        patch.setattr(model, "embedding", poisoned)
        bad = request(0, [96, 5, 6], 6)
        answer(core, [good[0], bad, good[1]])
    assert bad.finish == "error"
    assert "not finite" in bad.error
    later = [request(i, [i] * 11, 6) for i in range(3, 7)]  # these get its pages
    answer(core, later)
    for r in good + later:
        assert r.finish == "length"
        models.assert_greedy(folder, r.tokens[: r.n_input], r.tokens[r.n_input :])


class Slowly(FCFS):
    """Four tokens of each prompt a step."""

    def chunk(self, view, r, budget):
        return min(budget, 4)


def test_a_prompt_that_turns_into_no_numbers_leaves_no_prefix_and_breaks_nobody(checkpoint, monkeypatch):
    folder, model = checkpoint("llama2")
    core = engine(model, token_budget=16, policy=Slowly())
    poisoned = model.embedding.clone()
    poisoned[96] = torch.nan
    shared = list(range(12))
    bad = request(0, [*shared, 96, *range(20, 47)], 6)  # ten chunks; the fourth fails
    same, good = (request(i, [*shared, *more], 6) for i, more in ((1, [96, *range(20, 50)]), (2, range(50, 70))))
    with monkeypatch.context() as patch:
        patch.setattr(model, "embedding", poisoned)
        core.add(bad)
        core.step()
        core.step()
        for r in (same, good):  # they share what bad has computed so far
            core.add(r)
        while core.requests:
            core.step()
    assert (bad.finish, same.finish, good.finish) == ("error", "error", "length")
    assert good.n_hit == same.n_hit == 8
    assert bad.n_computed == 12
    models.assert_greedy(folder, good.tokens[: good.n_input], good.tokens[good.n_input :])
    again = [request(i, r.tokens[: r.n_input], 6) for i, r in ((3, bad), (4, same))]  # numbers again: nothing of the failure is found
    answer(core, again)
    for r in again:
        assert r.n_hit == 8
        models.assert_greedy(folder, r.tokens[: r.n_input], r.tokens[r.n_input :])


def test_seeded_draws_do_not_depend_on_the_batch(checkpoint):
    _, model = checkpoint("llama3")
    params = [SamplingParams(temperature=0.7 + 0.1 * i, seed=i, top_p=0.9 if i % 2 else 1.0, top_k=0 if i % 3 else 20) for i in range(6)]
    prompts = [[i + 3] * (4 * i + 2) for i in range(6)]

    def drawn(i, **sizes):
        requests = [request(10 * i + j, prompts[j], 10, params[j]) for j in ([i] if sizes else range(6))]
        return answer(engine(model, **sizes or {"blocks": 20, "token_budget": 11}), requests)

    assert drawn(0) == [drawn(i, blocks=64)[0] for i in range(6)]


def test_layout_is_page_major(checkpoint):
    _, model = checkpoint("qwen3")
    core = engine(model, blocks=5, block_tokens=4)
    (group,) = core.kv.layout.groups
    assert group.page_shape == (3, 2, 4, 2, 16)
    assert core.executor.pool.flat.numel() * 4 == core.kv.layout.pool_bytes == 5 * group.page_bytes
    r = request(0, [1, 2, 3, 4, 5, 6], 2)
    core.add(r)
    core.step()
    page = int(core.kv.table(r)[1])
    assert torch.equal(core.executor.pool.flat.view(5, *group.page_shape)[page, 2, 1], core.executor.pool.values(2)[page * 24 :][:4])
    assert core.executor.pool.values(2)[page * 24 + 1].abs().sum() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_greedy_tokens_on_cuda(checkpoint, name):
    from cloudchamber.engine.llm import LLM

    folder, _ = checkpoint(name)
    llm = LLM(folder, device="cuda")
    for prompt, each in zip([[3] * 9, [4] * 30], llm.generate([[3] * 9, [4] * 30], SamplingParams(max_tokens=12)), strict=True):
        models.assert_greedy(folder, prompt, each.token_ids)
