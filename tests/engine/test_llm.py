"""A checkpoint ready to answer, and its kernels."""

from __future__ import annotations

import gc
import math
import time
import weakref

import pytest
import torch
from torch.nn import functional

from cloudchamber.core.errors import CandidateError, InputError
from cloudchamber.engine.checkpoints import Shape, tiny
from cloudchamber.engine.kernels import ROWS, Kernels, candidates, layouts, set_threads
from cloudchamber.engine.llm import LLM, EngineOptions
from cloudchamber.engine.policies.fcfs import FCFS
from cloudchamber.engine.sampling import SamplingParams
from cloudchamber.engine.simulator import drive

from . import models

SMALL = Shape(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=512
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("llm") / "model", shape=SMALL)


@pytest.fixture(scope="module")
def llm(folder):
    return LLM(folder, threads=1, options=EngineOptions(blocks=40, block_tokens=16))


def test_texts_and_tokens_are_answered_in_order(folder, llm):
    prompts = ["def f(x):", [5, 6, 7], "import os"]
    found = llm.generate(prompts, [SamplingParams(max_tokens=n, ignore_eos=True, logprobs=1) for n in (5, 9, 3)])
    assert [len(each.token_ids) for each in found] == [5, 9, 3]
    assert [each.finish_reason for each in found] == ["length"] * 3
    for prompt, each in zip(prompts, found, strict=True):
        assert each.text == llm.text.decode(each.token_ids)
        assert [detail.token for detail in each.logprobs] == each.token_ids
        models.assert_greedy(folder, llm.text.encode(prompt) if isinstance(prompt, str) else prompt, each.token_ids)


def test_logprobs_of_the_prompt_are_those_of_transformers_whatever_happens_around_it(folder):
    llm = LLM(folder, threads=1, options=EngineOptions(blocks=12, block_tokens=16, token_budget=48, max_model_len=180))
    rng = torch.Generator().manual_seed(0)
    shared = torch.randint(512, (90,), generator=rng).tolist()
    prompts = [shared, [*shared, 3, 4], [7], [9] * 20]
    params = SamplingParams(max_tokens=20, ignore_eos=True, logprobs=1, prompt_logprobs=2)
    found = llm.generate(prompts, params)  # chunked, with more than the pool holds
    assert llm.core._preemptions > 0
    for prompt, each in zip(prompts, found, strict=True):
        assert each.n_cached == 0
        assert [detail.token for detail in each.prompt_logprobs] == prompt
        assert math.isnan(each.prompt_logprobs[0].logprob)
        with torch.inference_mode():
            exact = models.peer(folder)(torch.tensor([prompt])).logits[0].log_softmax(1)
        for at, detail in enumerate(each.prompt_logprobs[1:]):
            assert abs(detail.logprob - float(exact[at, detail.token])) < 1e-4
            assert abs(detail.top[0][1] - float(exact[at].max())) < 1e-4
        assert len(each.logprobs) == 20
    assert llm.generate([[7, 8]])[0].prompt_logprobs == []


def test_calibration_of_a_policy_that_lets_nothing_run_ends_in_the_same_words(folder, monkeypatch):
    monkeypatch.setattr("cloudchamber.engine.stepping.STALL_S", 0.05)
    llm = LLM(folder, threads=1, policy=_Never(), options=EngineOptions(blocks=8))
    with pytest.raises(CandidateError, match="lets none run"):
        llm.calibrate()
    assert not llm.core.requests
    assert llm.core.on_step is None


def test_a_replay_in_real_time_ends_in_the_same_words(folder):
    llm = LLM(folder, threads=1, policy=_Never(), options=EngineOptions(blocks=8))
    requests = [llm.request([1, 2], SamplingParams()) for _ in range(2)]
    requests[1].arrival += 0.05
    with pytest.raises(CandidateError, match="2 requests wait, and the policy lets none run"):
        drive(llm.core, requests)
    assert not llm.core.requests


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(llm):
    params = SamplingParams(max_tokens=30, ignore_eos=True)
    (whole,) = llm.generate(["def f(x):"], params)
    stop = whole.text[8:10]
    (cut,) = llm.generate(["def f(x):"], SamplingParams(max_tokens=30, ignore_eos=True, stop=(stop,)))
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert not llm.core.requests


def test_a_stop_token_ends_the_answer(llm):
    (whole,) = llm.generate([[9, 9]], SamplingParams(max_tokens=8, ignore_eos=True))
    (cut,) = llm.generate([[9, 9]], SamplingParams(max_tokens=8, stop_ids=(whole.token_ids[2],)))
    assert cut.finish_reason == "stop"
    assert cut.token_ids == whole.token_ids[: whole.token_ids.index(whole.token_ids[2]) + 1]


@pytest.mark.parametrize(
    ("prompt", "params", "told"),
    [
        ([], None, "the prompt is empty"),
        ([5, 512], None, r"token 512; tokens are whole numbers in \[0, 512\)"),
        ([-1], None, "token -1"),
        ([1], SamplingParams(allowed_token_ids=(600,)), "allowed_token_ids has the token 600"),
        ([1], SamplingParams(stop_ids=(600,)), "stop_ids has the token 600"),
        ([1] * 600, SamplingParams(max_tokens=100), "at most 640 tokens a request, the last of the answer not counted"),
    ],
)
def test_what_can_never_run_is_refused(llm, prompt, params, told):
    with pytest.raises(InputError, match=told):
        llm.generate([[1, 2], prompt], params)
    assert not llm.core.requests


def test_a_pool_that_is_too_small_is_refused_with_the_size_it_needs(folder):
    with pytest.raises(InputError, match=r"has 3 blocks of 16 tokens; a request of 100 tokens needs 7 .* blocks=7"):
        LLM(folder, options=EngineOptions(blocks=3, block_tokens=16, max_model_len=100))
    with pytest.raises(InputError, match="dtype must be"):
        LLM(folder, dtype="float8")
    with pytest.raises(InputError, match="threads must be"):
        LLM(folder, threads=0)


def test_no_length_above_the_models_context_is_accepted(folder):
    context = SMALL.max_position_embeddings
    with pytest.raises(InputError, match=f"max_model_len must be at most {context}, the model's context, got {context + 1}"):
        LLM(folder, threads=1, options=EngineOptions(max_model_len=context + 1))
    llm = LLM(folder, threads=1, options=EngineOptions(max_model_len=context, prefill_only=True, blocks=4))
    with pytest.raises(InputError, match=f"at most {min(context, llm.core.max_scored_len)} tokens a request"):
        llm.core.check(llm.request([1] * (context + 1), SamplingParams(1)))


def test_the_pool_is_a_quarter_of_what_may_be_taken(folder, monkeypatch):
    monkeypatch.setattr("cloudchamber.engine.llm.available_bytes", lambda: 4 << 20)
    llm = LLM(folder, threads=1, options=EngineOptions(block_tokens=16))
    assert llm.core.kv.layout.pool_bytes == 1 << 20


def test_calibration_fits_a_cost_model_and_tells_the_policy(folder):
    llm = LLM(folder, threads=1, options=EngineOptions(blocks=600, block_tokens=16))
    cost = llm.calibrate()
    assert cost.seconds(100, 5000, 0, 0) > 0
    assert llm.core.spec.cost == cost
    llm.core.add(llm.request([1], SamplingParams()))
    with pytest.raises(InputError, match="idle"):
        llm.calibrate()


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_coarser_numerics_stay_near(folder, dtype):
    llm = LLM(folder, dtype=dtype, threads=1, options=EngineOptions(blocks=8))
    params = SamplingParams(max_tokens=1, logprobs=20)
    (found,) = llm.generate([[4, 5, 6, 7]], params)
    with torch.inference_mode():
        exact = models.peer(folder)(torch.tensor([[4, 5, 6, 7]])).logits[0, -1].log_softmax(0)
    assert all(abs(value - float(exact[token])) < 0.1 for token, value in found.logprobs[0].top)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_every_kernel_computes_the_product(dtype):
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 32), torch.randn(48)
    for rows in (1, *ROWS, 300):
        x = torch.randn(rows, 32)
        exact = functional.linear(x, weight, bias)
        for name, make in candidates(dtype, "cpu").items():
            error = (make(weight, bias)(x) - exact).norm() / exact.norm()
            assert error < (1e-5 if dtype == "float32" else 0.02), name


def test_int8_rows_have_scales_of_their_own():
    torch.manual_seed(0)
    x = torch.randn(2, 64)
    make = candidates("int8", "cpu")["fbgemm int8"]
    product = make(torch.randn(32, 64), None)
    alone = product(x[:1])
    assert torch.allclose(product(torch.stack([x[0], 1e4 * x[1]]))[:1], alone, rtol=0.05, atol=0.3)


def test_the_table_names_every_choice():
    kernels = Kernels(budget_s=0.01)
    linear = kernels.linear(torch.randn(8, 16))
    assert linear(torch.randn(3, 16)).shape == (3, 8)
    table = kernels.table()
    assert "8x16" in table
    assert sum(table.count(name) for name in candidates("float32", "cpu")) == len(ROWS)


def test_a_weight_is_held_in_two_layouts_at_most():
    times = [{"a": 1.0, "b": 2.0, "c": 2.0}, {"a": 2.0, "b": 1.0, "c": 1.2}, {"a": 2.0, "b": 1.2, "c": 1.0}]
    assert layouts(times) == ("a", "b")
    assert layouts([each | {"c": 1.05} for each in times]) == ("c",)  # one that is nearly as fast everywhere is enough
    assert layouts([{"a": 1.0}]) == ("a",)


def test_only_the_chosen_layouts_stay_in_memory(monkeypatch):
    held = weakref.WeakSet()

    class Layout:
        def __init__(self, fast, weight):
            self.fast, self.weight = fast, weight
            held.add(self)

        def __call__(self, x):
            time.sleep(0.0 if x.shape[0] in self.fast else 0.004)
            return x @ self.weight.t()

    fast = {"one": (1,), "few": (4, 16), "many": (64, 256)}
    monkeypatch.setattr("cloudchamber.engine.kernels.candidates", lambda *_: {n: (lambda w, b, f=f: Layout(f, w)) for n, f in fast.items()})
    kernels = Kernels(budget_s=2.0)
    linears = [kernels.linear(torch.randn(8, 16)) for _ in range(2)]
    gc.collect()
    assert len(held) == 2 * 2
    assert kernels.held_bytes() == 2 * 2 * 8 * 16 * 4
    assert linears[0](torch.randn(3, 16)).shape == (3, 8)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_bytes_of_weights_are_those_in_memory(folder, dtype):
    llm = LLM(folder, dtype=dtype, threads=1, options=EngineOptions(blocks=8))
    embedding = SMALL.vocab_size * SMALL.hidden_size  # which is the head too
    matrices = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128)
    if dtype == "int8":
        assert llm.weight_bytes == 4 * embedding + embedding + matrices
    else:
        assert 4 * (embedding + matrices) <= llm.weight_bytes <= 2 * 4 * (embedding + matrices) + 4 * embedding


def test_threads_are_probed():
    assert set_threads(1) == torch.get_num_threads() == 1
    assert set_threads(None) >= 1
    set_threads(1)


class _Never(FCFS):
    def chunk(self, view, r, most):
        return 0


def test_a_policy_that_lets_nothing_run_is_told_and_leaves_nothing_behind(folder, monkeypatch):
    monkeypatch.setattr("cloudchamber.engine.stepping.STALL_S", 0.05)
    llm = LLM(folder, threads=1, policy=_Never(), options=EngineOptions(blocks=8))
    with pytest.raises(CandidateError, match="lets none run"):
        llm.generate([[1], [2]])
    assert not llm.core.requests


def test_a_stop_token_is_no_text_beside_stop_texts(llm):
    (whole,) = llm.generate([[9, 9]], SamplingParams(max_tokens=8, ignore_eos=True))
    (cut,) = llm.generate([[9, 9]], SamplingParams(max_tokens=8, stop_ids=(whole.token_ids[2],), stop=("never there",)))
    assert cut.text == llm.text.decode(cut.token_ids[:-1])
