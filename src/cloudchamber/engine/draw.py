"""Tokens drawn from logits, all rows in one call; each draw depends on its own row, seed and place alone."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .request import Request
from .sampling import SamplingParams


@dataclass(frozen=True)
class TokenLogprobs:
    """Log-probability of a token, drawn or of the prompt, and of the likeliest ones, in descending order.

    Where some tokens only were allowed, probabilities are among these; ``log_mass`` is the log of what they have of all tokens'.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    log_mass: float = 0.0


@dataclass
class Drawn:
    """One token for each row, its log-probabilities where asked for, and the rows that had no finite logits."""

    tokens: list[int]
    details: list[TokenLogprobs | None]
    failed: set[int] = field(default_factory=set)


def described(logprobs: Tensor, token: int, most: int, log_mass: float = 0.0) -> TokenLogprobs:
    """A token's log-probability among all (vocabulary,), and the ``most`` likeliest."""
    values, ids = logprobs.topk(min(most, len(logprobs)))
    return TokenLogprobs(token, float(logprobs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)), log_mass)


GREEDY = SamplingParams()


def uniform(seed: int, request: int, place: int) -> float:
    """A number in [0, 1) that depends on nothing else."""
    from xxhash import xxh3_64_intdigest

    return (xxh3_64_intdigest(struct.pack("<qqq", seed, request, place)) >> 11) * 2.0**-53


def draw(logits: Tensor, requests: Sequence[Request], seed: int = 0) -> Drawn:
    """Draw the next token of each request.

    Parameters
    ----------
    logits : Tensor, float32, shape (requests, vocabulary)
        Changed where a request allows some tokens only.
    requests : sequence of Request
        ``sampling`` is None (greedy) or SamplingParams.
    seed : int
        For requests without one of their own: theirs depends on it and on their id.
    """
    asked = [r.sampling or GREEDY for r in requests]
    bad = {i for i, ok in enumerate(torch.isfinite(logits.sum(1)).tolist()) if not ok and not bool(logits[i].isfinite().all())}
    mass = [0.0] * len(requests)
    for i, params in enumerate(asked):
        if params.allowed_token_ids:
            allowed = torch.tensor(params.allowed_token_ids, device=logits.device)
            kept = logits[i, allowed]
            if params.logprobs is not None:
                mass[i] = float(kept.logsumexp(0) - logits[i].logsumexp(0))
            logits[i] = -torch.inf
            logits[i, allowed] = kept
    tokens = logits.argmax(1).tolist()
    chance = [i for i, params in enumerate(asked) if params.temperature > 0 and i not in bad]
    for is_cut in (False, True):  # apart, since they walk the vocabulary in different orders
        rows = [i for i in chance if (asked[i].top_p < 1 or asked[i].top_k > 0) == is_cut]
        if rows:
            drawn = _drawn(logits[rows], [asked[i] for i in rows], [_uniform(requests[i], seed) for i in rows], is_cut)
            for i, token in zip(rows, drawn, strict=True):
                tokens[i] = token
    details: list[TokenLogprobs | None] = [None] * len(requests)
    for i, params in enumerate(asked):
        if params.logprobs is not None and i not in bad:
            most = min(params.logprobs, len(params.allowed_token_ids) or logits.shape[1])
            details[i] = described(logits[i].log_softmax(0), tokens[i], most, mass[i])
    return Drawn(tokens, details, bad)


def _uniform(r: Request, seed: int) -> float:
    own = r.sampling.seed
    return uniform(seed, r.id, r.n_tokens) if own is None else uniform(own, -1, r.n_tokens)


def _drawn(logits: Tensor, asked: Sequence[SamplingParams], chances: Sequence[float], is_cut: bool) -> list[int]:
    """Invert each row's cumulative distribution, likeliest tokens first where only some may be drawn."""
    # the largest is 0, so that no temperature overflows
    logits = (logits - logits.amax(1, keepdim=True)) / torch.tensor(
        [[max(params.temperature, 1e-30)] for params in asked], device=logits.device
    )
    ids: Tensor | None = None
    if is_cut:
        most = max(params.top_k if params.top_p == 1 and params.top_k else logits.shape[1] for params in asked)
        logits, ids = logits.topk(min(most, logits.shape[1]), dim=1)
        place = torch.arange(logits.shape[1], device=logits.device)
        most_of = torch.tensor([[params.top_k or logits.shape[1]] for params in asked], device=logits.device)
        logits = logits.masked_fill(place >= most_of, -torch.inf)
        weights = logits.softmax(1)
        before = weights.cumsum(1) - weights
        logits = logits.masked_fill(before >= logits.new_tensor([[max(params.top_p, 1e-30)] for params in asked]), -torch.inf)
    sums = logits.double().softmax(1).cumsum(1)
    aims = torch.tensor(chances, dtype=torch.float64, device=logits.device)[:, None] * sums[:, -1:]
    found = torch.searchsorted(sums, aims, right=True).clamp_(max=logits.shape[1] - 1)
    return (found if ids is None else ids.gather(1, found))[:, 0].tolist()
