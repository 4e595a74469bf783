"""Tokens drawn: hand-computed cases, frequencies, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cloudchamber.core.errors import InputError
from cloudchamber.engine.draw import draw, uniform
from cloudchamber.engine.sampling import SamplingParams

from .engines import request

P = torch.tensor([0.5, 0.25, 0.15, 0.1])


def drawn(params, logits=None, count=1):
    logits = P.log().repeat(count, 1) if logits is None else logits
    return draw(logits, [request(i, [0], 9, params) for i in range(count)])


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (SamplingParams(temperature=1.0), [0.5, 0.25, 0.15, 0.1]),
        (SamplingParams(temperature=0.5), [0.25 / 0.345, 0.0625 / 0.345, 0.0225 / 0.345, 0.01 / 0.345]),
        (SamplingParams(temperature=1.0, top_k=2), [2 / 3, 1 / 3, 0, 0]),
        (SamplingParams(temperature=1.0, top_p=0.7), [2 / 3, 1 / 3, 0, 0]),
        (SamplingParams(temperature=1.0, top_p=0.76), [5 / 9, 2.5 / 9, 1.5 / 9, 0]),
        (SamplingParams(temperature=1.0, allowed_token_ids=(3, 1)), [0, 5 / 7, 0, 2 / 7]),
        (SamplingParams(temperature=1.0, top_k=1), [1, 0, 0, 0]),
        (SamplingParams(), [1, 0, 0, 0]),
    ],
)
def test_frequencies_are_the_probabilities(params, expected):
    count = 4000
    found = np.bincount(drawn(params, count=count).tokens, minlength=4) / count
    assert np.allclose(found, expected, atol=4 * 0.5 / count**0.5)  # four standard deviations at most
    assert all(f == 0 for f, e in zip(found, expected, strict=True) if e == 0)


def test_logprobs_are_over_the_allowed_tokens():
    (detail,) = drawn(SamplingParams(allowed_token_ids=(1, 2), logprobs=5)).details
    assert detail.token == 1
    assert detail.logprob == pytest.approx(np.log(0.625))
    assert [token for token, _ in detail.top] == [1, 2]
    assert np.exp([value for _, value in detail.top]).sum() == pytest.approx(1)


def test_requests_of_all_kinds_share_a_call():
    kinds = [SamplingParams(), SamplingParams(temperature=1.0, seed=1), SamplingParams(logprobs=0), None]
    found = draw(P.log().repeat(4, 1), [request(i, [0], 9, each) for i, each in enumerate(kinds)])
    assert [found.tokens[i] for i in (0, 2, 3)] == [0, 0, 0]
    assert [each is None for each in found.details] == [True, True, False, True]


def test_only_rows_without_finite_logits_fail():
    logits = P.log().repeat(3, 1)
    logits[1, 2] = torch.nan
    found = draw(logits, [request(i, [0], 9, SamplingParams(temperature=1.0, seed=4, logprobs=1)) for i in range(3)])
    assert found.failed == {1}
    assert found.tokens[0] == found.tokens[2]


def test_a_seed_and_a_place_name_a_number():
    numbers = [uniform(s, -1, place) for s in range(30) for place in range(30)]
    assert len(set(numbers)) == 900
    assert all(0 <= each < 1 for each in numbers)
    assert abs(np.mean(numbers) - 0.5) < 4 * (1 / 12 / 900) ** 0.5
    assert uniform(3, -1, 4) == uniform(3, -1, 4)


@pytest.mark.parametrize("params", [SamplingParams(temperature=1.0, top_p=1e-60), SamplingParams(temperature=1e-300)])
def test_the_smallest_values_take_the_likeliest_token(params):
    assert drawn(params, count=8).tokens == [0] * 8


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 1.5, "1", True])
def test_a_seed_of_another_kind_is_refused(seed):
    with pytest.raises(InputError, match="seed must be"):
        SamplingParams(seed=seed)
