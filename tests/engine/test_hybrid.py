"""Hybrid prefilling and scores: the same answers as a plain forward pass, in less memory."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.core.errors import InputError
from cloudchamber.core.policy import Policy
from cloudchamber.engine.checkpoints import Shape, tiny
from cloudchamber.engine.executor import TorchExecutor
from cloudchamber.engine.llm import LLM, EngineOptions
from cloudchamber.engine.model import SchedulerPolicy
from cloudchamber.engine.prefillonly.executor import HybridExecutor
from cloudchamber.engine.prefillonly.score import Choices
from cloudchamber.engine.sampling import SamplingParams

SMALL = Shape(
    hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=512
)


class KeepSome(Policy, SchedulerPolicy):
    """Keeps so many leading tokens."""

    def __init__(self, kept: int = 0) -> None:
        self.kept = kept

    def keep(self, view, r):
        return self.kept


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def folder(request, tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("hybrid") / request.param, request.param, shape=SMALL, seed=3)


@pytest.fixture(scope="module")
def truth(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def hybrid(folder, chunk_rows: int, kept: int, blocks: int = 12) -> LLM:
    options = EngineOptions(blocks=blocks, block_tokens=16, token_budget=4096, max_running=1, max_model_len=180)
    return LLM(folder, policy=KeepSome(kept), executor=partial(HybridExecutor, chunk_rows=chunk_rows), options=options, threads=1)


@settings(max_examples=25)
@given(
    chunk=st.integers(1, 70),
    kept=st.integers(0, 200),
    lengths=st.lists(st.integers(1, 170), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_scores_equal_transformers_at_any_chunk_kept_prefix_and_hit(folder, truth, chunk, kept, lengths, seed):
    llm = hybrid(folder, chunk, kept)
    base = np.random.default_rng(seed).integers(512, size=170).tolist()
    choices = [5, 77, 301]
    prompts = [base[:length] for length in lengths] + [base[: lengths[0]]]
    found = llm.score(prompts, choices)
    for prompt, row in zip(prompts, found, strict=True):
        logits = truth(torch.tensor([prompt])).logits[0, -1]
        assert np.allclose(row, logits[choices].softmax(0).detach().numpy(), atol=1e-4)
    pool = llm.core.kv.counts()
    assert pool.used == 0 and pool.cached <= -(-min(kept, 170) // 16) * len(set(lengths))


def test_short_prompts_are_packed_a_chunk_at_a_time(folder, truth, monkeypatch):
    options = EngineOptions(blocks=40, block_tokens=16, token_budget=4096, max_running=16, batch_below=100, max_model_len=180)
    llm = LLM(folder, policy=KeepSome(0), executor=partial(HybridExecutor, chunk_rows=64), options=options, threads=1)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(512, size=n).tolist() for n in (30, 20, 99, 1, 10, 40, 150, 5)]
    records, passes = [], []
    plain = TorchExecutor._forward
    monkeypatch.setattr(TorchExecutor, "_forward", lambda self, entries: passes.append([e.n_new for e in entries]) or plain(self, entries))
    llm.core.on_step = records.append
    found = llm.score(prompts, [3, 4])
    assert [each.new for each in records] == [200, 150, 5]  # the long one alone, who comes after it waits
    assert passes == [[30, 20], [1, 10, 40], [5]]  # 99 and 150 go in chunks
    for prompt, shares in zip(prompts, found, strict=True):
        logits = truth(torch.tensor([prompt])).logits[0, -1, [3, 4]].double()
        assert np.abs(shares - logits.softmax(0).detach().numpy()).max() < 1e-4


def test_a_kept_prefix_is_hit_and_the_suffix_is_not_stored(folder):
    llm = hybrid(folder, 16, 64)
    prompt = np.random.default_rng(0).integers(512, size=150).tolist()
    first, second = (llm.generate([prompt], SamplingParams(1))[0] for _ in range(2))
    assert (first.n_cached, second.n_cached) == (0, 64)
    assert llm.core.kv.counts().cached == 4


def test_a_prompt_longer_than_the_pool_is_scored(folder, truth):
    llm = hybrid(folder, 32, 0, blocks=12)
    llm.core.max_scored_len = 1000
    prompt = np.random.default_rng(1).integers(512, size=900).tolist()
    logits = truth(torch.tensor([prompt])).logits[0, -1]
    assert np.allclose(llm.score([prompt], [1, 2])[0], logits[[1, 2]].softmax(0).detach().numpy(), atol=1e-4)
    with pytest.raises(InputError, match="at most 1000 tokens"):
        llm.score([prompt * 2], [1, 2])


def test_whole_choices_weigh_all_their_tokens(folder, truth):
    llm = hybrid(folder, 32, 96)
    prompt = np.random.default_rng(2).integers(512, size=50).tolist()
    choices = ["return x", "return", "def yes"]
    tokens = [llm.text.encode(choice) for choice in choices]
    weights = []
    for each in tokens:
        rows = truth(torch.tensor([prompt + each])).logits.detach()[0, len(prompt) - 1 : -1].log_softmax(1)
        weights.append(sum(float(row[token]) for row, token in zip(rows, each, strict=True)))
    expected = np.exp(weights) / np.exp(weights).sum()
    assert np.allclose(llm.score([prompt], choices, whole=True)[0], expected, atol=1e-4)


def test_choices_that_would_mislead_are_refused(folder):
    llm = hybrid(folder, 32, 0)
    for choices, words in (
        ([], "choices is empty"),
        ([""], "a choice is empty"),
        ([7, 7], "there twice"),
        ([512], r"in \[0, 512\)"),
        (["definitely not"], r"tokens \('d"),
    ):
        with pytest.raises(InputError, match=words):
            Choices.of(llm, choices)


def test_memory_predicted_for_each_token_is_memory_used(folder):
    """Tensors alive at the peak, as torch's allocator reports them; attention's scratch does not grow with the prompt."""
    llm = hybrid(folder, 64, 0)
    llm.core.max_scored_len = 5000
    executor, used = llm.core.executor, []
    for length in (1000, 3000):
        prompt = np.random.default_rng(length).integers(512, size=length).tolist()
        used.append(peak_bytes(lambda prompt=prompt: llm.score([prompt], [1, 2])))
    predicted = executor.scored_bytes(3000) - executor.scored_bytes(1000)
    assert abs((used[1] - used[0]) / predicted - 1) < 0.05
    assert used[1] - executor.scored_bytes(3000) < 2**20


def test_memory_predicted_holds_with_a_hit(folder):
    llm = hybrid(folder, 64, 64)
    llm.core.max_scored_len = 5000
    prompt = np.random.default_rng(5).integers(512, size=3000).tolist()
    first = llm.score([prompt[:100]], [1, 2])
    assert np.isfinite(first).all()
    used = peak_bytes(lambda: llm.score([prompt], [1, 2]))
    assert llm.core.kv.counts().cached == 4
    assert used < llm.core.executor.scored_bytes(3000) + 2**19


def test_the_longest_prompt_is_the_longest_that_fits(folder):
    executor = hybrid(folder, 64, 0).core.executor
    for budget in (10**5, 10**6):
        longest = executor.longest_scored(budget)
        assert executor.scored_bytes(longest) <= budget < executor.scored_bytes(longest + 1)


def peak_bytes(work) -> int:
    """Most bytes that ``work`` held at once beyond what there was."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [each for each in profile.profiler.kineto_results.events() if each.name() == "[memory]"]
    return int(np.cumsum([each.nbytes() for each in sorted(events, key=lambda each: each.start_ns())]).max())
