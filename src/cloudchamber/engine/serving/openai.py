"""OpenAI's request bodies, checked, and its response bodies, written."""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from cloudchamber.core.errors import InputError
from cloudchamber.engine.prefillonly.score import Choices
from cloudchamber.engine.request import Request
from cloudchamber.engine.sampling import SamplingParams

from .aio import Delta
from .fields import check_field

if TYPE_CHECKING:
    from cloudchamber.engine.llm import LLM
    from cloudchamber.engine.text import Stream

MOST_ANSWERS = 256  # of one HTTP request
MOST_CHOICES = 20  # of which probabilities can be asked
MOST_LOGPROBS = 20  # for each token
Seed = Annotated[int, msgspec.Meta(ge=-(2**62), lt=2**62)]
Count = Annotated[int, msgspec.Meta(ge=1, le=MOST_ANSWERS)]
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
GREEDY = 1e-5  # temperatures below it would overflow


class Body(msgspec.Struct, kw_only=True):
    """What every call may say: the model, and what the scheduler should know."""

    model: str = ""
    program_id: Name | None = None
    is_last: bool = False
    tool: Name | None = None
    deadline_ms: Annotated[float, msgspec.Meta(gt=0)] | None = None
    priority: Int32 = 0
    cache_salt: Name = ""


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """``include_usage``: a last event with the usage. ``include_obfuscation``: padding against eavesdroppers, of which there is none."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Sampled(Body, kw_only=True):
    """What both ways of asking for text share."""

    n: Count = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: Int32 = 0
    seed: Seed | None = None
    stop: Name | Annotated[list[Name], msgspec.Meta(max_length=16)] = []
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    allowed_token_ids: Annotated[list[int], msgspec.Meta(min_length=1)] | None = None
    stream: bool = False
    stream_options: StreamOptions = msgspec.field(default_factory=StreamOptions)
    max_tokens: int | None = None


class CompletionBody(Sampled, kw_only=True):
    """``POST /v1/completions``."""

    prompt: str | list[str | int | list[int]]
    echo: bool = False
    logprobs: int | None = None


class Message(msgspec.Struct):
    """One message of a conversation; further fields go to the template."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]]


class ChatBody(Sampled, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    logprobs: bool = False
    top_logprobs: int = 0
    max_completion_tokens: int | None = None
    chat_template_kwargs: dict[str, Any] = {}


class ScoreBody(Body, kw_only=True):
    """``POST /v1/score``: how likely is each of the ``choices`` as the next token after the query and a document."""

    query: str
    documents: list[str] = []
    items: list[str] = []
    choices: tuple[str, ...] = ("Yes", "No")
    item_first: bool = False


@dataclass(frozen=True)
class Call:
    """What to run: prompts in tokens, ``n`` answers to each, and how to write them."""

    prompts: list[list[int]]
    params: SamplingParams
    extras: dict[str, Any]
    n: int = 1
    is_chat: bool = False
    is_streamed: bool = False
    with_usage: bool = False
    echo: list[str] = field(default_factory=list)
    is_prompt_only: bool = False
    id: str = ""

    def asked(self) -> list[tuple[list[int], SamplingParams]]:
        """Each answer's prompt and parameters: with a seed, every one of the ``n`` has its own."""
        seed = self.params.seed
        each = [self.params if seed is None else replace(self.params, seed=seed + i) for i in range(self.n)]
        return [(prompt, params) for prompt in self.prompts for params in each]


def read(data: bytes, kind: type[Any]) -> Any:
    """Decode and check a body.

    Raises
    ------
    InputError
        If it is no JSON, or a field is unknown, of the wrong type, out of range, or asks for what is not served.
    """
    try:
        found = msgspec.json.decode(data)
        if not isinstance(found, dict):
            raise InputError(f"the body must be a JSON object, got {type(found).__name__}.")
        found = {name: value for name, value in found.items() if value is not None}
        for name, value in found.items():
            check_field(name, value, kind.__struct_fields__)
        return msgspec.convert(found, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if place := re.fullmatch(r"Expected (.*) - at `\$\.(.*)`", str(error)):
            raise InputError(f"{place[2]} must be {place[1].replace('`', '')}.") from None
        raise InputError(f"the body is not a valid {kind.__name__.removesuffix('Body').lower()} request: {error}") from None


def completion(body: CompletionBody, llm: LLM, most: int | None) -> Call:
    """What a completions body asks for; ``most``: the only max_tokens that a prefill-only server takes."""
    given: list[Any] = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    given = [given] if given and all(type(each) is int for each in given) else given
    if any(type(each) is int for each in given):
        raise InputError("prompt must be a text, a list of texts, a list of token ids or a list of such lists; it mixes them.")
    if not given:
        raise InputError("prompt is empty; give at least one text or one token.")
    prompts = [llm.text.encode(each) if isinstance(each, str) else each for each in given]
    for prompt in prompts:
        if not prompt:
            raise InputError("a prompt is empty; give at least one token.")
    if len(prompts) * body.n > MOST_ANSWERS:
        raise InputError(f"{len(prompts)} prompts with n = {body.n} are more than {MOST_ANSWERS} answers; send several requests.")
    echo = [each if isinstance(each, str) else llm.text.decode(each) for each in given] if body.echo else []
    is_prompt_only = body.echo and body.max_tokens == 0  # the engine draws a token, which is not told
    params = _params(body, 1 if is_prompt_only else _limited(body.max_tokens, most, 16), _named(body.logprobs, llm))
    params = replace(params, prompt_logprobs=body.logprobs if body.echo else None)
    return _call(body, prompts, params, echo=echo, is_prompt_only=is_prompt_only, id=f"cmpl-{uuid.uuid4().hex}")


def chat(body: ChatBody, llm: LLM, most: int | None) -> Call:
    """What a chat body asks for: without max_tokens, as much as the context allows."""
    prompt = llm.text.chat([_message(each) for each in body.messages], body.chat_template_kwargs)
    if not prompt:
        raise InputError("the chat template made an empty prompt of these messages.")
    given = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    max_tokens = _limited(given, most, max(1, llm.core.max_model_len + 1 - len(prompt)))
    if body.top_logprobs and not body.logprobs:
        raise InputError("top_logprobs needs logprobs to be true.")
    params = _params(body, max_tokens, _named(body.top_logprobs if body.logprobs else None, llm))
    return _call(body, [prompt], params, is_chat=True, id=f"chatcmpl-{uuid.uuid4().hex}")


def score(body: ScoreBody, llm: LLM) -> Call:
    """What a score body asks for: one token for each document, drawn from the choices alone."""
    items = body.documents or body.items
    if not items or (body.documents and body.items):
        raise InputError("give documents (or items, the same), at least one.")
    if len(items) > MOST_ANSWERS:
        raise InputError(f"{len(items)} documents are more than {MOST_ANSWERS}; send several requests.")
    if len(body.choices) > MOST_CHOICES:
        raise InputError(f"{len(body.choices)} choices are more than {MOST_CHOICES}, the most whose probabilities are kept.")
    choices = [token for (token,) in Choices.of(llm, body.choices).tokens]
    prompts = [llm.text.encode(item + body.query if body.item_first else body.query + item) for item in items]
    if not all(prompts):
        raise InputError("query and document are both empty; give at least one token.")
    params = SamplingParams(max_tokens=1, logprobs=len(choices), allowed_token_ids=tuple(choices), ignore_eos=True)
    return Call(prompts, params, _extras(body), id=f"score-{uuid.uuid4().hex}")


def _message(given: Mapping[str, Any]) -> dict[str, Any]:
    """A message with its parts joined; anything but text is refused."""
    try:
        message = msgspec.convert({name: value for name, value in given.items() if value is not None}, Message)
    except msgspec.ValidationError as error:
        raise InputError(f"a message is not valid: {error}") from None
    content = message.content
    if not isinstance(content, str):
        if any(part.get("type") != "text" or not isinstance(part.get("text"), str) for part in content):
            raise InputError('content may be a text or a list of {"type": "text", "text": …}; images and sound are not served.')
        content = "".join(part["text"] for part in content)
    return {**given, "content": content}


def _limited(given: int | None, most: int | None, default: int) -> int:
    if most is not None and given not in (None, most):
        raise InputError(f"this server is prefill-only: max_tokens must be {most}, got {given}.")
    return most or (default if given is None else given)


def _named(logprobs: int | None, llm: LLM) -> int | None:
    """Check the log-probabilities asked for, and have the tokens' names ready: the first time that takes a while."""
    if logprobs is not None:
        if not 0 <= logprobs <= MOST_LOGPROBS:
            raise InputError(f"logprobs must be in [0, {MOST_LOGPROBS}], got {logprobs}.")
        _ = llm.text.names
    return logprobs


def _params(body: Sampled, max_tokens: int, logprobs: int | None) -> SamplingParams:
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=0.0 if 0 < body.temperature < GREEDY else body.temperature,
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop),
        stop_ids=tuple(body.stop_token_ids),
        logprobs=logprobs,
        allowed_token_ids=tuple(dict.fromkeys(body.allowed_token_ids or ())),
        **{name: getattr(body, name) for name in ("top_p", "top_k", "seed", "ignore_eos")},
    )


def _call(body: Sampled, prompts: list[list[int]], params: SamplingParams, **more: Any) -> Call:
    usage = body.stream_options.include_usage
    return Call(prompts, params, _extras(body), body.n, is_streamed=body.stream, with_usage=usage, **more)


def _extras(body: Body) -> dict[str, Any]:
    return {
        "program": body.program_id,
        "is_last": body.is_last,
        "tool": body.tool,
        "priority": body.priority,
        "salt": body.cache_salt,
        "deadline": None if body.deadline_ms is None else body.deadline_ms / 1000,
    }


# ---------------------------------------------------------------------- responses
class Writer:
    """The answer to a call, whole or in pieces.

    Parameters
    ----------
    call : Call
    llm : LLM
    """

    def __init__(self, call: Call, llm: LLM) -> None:
        self.call, self._llm = call, llm
        self._created = int(time.time())
        self._at: dict[int, int] = {}  # characters of each answer before its next token
        self._streams: dict[int, Stream] = {}

    def whole(self, deltas: Sequence[Delta], requests: Sequence[Request]) -> dict[str, Any]:
        """The one body of an answer that is not streamed."""
        kind = "chat.completion" if self.call.is_chat else "text_completion"
        return self._body(kind, [self.choice(i, delta, "message") for i, delta in enumerate(deltas)]) | {"usage": self.usage(requests)}

    def piece(self, i: int, delta: Delta) -> dict[str, Any]:
        """One event of a stream."""
        return self._body("chat.completion.chunk" if self.call.is_chat else "text_completion", [self.choice(i, delta, "delta")])

    def last(self, requests: Sequence[Request]) -> dict[str, Any]:
        """The event after the answers: what they took."""
        return self._body("chat.completion.chunk" if self.call.is_chat else "text_completion", []) | {"usage": self.usage(requests)}

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.call.id, "object": kind, "created": self._created, "model": self._llm.name, "choices": choices}

    def choice(self, i: int, delta: Delta, key: str) -> dict[str, Any]:
        """One answer, or what is new of it."""
        is_first = i not in self._at
        echo = self.call.echo[i // self.call.n] if self.call.echo and is_first else ""
        has_prompt = self.call.params.prompt_logprobs is not None
        self._at.setdefault(i, 0 if has_prompt else len(echo))
        text = echo if self.call.is_prompt_only else echo + delta.text
        has_logprobs = self.call.params.logprobs is not None
        found: dict[str, Any] = {"index": i, "finish_reason": delta.finish, "logprobs": None}
        if self.call.is_chat:
            found[key] = ({"role": "assistant"} if is_first else {}) | {"content": text}
            if has_logprobs:
                found["logprobs"] = {"content": [self._chat_logprob(each) for each in delta.logprobs]}
        else:
            found["text"] = text
            if has_logprobs:
                prompt = self.call.prompts[i // self.call.n]
                found["logprobs"] = self._logprobs(i, delta.logprobs[: len(prompt)] if self.call.is_prompt_only else delta.logprobs)
        return found

    def _piece(self, token: int) -> str:
        """A token's name; the model may have tokens that its tokenizer lacks."""
        names = self._llm.text.names
        return names[token] if token < len(names) else f"token_id:{token}"

    def _logprobs(self, i: int, details: Iterable[Any]) -> dict[str, Any]:
        found: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        stream = self._streams.setdefault(i, self._llm.text.stream())
        for each in details:
            found["tokens"].append(self._piece(each.token))
            has_none = math.isnan(each.logprob)  # the first token of a prompt follows nothing
            found["token_logprobs"].append(None if has_none else each.logprob)
            found["top_logprobs"].append(None if has_none else {self._piece(token): value for token, value in each.top})
            found["text_offset"].append(self._at[i])
            self._at[i] += len(stream.push([each.token]))
        return found

    def _chat_logprob(self, each: Any) -> dict[str, Any]:
        def entry(token: int, value: float) -> dict[str, Any]:
            piece = self._piece(token)
            return {"token": piece, "logprob": value, "bytes": None if piece == f"token_id:{token}" else list(piece.encode())}

        return entry(each.token, each.logprob) | {"top_logprobs": [entry(*pair) for pair in each.top]}

    def usage(self, requests: Sequence[Request]) -> dict[str, Any]:
        """Tokens read, each prompt once, and tokens generated."""
        read = sum(map(len, self.call.prompts))
        made = 0 if self.call.is_prompt_only else sum(r.n_output for r in requests)
        cached = sum(r.n_hit for r in requests[:: self.call.n])
        return {
            "prompt_tokens": read,
            "completion_tokens": made,
            "total_tokens": read + made,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


def scores(call: Call, body: ScoreBody, deltas: Sequence[Delta], requests: Sequence[Request], llm: LLM) -> dict[str, Any]:
    """The body of a score response: the score is the first choice's probability among the choices."""
    data = []
    for i, delta in enumerate(deltas):
        found = {token: math.exp(value) for token, value in delta.logprobs[0].top}
        shares = [found.get(token, 0.0) for token in call.params.allowed_token_ids]
        named = dict(zip(body.choices, shares, strict=True))
        data.append({"object": "score", "index": i, "score": shares[0], "probabilities": named})
    return {"id": call.id, "object": "list", "model": llm.name, "data": data, "usage": Writer(call, llm).usage(requests)}
