"""Scores: how likely a prompt is to be answered by each of some choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cloudchamber.core.errors import InputError
from cloudchamber.engine.sampling import SamplingParams

if TYPE_CHECKING:
    from cloudchamber.engine.llm import LLM


@dataclass(frozen=True)
class Choices:
    """Answers to choose from, as tokens, and the questions that their probabilities take.

    Parameters
    ----------
    tokens : tuple of tuple of int
        Of each choice.
    """

    tokens: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, llm: LLM, choices: Sequence[str | int], whole: bool = False) -> Choices:
        """Tokenise choices.

        Raises
        ------
        InputError
            If there is none, one is empty or twice there, a token id is unknown, or a choice has several tokens and ``whole`` is False.
        """
        if not choices:
            raise InputError("choices is empty; give at least one answer to choose from.")
        found: list[tuple[int, ...]] = []
        for choice in choices:
            if isinstance(choice, str):
                pieces = tuple(llm.text.encode(choice, special=False))
            elif type(choice) is int and 0 <= choice < llm.model.config.vocab:
                pieces = (choice,)
            else:
                raise InputError(f"choice {choice!r} is no token; ids are whole numbers in [0, {llm.model.config.vocab}).")
            if not pieces:
                raise InputError("a choice is empty; give a text of at least one token.")
            if len(pieces) > 1 and not whole:
                shown = ", ".join(repr(llm.text.decode([piece])) for piece in pieces)
                raise InputError(
                    f"choice {choice!r} has {len(pieces)} tokens ({shown}), and one answer token is drawn; choose an answer of one token "
                    "(a leading space often matters), or score whole texts by LLM.score(..., whole=True)."
                )
            if pieces in found:
                raise InputError(f"choice {choice!r} is there twice.")
            found.append(pieces)
        return cls(tuple(found))

    def stems(self) -> list[tuple[int, ...]]:
        """Beginnings of choices after which a token is asked for; the empty one first."""
        return sorted({choice[:i] for choice in self.tokens for i in range(len(choice))}, key=lambda each: (len(each), each))

    def next_tokens(self, stem: tuple[int, ...]) -> tuple[int, ...]:
        """Tokens that may follow a beginning, ascending."""
        after = {choice[len(stem)] for choice in self.tokens if len(choice) > len(stem) and choice[: len(stem)] == stem}
        return tuple(sorted(after))


def score(llm: LLM, prompts: Sequence[str | Sequence[int]], choices: Sequence[str | int], *, whole: bool = False) -> np.ndarray:
    """Return the probability of each choice as the answer, among the choices.

    Parameters
    ----------
    llm : LLM
    prompts : sequence of str or of tokens
    choices : sequence of str or token id
        Each of one token: the probabilities are the softmax over their logits.
    whole : bool, default False
        Choices may have several tokens; a choice's weight is the probability of its whole text.

    Returns
    -------
    ndarray of float64, shape (prompts, choices)
        Rows sum to 1.

    Raises
    ------
    InputError
        If a choice is unusable, or a prompt longer than the engine takes.
    """
    asked = Choices.of(llm, choices, whole)
    stems = asked.stems()
    begun = [llm.text.encode(prompt) if isinstance(prompt, str) else list(prompt) for prompt in prompts]
    params = {stem: SamplingParams(1, ignore_eos=True, allowed_token_ids=(t := asked.next_tokens(stem)), logprobs=len(t)) for stem in stems}
    answers = iter(llm.generate([[*prompt, *stem] for prompt in begun for stem in stems], [params[stem] for _ in begun for stem in stems]))
    found = []
    for _ in begun:
        after: dict[tuple[int, ...], float] = {}  # log-probability of what follows the prompt
        for stem in stems:
            answer = next(answers)
            if answer.error:
                raise InputError(f"a prompt could not be scored: {answer.error}")
            drawn = answer.logprobs[0]
            before = after.get(stem, 0.0)
            after |= {(*stem, token): before + logprob + drawn.log_mass for token, logprob in drawn.top}
        weights = np.array([after[choice] for choice in asked.tokens])
        weights = np.exp(weights - weights.max())
        found.append(weights / weights.sum())
    return np.array(found).reshape(len(begun), len(asked.tokens))
