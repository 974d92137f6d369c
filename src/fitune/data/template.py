"""Row → tokens and loss mask, with the reason for each token.

The one owner of what a model sees and of which tokens are learned: training, evaluation and
serving all come here. Knows tokenizers, roles, beginning- and end-of-text tokens; knows nothing of
batches, models or losses.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from fitune.data.encoded import Encoded, Pairs, Reason
from fitune.data.jinja import DEFAULT_CHAT_TEMPLATE, Message, choose_jinja, render
from fitune.data.kept_tokens import identity
from fitune.data.rows import Row, Turn
from fitune.data.tokenizing import TOGETHER, Asking, ask, ask_together
from fitune.errors import ConfigError, DataError

__all__ = [
    "DEFAULT_CHAT_TEMPLATE",
    "ChatTemplate",
    "Encoded",
    "Reason",
    "TextTemplate",
    "adds_bos",
    "where",
]

_MARK = "\ufdd0"
"""Splits the letters of what only spells a special token; a noncharacter, which no text holds."""

_PROBE = "answer-of-fitune"
"""Stands for an answer where the template's own words around it are wanted."""


class ChatTemplate:
    """For decoders: a conversation, of which the assistant's turns are learned.

    What a row says is tokenized as text even where it spells a special token, so only the template
    opens and ends turns.

    Args:
        tokenizer: a transformers tokenizer.
        instruction: said before the first user turn; None for none.
        chat_template: `auto` (the tokenizer's, else `DEFAULT_CHAT_TEMPLATE`), `default`, or the
            path of a Jinja file.

    Raises:
        ConfigError: the Jinja file is missing or does not render a conversation.
    """

    def __init__(
        self, tokenizer: Any, *, instruction: str | None = None, chat_template: str = "auto"
    ) -> None:
        self.tokenizer = tokenizer
        self.instruction = instruction
        self.jinja = choose_jinja(tokenizer, chat_template)
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                "the tokenizer has no end-of-text token, so no model could learn when to stop",
                fix="set eos_token in its tokenizer_config.json",
            )
        try:
            head, body = self._body([{"role": "user", "content": "a"}], "b")
            ask(tokenizer, self._tokenize_body(head, body, "b"))
        except DataError as error:
            raise ConfigError(
                f"chat template '{chat_template}' does not write an assistant turn after a "
                f"generation prompt ({error.problem})",
                fix="set chat_template: default, or mend the Jinja file",
            ) from error
        if adds_bos(tokenizer) and not head.startswith(tokenizer.bos_token):
            # Written by the template, it is there exactly once for whoever renders it.
            self.jinja = "{{- bos_token -}}" + self.jinja

    @functools.cached_property
    def identity(self) -> str | None:
        """Of what, besides a row, decides its tokens; None where that cannot be told."""
        return identity(self.tokenizer, jinja=self.jinja, instruction=self.instruction)

    def encode(self, row: Row) -> Encoded:
        """The whole conversation with its answer; every assistant turn is learned.

        Raises:
            DataError: the row has no answer, so nothing in it can be learned.
        """
        return ask(self.tokenizer, self._encode(row))

    def encode_all(self, rows: Iterable[Row]) -> Iterator[Encoded]:
        """`encode` of each, many at a time, which is faster."""
        return ask_together(self.tokenizer, map(self._encode, rows))

    def _encode(self, row: Row) -> Asking[Encoded]:
        if not (row.answer or "").strip():
            raise DataError(
                f"{where(row)} has nothing to learn: it has no answer",
                fix="give it one or remove it",
            )
        answer = {"role": "assistant", "content": self._literal(row.answer or "")}
        _, pairs = yield from self._walk([*self._messages(row), answer])
        while pairs and not pairs[-1][1].learned:  # nothing is learned from a turn's line break
            pairs.pop()
        return Encoded.of(pairs)

    def prompt(self, row: Row, examples: Sequence[Row] = ()) -> Encoded:
        """The tokens after which the model writes its answer; `examples` go before, as turns.

        Without examples, exactly the tokens with which `encode` of the same row begins.
        """
        return ask(self.tokenizer, self._prompt(row, examples))

    def prompt_all(self, rows: Iterable[Row], examples: Sequence[Row] = ()) -> Iterator[Encoded]:
        """`prompt` of each, many at a time, which is faster."""
        return ask_together(self.tokenizer, (self._prompt(row, examples) for row in rows))

    def _prompt(self, row: Row, examples: Sequence[Row]) -> Asking[Encoded]:
        messages = self._messages(row, examples)
        done, pairs = yield from self._walk(messages)
        head = self._render(messages, generation=True)
        return Encoded.of((yield from self._follow(done, pairs, head, messages)))

    def answer(self, text: str, *, ended: bool = True) -> tuple[int, ...]:
        """The tokens of an answer right after a generation prompt.

        Args:
            ended: its end of turn included.
        """
        head, body = self._body([{"role": "user", "content": "a"}], self._literal(text))
        pairs = ask(self.tokenizer, self._tokenize_body(head, body, self._literal(text)))
        left_out = {Reason.ROLE} if ended else {Reason.ROLE, Reason.END}
        return tuple(token for token, reason in pairs if reason not in left_out)

    @functools.cached_property
    def stop_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer: the template's end of turn, and end of text."""
        end = self.answer("a")[-1]
        return tuple(dict.fromkeys([end, self.tokenizer.eos_token_id]))

    def decode(self, tokens: Sequence[int]) -> str:
        """Generated tokens → the answer's text, without special tokens and outer white space.

        Words that the template itself puts before an answer (an empty thought, say) are learned
        with it, since the model must write them, and taken off here.
        """
        text = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        return text.removeprefix(self._lead).lstrip()

    @functools.cached_property
    def _lead(self) -> str:
        lead, _ = self._frame
        (tokens,) = ask(self.tokenizer, _ids(lead))
        return self.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    @functools.cached_property
    def _frame(self) -> tuple[str, str]:
        """What the template writes before and after an answer, in an assistant's turn."""
        _, body = self._body([{"role": "user", "content": "a"}], _PROBE)
        lead, found, tail = body.partition(_PROBE)
        if not found:
            raise DataError(
                "the model's chat template changes or leaves out the assistant's answer",
                fix="set chat_template: default",
            )
        return lead, tail

    @functools.cached_property
    def _special(self) -> dict[int, str]:
        """Id → text of special tokens; families such as Llama 3 name few of theirs by role."""
        added = self.tokenizer.added_tokens_decoder.items()
        named = zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=True)
        return {i: str(token) for i, token in added if token.special} | dict(named)

    @functools.cached_property
    def _special_text(self) -> re.Pattern[str]:
        longest_first = sorted(self._special.values(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)))

    def _literal(self, text: str) -> str:
        """`text` with a mark inside whatever spells a special token.

        A row that says ``</s>`` talks about the token and does not end its turn: with marks, its
        letters are tokenized as letters, so no row can open a turn or end an answer.
        """
        text = text.replace(_MARK, "")
        return self._special_text.sub(lambda m: m[0][0] + _MARK + m[0][1:], text)

    def _messages(self, row: Row, examples: Sequence[Row] = ()) -> list[Message]:
        turns: list[Turn] = []
        for example in examples:
            turns += [*example.turns, Turn("assistant", example.answer or "")]
        turns += row.turns
        messages = [{"role": turn.role, "content": self._literal(turn.text)} for turn in turns]
        if self.instruction:
            first = next(message for message in messages if message["role"] == "user")
            first["content"] = f"{self._literal(self.instruction)}\n\n{first['content']}"
        return messages

    def _render(self, messages: list[Message], *, generation: bool) -> str:
        return render(self.tokenizer, self.jinja, messages, generation=generation)

    def _body(self, messages: list[Message], answer: str) -> tuple[str, str]:
        """What stands before an assistant turn, and that turn as the template writes it."""
        head = self._render(messages, generation=True)
        full = self._render([*messages, {"role": "assistant", "content": answer}], generation=False)
        if not full.startswith(head):
            raise DataError(
                "the model's chat template writes a conversation that does not begin with its own "
                "generation prompt, so training would not see what generation sees",
                fix="set chat_template: default",
            )
        return head, full[len(head) :]

    def _walk(self, messages: list[Message]) -> Asking[tuple[str, Pairs]]:
        """Text and tokens of a conversation up to the end of its last assistant turn."""
        done, pairs = "", []  # type: str, Pairs
        for i, message in enumerate(messages):
            if message["role"] == "assistant":
                head, body = self._body(messages[:i], message["content"])
                pairs = yield from self._follow(done, pairs, head, messages[:i])
                pairs += yield from self._tokenize_body(head, body, message["content"])
                done = head + body
        return done, pairs

    def _follow(self, done: str, pairs: Pairs, head: str, messages: list[Message]) -> Asking[Pairs]:
        """The tokens of `done` and those that lead from there to the end of `head`."""
        if not head.startswith(done):
            # The template rewrites earlier turns (drops their reasoning, say): what was learned
            # there is not what is seen later, so only the last answer is learned.
            done, pairs = "", []
        text = head[len(done) :]
        return pairs + (yield from self._tokenize_prompt(text, messages, first=not done))

    def _tokenize_prompt(self, text: str, messages: list[Message], *, first: bool) -> Asking[Pairs]:
        spans = self._spans(text, messages)
        pieces = list(_pieces(text))
        pairs: Pairs = []
        for (at, _), tokens in zip(pieces, (yield [piece for _, piece in pieces]), strict=True):
            reasons = [Reason.PROMPT] * len(tokens.ids)
            if (offsets := tokens.offsets) is not None:
                # Offsets tell the rows' words from the template's; only the display needs it.
                reasons = _within([(a - at, b - at) for a, b in spans], offsets)
            pairs += zip(tokens.ids, reasons, strict=True)
        if first and pairs and pairs[0][0] == self.tokenizer.bos_token_id:
            pairs[0] = (pairs[0][0], Reason.BOS)
        return pairs

    def _spans(self, text: str, messages: list[Message]) -> list[tuple[int, int]]:
        """Where in `text`, the end of a rendered conversation, its messages' words stand."""
        text = self._special_text.sub(lambda m: "\0" * len(m[0]), text)
        spans, end = [], len(text)
        for message in reversed(messages):
            words = message["content"].strip()
            at = text.rfind(words, 0, end) if words else -1
            if at >= 0:
                spans.append((at, at + len(words)))
                end = at
        return spans

    def _tokenize_body(self, head: str, body: str, answer: str) -> Asking[Pairs]:
        """Tokens of an assistant turn, split from the prompt where generation would start."""
        cut = self._end_of_answer(body, answer.strip())
        before, spoken = head[-64:], body[:cut]
        # Tokenizers that mark word starts give a text another first token when it stands alone, so
        # it is tokenized with what is before it where the seam falls between tokens, and alone
        # where not: at generation, the prompt's tokens are fixed before the answer's first one is
        # written.
        ahead, joint, after = yield from _ids(before, before + spoken, body[cut:])
        tokens = joint[len(ahead) :]
        if joint[: len(ahead)] != ahead:
            (tokens,) = yield from _ids(spoken)
        stop = next((i for i, token in enumerate(after) if token in self._special), None)
        if stop is None:
            # The template has no end of turn: without one learned, generation never stops.
            after, stop = [self.tokenizer.eos_token_id, *after], 0
        reasons = [Reason.ANSWER] * len(tokens) + [Reason.END] * (stop + 1)
        reasons += [Reason.ROLE] * (len(after) - stop - 1)
        return list(zip(tokens + after, reasons, strict=True))

    def _end_of_answer(self, body: str, answer: str) -> int:
        """Where in an assistant turn its answer ends.

        Found from the template's own words around an answer: an answer such as ``a`` may also
        stand inside them.
        """
        lead, tail = self._frame
        end = len(body) - len(tail) if body.endswith(tail) else len(body)
        if body.startswith(lead) and body[len(lead) : end].strip() == answer:
            return len(lead) + len(body[len(lead) : end].rstrip())
        at = body.rfind(answer, 0, end)
        if at < 0:
            raise DataError(
                f"the model's chat template changes the answer '{answer[:40]}' while writing it",
                fix="set chat_template: default",
            )
        return at + len(answer)


class TextTemplate:
    """For encoders: the text between the tokenizer's own special tokens; nothing is written.

    Text that spells a special token is tokenized as text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @functools.cached_property
    def identity(self) -> str | None:
        """As `ChatTemplate.identity`."""
        return identity(self.tokenizer)

    def encode(self, row: Row) -> Encoded:
        """Turns of a conversation are joined by line breaks; the answer is not part of it."""
        (item,) = self.encode_all([row])
        return item

    def encode_all(self, rows: Iterable[Row]) -> Iterator[Encoded]:
        """`encode` of each, many at a time, which is faster."""
        rest = iter(rows)
        while some := list(islice(rest, TOGETHER)):
            batch = self.tokenizer(
                ["\n".join(turn.text for turn in row.turns) for row in some],
                split_special_tokens=True,
                return_special_tokens_mask=True,
                verbose=False,  # texts longer than the model reads are counted and told elsewhere
            )
            for tokens, mask in zip(batch.input_ids, batch.special_tokens_mask, strict=True):
                reasons = (Reason.ROLE if added else Reason.TEXT for added in mask)
                yield Encoded(tuple(tokens), tuple(reasons))


def adds_bos(tokenizer: Any) -> bool:
    """Whether this tokenizer puts a beginning-of-text token before plain text."""
    if tokenizer.bos_token_id is None:
        return False
    return tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]


def _ids(*texts: str) -> Asking[list[list[int]]]:
    """Token ids of each text; what stands between marks is tokenized apart."""
    pieces = [[piece for piece in text.split(_MARK) if piece] for text in texts]
    tokens = iter((yield [*chain.from_iterable(pieces)]))
    return [[token for _ in some for token in next(tokens).ids] for some in pieces]


def _within(spans: Iterable[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> list[Reason]:
    """Of each token, whether any of its letters is in one of the spans."""
    reasons = [Reason.ROLE] * len(offsets)
    for a, b in spans:
        reasons = [
            Reason.PROMPT if a < end and start < b else reason
            for (start, end), reason in zip(offsets, reasons, strict=True)
        ]
    return reasons


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """What stands between marks, each with where it begins."""
    at = 0
    for piece in text.split(_MARK):
        if piece:
            yield at, piece
        at += len(piece) + 1


def where(row: Row) -> str:
    """How messages call a row: by where it was read, else by its first words."""
    return row.source or f"the row '{row.text[:40]}'"
