"""An engine without a model: each next token is a function of all tokens before it, so that any mix-up shows."""

from __future__ import annotations

import math
import threading
import time
from types import SimpleNamespace

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from xxhash import xxh3_64_intdigest

from cloudchamber.core.errors import InputError
from cloudchamber.engine.checkpoints import CHAT, END, EOS, TURN
from cloudchamber.engine.clock import RealClock
from cloudchamber.engine.core import EngineCore
from cloudchamber.engine.kv import PagedKV
from cloudchamber.engine.model import CostModel, EngineSpec
from cloudchamber.engine.policies.fcfs import FCFS
from cloudchamber.engine.request import Request
from cloudchamber.engine.seams import StepResult
from cloudchamber.engine.text import Text


def tokenizer():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[EOS, TURN, END], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    made.train_from_iterator(["Yes or No: the answer is one, the answer is two. 你好，世界 🙂 naïve café " * 4], trainer)
    return made


class ToyExecutor:
    """``step_s`` seconds for each step; ``fails(request)`` breaks the step, ``bad(request)`` one request of it."""

    lookahead = 0

    def __init__(self, kv, vocab, step_s=0.0):
        self.kv, self.vocab, self.step_s = kv, vocab, step_s
        self.fails = self.bad = lambda request: False
        self.gate = threading.Event()
        self.gate.set()
        self.forgotten = []

    def execute(self, plan):
        assert self.gate.wait(30)
        time.sleep(self.step_s)
        tokens, details, errors = [], [], {}
        for each in plan.entries:
            r = each.request
            assert len(self.kv.table(r)) * self.kv.block_tokens >= min(each.end, each.kept)
            if self.fails(r):
                raise RuntimeError("out of memory")
            if self.bad(r):
                errors[r.id] = "the model's logits are not finite"
            if r.prompt_logprobs and each.samples:
                r.prompt_logprobs = [SimpleNamespace(token=r.tokens[0], logprob=math.nan, top=())]
                r.prompt_logprobs += [self.logprobs(r, token) for token in r.tokens[1:]]
            tokens.append([self.next(r)] if each.samples else [])
            details.append([self.logprobs(r, tokens[-1][0])] if each.samples and r.sampling.logprobs is not None else None)
        return StepResult(tokens, self.step_s, details, errors)

    def next(self, r):
        seed = 0 if not r.sampling.temperature else r.id if r.sampling.seed is None else 1 + r.sampling.seed
        drawn = xxh3_64_intdigest(np.array(r.tokens, np.int64).tobytes(), seed=seed)
        allowed = r.sampling.allowed_token_ids
        return allowed[drawn % len(allowed)] if allowed else drawn % self.vocab

    def logprobs(self, r, token):
        others = [each for each in (r.sampling.allowed_token_ids or range(self.vocab)) if each != token]
        top = [(token, math.log(0.5)), *((each, math.log(0.5 / len(others))) for each in others)]
        return SimpleNamespace(token=token, logprob=math.log(0.5), top=tuple(top[: r.sampling.logprobs]))

    def forget(self, request):
        self.forgotten.append(request.id)


class ToyLLM:
    name = "toy"
    kernels = "none"

    def __init__(self, blocks=64, block_tokens=4, *, policy=None, step_s=0.0, token_budget=64, max_running=16, max_model_len=None):
        self.text = Text(tokenizer(), {0, 2}, CHAT, {"eos_token": EOS})
        self.vocab = self.text._tokenizer.get_vocab_size()
        self.kv = PagedKV(blocks, block_tokens)
        self.executor = ToyExecutor(self.kv, self.vocab, step_s)
        spec = EngineSpec(block_tokens, blocks, token_budget, max_running, CostModel(1e-3, 0, 0, 0, 0))
        policy = policy or FCFS()
        policy.reset(spec, np.random.default_rng(0))
        self.core = EngineCore(self.kv, policy, self.executor, RealClock(), spec, max_model_len=max_model_len)
        self._next = 0

    def request(self, prompt, params, **extras):
        tokens = self.text.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if not tokens:
            raise InputError("the prompt is empty; give at least one token.")
        for token in (*tokens, *params.allowed_token_ids):
            if not 0 <= token < self.vocab:
                raise InputError(f"there is no token {token}; tokens are whole numbers in [0, {self.vocab}).")
        self._next += 1
        if params.prompt_logprobs is not None:
            extras["prompt_logprobs"] = [None]
        now, deadline = self.core.clock.now(), extras.pop("deadline", None)
        stop = frozenset(params.stop_ids) | (frozenset() if params.ignore_eos else self.text.eos_ids)
        deadline = None if deadline is None else now + deadline
        return Request(self._next, len(tokens), params.max_tokens, now, tokens, stop_ids=stop, sampling=params, deadline=deadline, **extras)

    def greedy(self, prompt, max_tokens):
        """The answer one request alone would get."""
        tokens, made = list(prompt), []
        while len(made) < max_tokens and not (made and made[-1] in self.text.eos_ids):
            made.append(xxh3_64_intdigest(np.array(tokens + made, np.int64).tobytes(), seed=0) % self.vocab)
        return made

    def is_clean(self):
        counts = self.kv.counts()
        return not self.core.requests and not counts.used and counts.free + counts.cached == self.kv.blocks
