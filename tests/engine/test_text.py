import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudchamber.core.errors import InputError
from cloudchamber.engine.text import Text

tokenizers = pytest.importorskip("tokenizers")

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_level():
    """Byte-level BPE with every byte, some pairs, and two special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), special_tokens=["<s>", "</s>"], show_progress=False
    )
    made.train_from_iterator(["the answer is one, the answer is two. 你好，世界 🙂🙃 naïve café " * 4], trainer)
    made.add_tokens([AddedToken("<tool>", special=False)])
    return made


def pieces_and_bytes():
    """As Llama 2 has it: words begin with a lower one eighth block, what is unknown is spelled in bytes."""
    from tokenizers import Tokenizer, decoders, models

    vocab = {"<unk>": 0} | {f"<0x{b:02X}>": b + 1 for b in range(256)}
    for piece in ["▁", "▁the", "a", "▁a", "é", "🙂", "b", "▁▁"]:
        vocab[piece] = len(vocab)
    made = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.add_special_tokens(["<s>"])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return made


TEXTS = {"byte level": Text(byte_level()), "pieces and bytes": Text(pieces_and_bytes())}
SIZES = {name: each._tokenizer.get_vocab_size() for name, each in TEXTS.items()}


@pytest.mark.parametrize("name", TEXTS)
@given(data=st.data())
def test_streamed_text_is_the_text_decoded_at_once(name, data):
    text = TEXTS[name]
    bursts = data.draw(st.lists(st.lists(st.integers(0, SIZES[name] - 1), max_size=6), max_size=40))
    stream = text.stream()
    got = [stream.push(burst) for burst in bursts]
    assert "".join(got) + stream.flush() == text.decode([i for burst in bursts for i in burst])


@given(st.text(max_size=40))
def test_pieces_end_with_whole_characters(words):
    text = TEXTS["byte level"]
    stream, got = text.stream(), []
    for i in text.encode(words):
        got.append(stream.push([i]))
    assert "".join(got) + stream.flush() == words
    assert all("\ufffd" not in piece for piece in got) or "\ufffd" in words


@pytest.mark.parametrize("pattern", [[0x80], [0xF0, 0x9F], [0xF0, 0x9F, 0x98], [0xC3, 0xC3, 0xA9, 0x80], [0xE4, 0xBD]])
def test_endless_broken_bytes_are_not_held_back_for_ever(pattern):
    text = TEXTS["byte level"]
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # the other bytes are written as 256, 257, …
    letters = {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(sorted(set(range(256)) - set(shown)))}
    ids = [text._tokenizer.token_to_id(letters[b]) for b in pattern * 100]
    stream, got = text.stream(), ""
    for i in ids:
        got += stream.push([i])
        assert len(stream._ids) <= 24
    assert got + stream.flush() == text.decode(ids)


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_stop_cuts_before_the_first_match_wherever_pieces_end(words, stop, data):
    stream = TEXTS["byte level"].stream(stop)
    got, left = "", words
    while left and not stream.is_stopped:
        n = data.draw(st.integers(1, len(left)))
        got += stream._cut(left[:n])
        left = left[n:]
    got += stream.flush()
    found = [at for each in stop if (at := words.find(each)) >= 0]
    ends = [at + len(each) for each in stop if (at := words.find(each)) >= 0]
    if not found:
        assert got == words
        assert not stream.is_stopped
    else:
        assert stream.is_stopped
        assert words.startswith(got)
        assert len(got) <= max(found)
        assert len(got) >= min(found)
        assert len(words) - len(left) >= min(ends)


def test_stop_may_span_tokens_and_is_not_shown():
    text = TEXTS["byte level"]
    stream = text.stream(["wer is"])
    got = ""
    for i in text.encode("the answer is one"):
        got += stream.push([i])
    assert got + stream.flush() == "the ans"
    assert stream.is_stopped


def write(path, **files):
    byte_level().save(str(path / "tokenizer.json"))
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return path


def test_end_tokens_come_from_every_file_that_names_them(tmp_path):
    write(
        tmp_path,
        generation_config={"eos_token_id": [7, 9]},
        config={"eos_token_id": 3},
        tokenizer_config={"eos_token": {"content": "</s>"}},
    )
    assert Text.load(tmp_path).eos_ids == {7, 9, 1}
    (tmp_path / "generation_config.json").unlink()
    assert Text.load(tmp_path).eos_ids == {3, 1}


def test_chat_template_renders_as_transformers_does(tmp_path):
    from transformers import PreTrainedTokenizerFast

    messages = [{"role": "user", "content": 'Say "é" <now>'}, {"role": "assistant", "content": "é"}, {"role": "user", "content": "the\n"}]
    template = TEMPLATE + "{{ messages[0] | tojson }}{% generation %}x{% endgeneration %}{% for m in messages %}{% break %}{% endfor %}"
    write(tmp_path, tokenizer_config={"eos_token": "</s>", "chat_template": template})
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="</s>", chat_template=template)
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    text = Text.load(tmp_path)
    assert text.chat(messages) == text.encode(expected, special=False)


def test_template_file_goes_before_the_one_in_the_settings(tmp_path):
    write(tmp_path, tokenizer_config={"chat_template": [{"name": "default", "template": "old"}]})
    assert Text.load(tmp_path).chat([]) == Text.load(tmp_path).encode("old")
    (tmp_path / "chat_template.jinja").write_text("new")
    assert Text.load(tmp_path).chat([]) == Text.load(tmp_path).encode("new")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% if %}", "Expected an expression"),
        ("{{ messages[0].content + 1 }}", "refuses"),
    ],
)
def test_template_that_cannot_serve_is_refused_in_words(template, says):
    text = Text(byte_level(), template=template)
    with pytest.raises(InputError, match=says):
        text.chat([{"role": "user", "content": "x"}])


def test_bad_files_and_texts_are_refused(tmp_path):
    with pytest.raises(InputError, match="tokenizer.json"):
        Text.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="tokenizer.json"):
        Text.load(tmp_path)
    with pytest.raises(InputError, match="surrogate"):
        TEXTS["byte level"].encode("a\ud800")


def test_a_truncating_tokenizer_does_not_truncate():
    made = byte_level()
    made.enable_truncation(3)
    assert len(Text(made).encode("the answer is one, the answer is two")) > 3


@pytest.mark.parametrize("name", TEXTS)
def test_no_two_tokens_have_the_same_name(name):
    text = TEXTS[name]
    assert len(set(text.names)) == len(text.names) == SIZES[name]
    assert not any("\ufffd" in each for each in text.names)


def test_names_are_texts_unless_those_are_alike():
    names = {name: text.names.__getitem__ for name, text in TEXTS.items()}
    ids = {name: text._tokenizer.token_to_id for name, text in TEXTS.items()}
    assert names["byte level"](ids["byte level"]("Ġanswer")) == " answer"
    for own in ("a", "▁a", "<0x61>"):  # all decode to "a"
        assert names["pieces and bytes"](ids["pieces and bytes"](own)) == own
    assert names["pieces and bytes"](ids["pieces and bytes"]("é")) == "é"
    broken = ids["pieces and bytes"]("<0xC3>")
    assert names["pieces and bytes"](broken) == f"token_id:{broken}"
