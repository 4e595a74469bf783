"""The real executor: a torch model over the pages that the KV manager hands out."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from cloudchamber.core.errors import InputError

from .attention import BucketedSDPA, DecodeAttention, KVPool, PagedView, Prompt
from .draw import described, draw
from .layers import Model
from .request import Request
from .seams import KVGroup, KVLayout, KVManager, Scheduled, StepPlan, StepResult

DESCRIBED = 64  # rows of logits at once: a whole prompt's would be larger than everything else


class TorchExecutor:
    """Computes steps with a model. ``attach`` a KV manager before the first.

    Parameters
    ----------
    model : Model
    decode_attention : DecodeAttention or None
        What decodes read; None: everything in each layer's window.
    seed : int
        For requests that bring none.
    """

    lookahead = 0

    def __init__(self, model: Model, decode_attention: DecodeAttention | None = None, *, seed: int = 0) -> None:
        self.model, self.seed = model, seed
        self.windows = model.config.windows
        self.decode: Any = decode_attention or BucketedSDPA(self.windows)
        self.kv: KVManager
        self.pool: KVPool

    def layout(self, blocks: int, block_tokens: int) -> KVLayout:
        """Where the KV of so many blocks lies."""
        c = self.model.config
        group = KVGroup((c.layers, 2, block_tokens, c.kv_heads, c.head_dim), str(self.model.dtype).removeprefix("torch."))
        return KVLayout(blocks * group.page_bytes, (group,))

    def attach(self, kv: KVManager) -> None:
        """Allocate the pool of a manager.

        Raises
        ------
        InputError
            If it groups layers in a way that this executor does not know.
        """
        if len(kv.layout.groups) != 1:
            raise InputError(f"this executor computes with one group of layers, the manager has {len(kv.layout.groups)}.")
        self.kv = kv
        self.pool = KVPool(kv.blocks, kv.layout.groups[0].page_shape, self.model.dtype, self.model.device)

    def longest_scored(self, free_bytes: int) -> int:
        """Most tokens of a prompt that one token answers; here as of any other, so that the pool is the limit."""
        return self.pool.pages * self.pool.block

    def forget(self, request: Request) -> None:
        """Nothing is kept."""

    def execute(self, plan: StepPlan) -> StepResult:
        """Compute one step and draw the next tokens."""
        began = time.perf_counter()
        with torch.inference_mode():
            result = self._execute(plan)
        result.duration_s = time.perf_counter() - began
        return result

    def _execute(self, plan: StepPlan) -> StepResult:
        order = sorted(range(len(plan.entries)), key=lambda i: not _is_single(plan.entries[i]))  # those of one row first
        entries = [plan.entries[i] for i in order]
        x, singles = self._forward(entries)
        ends = np.cumsum([each.n_new for each in entries]) - 1
        drawing = [at for at, each in enumerate(entries) if each.samples]
        tokens: list[list[int]] = [[] for _ in entries]
        details: list[Any] = [None] * len(entries)
        errors = {}
        wrong = np.cumsum((~torch.isfinite(x.sum(1))).cpu().numpy())  # every layer adds to a row: what once was no number stays none
        for each, end, count in zip(entries, ends, np.diff(wrong[ends], prepend=0), strict=True):
            if count:  # told before the core registers what was written
                errors[each.request.id] = "the model's activations are not finite"
                self._clean(each.request)
            elif each.request.prompt_logprobs:
                self._describe(each, x[end + 1 - each.n_new : end + 1])
        if drawing:
            logits = self.model.logits(x if len(drawing) == len(x) else x[torch.from_numpy(ends[drawing])])
            drawn = draw(logits, [entries[at].request for at in drawing], self.seed)
            for row, at in enumerate(drawing):
                tokens[order[at]] = [drawn.tokens[row]]
                details[order[at]] = None if drawn.details[row] is None else [drawn.details[row]]
                if row in drawn.failed:
                    errors.setdefault(entries[at].request.id, "the model's logits are not finite")
        has_details = any(each is not None for each in details)
        read = getattr(self.decode, "kv_bytes", 0) if singles else 0
        return StepResult(tokens, 0.0, details if has_details else None, errors, read)

    def _forward(self, entries: list[Scheduled]) -> tuple[torch.Tensor, int]:
        """Run all layers over the entries' rows; the residual, and how many rows are decodes."""
        model, pool, device = self.model, self.pool, self.model.device
        heads, size = model.config.heads, model.config.head_dim
        tables = [self.kv.table(each.request) for each in entries]
        singles = sum(_is_single(each) for each in entries)
        tokens: list[int] = []
        positions, rows, kept = [], [], []
        prompts = []
        windows = set(self.windows)
        for each, table in zip(entries, tables, strict=True):
            if not _is_single(each):
                prompts.append(Prompt.of(each, len(tokens), table, pool, windows))
            stored = np.arange(each.start, max(each.start, min(each.end, each.kept)))
            rows.append(table[stored // pool.block].astype(np.int64) * pool.stride + stored % pool.block)
            kept.append(len(tokens) + np.arange(len(stored)))
            positions.append(np.arange(each.start, each.end))
            tokens += each.request.tokens[each.start : each.end]  # type: ignore[index]
        view = _view(pool, tables[:singles], [each.end for each in entries[:singles]])
        x = model.embed(torch.tensor(tokens, device=device))
        turns = model.turns(torch.from_numpy(np.concatenate(positions)).to(device))
        new = np.concatenate(rows)
        new_rows = torch.from_numpy(new).to(device)
        target = torch.from_numpy(np.stack([new, new + pool.block], 1).ravel()).to(device)
        source = None if len(new) == len(x) else torch.from_numpy(np.concatenate(kept)).to(device)
        if singles and hasattr(self.decode, "begin"):
            self.decode.begin(view)
        attended = torch.empty(len(x), heads, size, dtype=model.dtype, device=device)
        for i, layer in enumerate(model.layers):
            qkv = layer.project(x, turns[i])
            fresh = qkv[:, heads:] if source is None else qkv[source, heads:]
            pool.keys(i).index_copy_(0, target, fresh.reshape(-1, pool.kv_heads, size))
            self.decode.wrote(i, view, new_rows)
            if singles:
                attended[:singles] = self.decode(i, qkv[:singles, :heads], view)
            for run in prompts:
                attended[run.first : run.first + run.n_new] = run.attend(i, self.windows[i], qkv, heads, pool)
            layer.finish(x, attended.view(len(x), -1))
        return x, singles

    def _describe(self, each: Scheduled, x: torch.Tensor) -> None:
        """Note log-probabilities of the prompt's tokens after these rows; rows computed again after a preemption replace what they said."""
        r = each.request
        del r.prompt_logprobs[each.start + 1 :]
        x = x[: max(0, r.n_input - 1 - each.start)]
        for at in range(0, len(x), DESCRIBED):
            for logprobs in self.model.logits(x[at : at + DESCRIBED]).log_softmax(1):
                token = r.tokens[len(r.prompt_logprobs)]  # type: ignore[index]
                r.prompt_logprobs.append(described(logprobs, token, r.sampling.prompt_logprobs))

    def _clean(self, r: Request) -> None:
        """Leave no NaN in pages that others will get: a masked key times zero would still be one."""
        pages = torch.from_numpy(self.kv.table(r).astype(np.int64))
        flat = self.pool.flat.view(self.kv.blocks, -1)
        flat[pages] = flat[pages].nan_to_num(0.0, 0.0, 0.0)


def _is_single(each: Scheduled) -> bool:
    """Whether an entry is one row that is stored: a decode."""
    return each.n_new == 1 and each.kept >= each.end


def _view(pool: KVPool, tables: list[np.ndarray], lengths: list[int]) -> PagedView:
    pages = np.empty((len(tables), max(map(len, tables), default=0)), np.int64)
    for row, table in zip(pages, tables, strict=True):
        row[: len(table)], row[len(table) :] = table, table[0]
    return PagedView(pool, pages, np.array(lengths, np.int64))
