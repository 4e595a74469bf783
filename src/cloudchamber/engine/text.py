"""Text and tokens: a checkpoint's tokenizer, its chat template, and text that comes token by token."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cloudchamber.core.errors import InputError, MissingExtra

UNFINISHED = "\ufffd"  # what a decoder shows for bytes that are no character, or not yet one
FEW = 16  # tokens held back before looking for a part that no later byte can change
CHARACTER = 4  # bytes of a UTF-8 character at most, and so tokens that one may span


class Text:
    """Tokenizer and chat template of a checkpoint.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
    eos_ids : iterable of int
        Tokens that end an answer.
    template : str or None
        Chat template (jinja2).
    special : mapping of str to str, optional
        Names of special tokens that the template may use (``bos_token``, …).
    """

    def __init__(
        self, tokenizer: Any, eos_ids: Iterable[int] = (), template: str | None = None, special: dict[str, str] | None = None
    ) -> None:
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.eos_ids = frozenset(eos_ids)
        self._source, self._names = template, special or {}
        self._template: Any = None
        self.special_ids = frozenset(i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special)
        self.byte_ids = frozenset(i for b in range(256) if (i := tokenizer.token_to_id(f"<0x{b:02X}>")) is not None)

    @classmethod
    def load(cls, path: str | Path) -> Text:
        """Read ``tokenizer.json`` and what stands beside it in a checkpoint's folder.

        Raises
        ------
        InputError
            If there is no readable ``tokenizer.json``.
        MissingExtra
            If ``tokenizers`` is not installed.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingExtra("text in and out of a model needs tokenizers", "engine") from None
        path = Path(path)
        try:
            tokenizer = Tokenizer.from_str((path / "tokenizer.json").read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception for a file it cannot read
            raise InputError(f"{path / 'tokenizer.json'} is no tokenizer that can be read: {error}") from None
        settings = _read(path / "tokenizer_config.json")
        names = {name: _content(value) for name, value in settings.items() if name.endswith("_token") and _content(value)}
        eos = _ids(_read(path / "generation_config.json")) or _ids(_read(path / "config.json"))
        named = tokenizer.token_to_id(names["eos_token"]) if "eos_token" in names else None
        return cls(tokenizer, eos | ({named} if named is not None else set()), _template(path, settings), names)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text, with those that the model wants around it (``<s>``) unless ``special`` is false.

        Raises
        ------
        InputError
            If it is no Unicode text (lone surrogates).
        """
        try:
            [found] = self._tokenizer.encode_batch_fast([text], add_special_tokens=special)  # lets other threads run, unlike encode
        except (TypeError, UnicodeEncodeError):
            raise InputError("the text holds half a surrogate pair, which is no character.") from None
        return list(found.ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, without special ones."""
        return str(self._tokenizer.decode(list(ids)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What to show for each token, no two alike: its text; where others have the same, the vocabulary's entry; or its number."""
        ids = range(max(self._tokenizer.get_vocab().values(), default=-1) + 1)
        texts = self._tokenizer.decode_batch([[i] for i in ids], skip_special_tokens=False)
        alike = Counter(texts)
        names = [text if alike[text] == 1 else self._tokenizer.id_to_token(i) or "" for i, text in zip(ids, texts, strict=True)]
        alike = Counter(names)
        whole = [bool(name) and alike[name] == 1 and UNFINISHED not in text for name, text in zip(names, texts, strict=True)]
        return tuple(name if whole[i] else f"token_id:{i}" for i, name in enumerate(names))

    def stream(self, stop: Sequence[str] = ()) -> Stream:
        """Text of an answer as its tokens come; it ends before the first of the ``stop`` texts."""
        return Stream(self, stop)

    def chat(self, messages: Sequence[dict[str, Any]], variables: Mapping[str, Any] = MappingProxyType({})) -> list[int]:
        """Tokens of a conversation, ready for the assistant's answer; ``variables`` go to the template.

        Raises
        ------
        InputError
            If the checkpoint has no chat template, or the template refuses the messages, or a variable has a name of its own.
        """
        from jinja2 import TemplateError

        if self._source is None:
            raise InputError("this checkpoint has no chat template; use /v1/completions, or add chat_template.jinja to its folder.")
        taken = sorted({"messages", "self"} & variables.keys())
        if taken:
            raise InputError(f"{taken[0]} is no variable of a chat template that can be set; leave it out of chat_template_kwargs.")
        try:
            if self._template is None:
                self._template = _environment().from_string(self._source)
            prompt = self._template.render({"add_generation_prompt": True, **self._names, **variables, "messages": list(messages)})
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise InputError(f"the checkpoint's chat template refuses these messages: {error}") from None
        return self.encode(prompt, special=False)


class Stream:
    """An answer's text as its tokens come, in whole characters: all pieces together are what decoding at once gives.

    Parameters
    ----------
    text : Text
    stop : sequence of str
        Texts that end the answer, which may span tokens; what might become one is held back.
    """

    def __init__(self, text: Text, stop: Sequence[str] = ()) -> None:
        self._text, self._stop = text, tuple(stop)
        self._ids: list[int] = []  # from the last piece on: a decoder may treat the first token of a text differently
        self._shown = ""
        self._held = ""
        self.is_stopped = False

    def push(self, ids: Iterable[int]) -> str:
        """Text that is certain now, given further tokens."""
        new = [i for i in ids if i not in self._text.special_ids]
        self._ids += new
        if self.is_stopped or not new or new[-1] in self._text.byte_ids:  # a run of single bytes is one text or none
            return ""
        whole = self._text.decode(self._ids)
        if not whole.endswith(UNFINISHED):
            return self._cut(self._advance(whole, new))
        tail = self._ids[-CHARACTER:]
        if len(self._ids) > FEW and self._text.decode(self._ids[:-CHARACTER]) + self._text.decode(tail) == whole:
            return self._cut(self._advance(whole[: len(whole) - len(self._text.decode(tail))], tail, ""))
        return ""

    def flush(self) -> str:
        """What was held back, at the end of the answer."""
        if self.is_stopped:
            return ""
        rest = self._cut(self._advance(self._text.decode(self._ids), []))
        held, self._held = self._held, ""
        return rest if self.is_stopped else rest + held

    def _advance(self, whole: str, window: list[int], shown: str | None = None) -> str:
        piece = whole[len(self._shown) :]
        if piece:
            self._ids = list(window)
            self._shown = self._text.decode(window) if shown is None else shown
        return piece

    def _cut(self, piece: str) -> str:
        """What may be shown of new text: nothing from a stop text on, nor what may yet become one."""
        if not self._stop:
            return piece
        text = self._held + piece
        found = [at for each in self._stop if (at := text.find(each)) >= 0]
        if found:
            self.is_stopped, self._held = True, ""
            return text[: min(found)]
        most = max(len(each) for each in self._stop) - 1
        keep = next((n for n in range(min(most, len(text)), 0, -1) if any(each.startswith(text[-n:]) for each in self._stop)), 0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no JSON that can be read: {error}") from None
    return found if isinstance(found, dict) else {}


def _content(token: Any) -> str:
    """A special token's text, in the old layout (an object) or the new one."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else ""


def _ids(config: dict[str, Any]) -> set[int]:
    found = config.get("eos_token_id")
    return {i for i in (found if isinstance(found, list) else [found]) if isinstance(i, int)}


def _template(path: Path, settings: dict[str, Any]) -> str | None:
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):  # several by name
        found = next((each.get("template") for each in found if each.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _environment() -> Any:
    """Where chat templates run: a checkpoint is somebody else's file, so its template gets no way out."""
    from jinja2 import TemplateError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks what a model wrote, for training; here it only encloses."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation])
    environment.filters["tojson"] = to_json
    environment.globals.update(raise_exception=refuse, strftime_now=lambda form: datetime.now().strftime(form))
    return environment
