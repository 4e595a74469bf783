"""A checkpoint, ready to answer: model, KV pool, scheduler and core, wired together."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import msgspec
import numpy as np
import torch

from cloudchamber.core.errors import InputError
from cloudchamber.core.machine import available_bytes

from .clock import RealClock
from .core import EngineCore
from .costmodel import fit
from .draw import TokenLogprobs
from .executor import TorchExecutor
from .kernels import Kernels, set_threads
from .kv import PagedKV
from .layers import Model
from .loading import read_config, read_tensors
from .model import CostModel, EngineSpec
from .policies.fcfs import FCFS
from .request import Request
from .sampling import SamplingParams
from .seams import Progress, StepRecord
from .stepping import Stepper, abandon
from .text import Text

log = logging.getLogger(__name__)

GUESSED = CostModel(2e-3, 2e-4, 0.0, 1e-3, 0.0)  # until calibrated
MEMORY_SHARE = 0.25  # of the memory that is free, for the pool


@dataclass(frozen=True)
class EngineOptions:
    """Sizes of an engine.

    Parameters
    ----------
    blocks : int or None
        Blocks of the KV pool; None: as many as the running requests can fill, at most a quarter of free memory; prefill-only: that quarter.
    block_tokens : int or None
        Tokens of a block; None: 64 on CPU, 16 on CUDA.
    token_budget : int or None
        Most tokens computed in one step; None: 512 on CPU, 2048 on CUDA; prefill-only: the longest prompt, which is never chunked.
    max_running : int, default 64
        Most sequences in one step.
    batch_below : int, default 0
        Prompts of at least so many tokens have the engine to themselves, shorter ones share steps; 0: all share.
    max_model_len : int or None
        Most tokens of a request, the last of the answer not counted; None: the model's context, as far as the pool holds it.
    prefix_cache : bool, default True
    prefill_only : bool, default False
        Sizes for prompts that one token answers: they may be longer than the pool, and run in one step each.
    seed : int, default 0
        For the draws of requests that bring no seed, and for the policy.
    """

    blocks: int | None = None
    block_tokens: int | None = None
    token_budget: int | None = None
    max_running: int = 64
    batch_below: int = 0
    max_model_len: int | None = None
    prefix_cache: bool = True
    prefill_only: bool = False
    seed: int = 0


@dataclass
class Completion:
    """An answer.

    Parameters
    ----------
    text : str
        Without the token or text that stopped it.
    token_ids : list of int
    finish_reason : {"stop", "length", "abort", "error"}
    logprobs : list of TokenLogprobs
        One for each token, if asked for.
    n_cached : int
        Prompt tokens that the prefix cache spared.
    error : str
        Why it failed.
    prompt_logprobs : list of TokenLogprobs
        One for each token of the prompt, if asked for; the first's is NaN.
    """

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    n_cached: int = 0
    error: str = ""
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)


class LLM:
    """An engine over one checkpoint.

    Parameters
    ----------
    path : str or Path
        Directory as Hugging Face writes it: ``config.json``, safetensors, ``tokenizer.json``.
    dtype : {"float32", "bfloat16", "int8"}, default "float32"
        Numerics of the matrix products; int8: weights per channel and activations per row, everything else in float32;
        a row alone in its step is rounded on another grid than one among others, so that answers may differ with who else is served.
    device : str or None
        None: CUDA where there is any, else the CPU.
    threads : int or None
        Threads of a matrix product on the CPU; None: whichever of one and all is faster when probed.
    policy : SchedulerPolicy or None
        None: FCFS.
    executor : callable (model, seed=…) -> TorchExecutor
        ``HybridExecutor`` for prompts that one token answers; ``partial(TorchExecutor, decode_attention=…)`` for sparse reading.
    options : EngineOptions

    Raises
    ------
    InputError
        If the checkpoint is not usable, or the pool too small: with the size that it needs.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        dtype: Literal["float32", "bfloat16", "int8"] = "float32",
        device: str | None = None,
        threads: int | None = None,
        policy: Any = None,
        executor: Callable[..., TorchExecutor] = TorchExecutor,
        options: EngineOptions = EngineOptions(),
    ) -> None:
        if dtype not in ("float32", "bfloat16", "int8"):
            raise InputError(f"dtype must be float32, bfloat16 or int8, got {dtype!r}.")
        self.path, self.name = Path(path), Path(path).resolve().name
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        set_threads(threads)
        config, kernels = read_config(self.path), Kernels(dtype, self.device)
        precision = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self.model = Model(config, read_tensors(self.path, config), kernels.linear, precision, self.device)
        self.kernels = kernels.table()
        self.weight_bytes = kernels.held_bytes(self.model.embedding)
        log.info("%s: %.0f MiB of weights\n%s", self.name, self.weight_bytes / 2**20, self.kernels)
        computes = executor(self.model, seed=options.seed)
        on_cpu = self.device == "cpu"
        size = options.block_tokens or (64 if on_cpu else 16)
        free = int(torch.cuda.mem_get_info(self.device)[0]) if self.device.startswith("cuda") else available_bytes()
        blocks, longest = self._sizes(options, computes.layout(1, size).pool_bytes, size, free)
        kv = PagedKV(blocks, size, computes.layout(blocks, size), options.prefix_cache)
        computes.attach(kv)
        scored = min(longest, computes.longest_scored(free - kv.layout.pool_bytes))  # the pool's pages are not all touched yet
        if scored < 1:
            raise InputError(f"{blocks} KV blocks leave no memory for a prompt's activations; give fewer blocks.")
        budget = options.token_budget or (scored if options.prefill_only else 512 if on_cpu else 2048)
        spec = EngineSpec(size, blocks, budget, options.max_running, GUESSED, batch_below=options.batch_below)
        make: type[Any] = FCFS
        policy = make() if policy is None else policy
        policy.reset(spec, np.random.default_rng(options.seed))
        self.core = EngineCore(kv, policy, computes, RealClock(), spec, max_model_len=longest, max_scored_len=scored)
        self._next = 0

    def _sizes(self, options: EngineOptions, block_bytes: int, size: int, free: int) -> tuple[int, int]:
        """Blocks of the pool, and most tokens of a request."""
        context = self.model.config.max_len
        longest = options.max_model_len or context
        if longest > context:
            raise InputError(f"max_model_len must be at most {context}, the model's context, got {longest}.")
        blocks = options.blocks
        if blocks is None:
            wanted = 1 << 16 if options.prefill_only else options.max_running * -(-longest // size)
            blocks = min(wanted, int(free * MEMORY_SHARE) // block_bytes)
        needed = -(-longest // size) if options.max_model_len and not options.prefill_only else 1
        if blocks < needed:
            raise InputError(
                f"the pool has {blocks} blocks of {size} tokens; a request of {min(longest, needed * size)} tokens needs {needed} "
                f"({needed * block_bytes / 2**20:.0f} MiB). Give blocks={needed} or more, or a smaller max_model_len."
            )
        return blocks, longest

    @cached_property
    def text(self) -> Text:
        """The checkpoint's tokenizer."""
        return Text.load(self.path)

    def request(self, prompt: str | Sequence[int], params: SamplingParams | None = None, **extras: Any) -> Request:
        """Make a request for the core.

        Parameters
        ----------
        prompt : str or sequence of int
            A text, or tokens.
        params : SamplingParams or None
            None: the defaults.
        **extras
            ``program``, ``priority``, ``deadline`` (s from now), ``tool``, ``is_last``, ``salt``.

        Raises
        ------
        InputError
            If the prompt is empty, or a token of it, or one that is allowed or ends the answer, is not in the vocabulary.
        """
        params = params or SamplingParams()
        tokens = self.text.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if not tokens:
            raise InputError("the prompt is empty; give at least one token.")
        for what, ids in (("the prompt", tokens), ("allowed_token_ids", params.allowed_token_ids), ("stop_ids", params.stop_ids)):
            self._check(what, ids)
        eos = frozenset() if params.ignore_eos else self.eos_ids
        now, deadline = self.core.clock.now(), extras.pop("deadline", None)
        if params.prompt_logprobs is not None:
            extras |= {"prompt_logprobs": [TokenLogprobs(tokens[0], math.nan)], "salt": uuid4().hex}  # a salt of its own: nothing is cached
        extras["deadline"] = None if deadline is None else now + deadline
        self._next += 1
        stop_ids = eos | frozenset(params.stop_ids)
        return Request(self._next, len(tokens), params.max_tokens, now, tokens, stop_ids=stop_ids, sampling=params, **extras)

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the configuration's, and the tokenizer's if there is one."""
        return self.model.config.eos_ids | (self.text.eos_ids if self.has_text else frozenset())

    @property
    def has_text(self) -> bool:
        """Whether the checkpoint has a tokenizer; without one it takes and returns tokens."""
        return (self.path / "tokenizer.json").exists()

    def _check(self, what: str, tokens: Sequence[int]) -> None:
        vocab = self.model.config.vocab
        wrong = next((token for token in tokens if type(token) is not int or not 0 <= token < vocab), None)
        if wrong is not None:
            raise InputError(f"{what} has the token {wrong!r}; tokens are whole numbers in [0, {vocab}).")

    def generate(
        self, prompts: Sequence[str | Sequence[int]], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[Completion]:
        """Answer all prompts, and return the answers in their order.

        Raises
        ------
        InputError
            If a prompt could never run; then none does.
        CandidateError
            If the policy fails, or lets nothing run.
        """
        asked = [params or SamplingParams()] * len(prompts) if params is None or isinstance(params, SamplingParams) else list(params)
        if len(asked) != len(prompts):
            raise InputError(f"there are {len(prompts)} prompts and {len(asked)} SamplingParams; give one for each, or one for all.")
        requests = [self.request(prompt, each) for prompt, each in zip(prompts, asked, strict=True)]
        for r in requests:
            self.core.check(r)
        answers = {r.id: _Answer(self, r) for r in requests}
        stepper = Stepper(self.core)
        try:
            for r in requests:
                self.core.add(r)
            while any(r.finish is None for r in requests):
                for progress in stepper.step():
                    if progress.request.id in answers:
                        answers[progress.request.id].take(progress)
        finally:
            abandon(self.core, requests)
        return [answers[r.id].completion() for r in requests]

    def score(self, prompts: Sequence[str | Sequence[int]], choices: Sequence[str | int], *, whole: bool = False) -> np.ndarray:
        """Return the probability of each choice as the answer, shape (prompts, choices): see :func:`.prefillonly.score.score`."""
        from .prefillonly.score import score

        return score(self, prompts, choices, whole=whole)

    def calibrate(self) -> CostModel:
        """Measure steps of many loads on this machine, fit a cost model to them, and tell the policy.

        Raises
        ------
        InputError
            If requests are running.
        """
        core = self.core
        if core.requests:
            raise InputError(f"calibration needs an idle engine; {len(core.requests)} requests are here.")
        records: list[StepRecord] = []
        old, core.on_step = core.on_step, records.append
        rng = np.random.default_rng(0)
        longest = min(core.max_model_len - 8, 1024)
        try:
            for count, part in ((1, 0), (1, 1), (4, 1 / 4), (8, 1 / 8), (16, 0), (16, 1 / 8), (32, 0), (2, 1 / 2)):
                shape = (min(count, core.spec.max_running), max(int(longest * part), min(8, longest), 1))
                self.generate(rng.integers(self.model.config.vocab, size=shape).tolist(), SamplingParams(max_tokens=8, ignore_eos=True))
        finally:
            core.on_step = old
        cost = fit(records)
        core.spec = msgspec.structs.replace(core.spec, cost=cost)
        core.policy.reset(core.spec, np.random.default_rng(0))
        return cost


class _Answer:
    """Gathers what steps bring to one request, and ends it at a stop text."""

    def __init__(self, llm: LLM, request: Request) -> None:
        self._llm, self._request = llm, request
        self._details: list[TokenLogprobs] = []
        self._text = ""
        self._stream = llm.text.stream(request.sampling.stop) if request.sampling.stop else None

    def take(self, progress: Progress) -> None:
        if progress.details:
            self._details += progress.details[: len(progress.tokens)]
        if self._stream is None:
            return
        # the token that stopped it is no text
        self._text += self._stream.push(progress.tokens[:-1] if progress.finish == "stop" else progress.tokens)
        if progress.finish is not None:
            self._text += self._stream.flush()
        elif self._stream.is_stopped:
            self._llm.core.abort(self._request.id, "stop")

    def completion(self) -> Completion:
        r = self._request
        assert r.tokens is not None
        tokens = r.tokens[r.n_input :]
        if self._stream is None and self._llm.has_text:
            self._text = self._llm.text.decode(tokens[:-1] if r.finish == "stop" else tokens)
        finish = "stop" if self._stream is not None and self._stream.is_stopped else str(r.finish)
        return Completion(self._text, tokens, finish, self._details, r.n_hit, r.error, r.prompt_logprobs)
