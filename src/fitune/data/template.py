"""Row → tokens and loss mask, with the reason for each token.

The one owner of what a model sees and of which tokens are learned: training, evaluation and
serving all come here. Knows tokenizers, roles, beginning- and end-of-text tokens; knows nothing of
batches, models or losses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from fitune.data.rows import Row, Rows, Turn
from fitune.errors import ConfigError, DataError

DEFAULT_CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{{ message.content + '\\n\\n' }}"
    "{%- elif message.role == 'user' -%}{{ 'User: ' + message.content + '\\n' }}"
    "{%- else -%}{{ 'Assistant: ' + message.content + eos_token + '\\n' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}"
)
"""For tokenizers without a chat template: plain words, since such models know no role tokens."""


class Reason(str, Enum):
    """Why a token is there, and so why it is learned or masked."""

    BOS = "beginning of text"
    ROLE = "template"
    PROMPT = "prompt"
    TEXT = "text"
    ANSWER = "answer"
    END = "end of turn"

    @property
    def learned(self) -> bool:
        return self in (Reason.ANSWER, Reason.END)


@dataclass(frozen=True)
class Encoded:
    """One row as a model sees it.

    Attributes:
        tokens: token ids.
        reasons: why each is there, as long as `tokens`.
        cut: how many tokens of the row's text were cut off to fit.
    """

    tokens: tuple[int, ...]
    reasons: tuple[Reason, ...]
    cut: int = 0

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def learned(self) -> tuple[bool, ...]:
        """Whether each token is one that the model learns to write."""
        return tuple(reason.learned for reason in self.reasons)


class ChatTemplate:
    """For decoders: a conversation, of which the assistant's turns are learned.

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
        self.jinja = _choose_jinja(tokenizer, chat_template)
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                "the tokenizer has no end-of-text token, so no model could learn when to stop",
                fix="set eos_token in its tokenizer_config.json",
            )
        try:
            head, _ = self._body([{"role": "user", "content": "a"}], "b")
        except DataError as error:
            raise ConfigError(
                f"chat template '{chat_template}' does not write an assistant turn after a "
                f"generation prompt ({error.problem})",
                fix="set chat_template: default, or mend the Jinja file",
            ) from error
        if _adds_bos(tokenizer) and not head.startswith(tokenizer.bos_token):
            # Written by the template, it is there exactly once for whoever renders it.
            self.jinja = "{{- bos_token -}}" + self.jinja

    def encode(self, row: Row) -> Encoded:
        """The whole conversation with its answer; every assistant turn is learned.

        Raises:
            DataError: the row has no answer, so nothing in it can be learned.
        """
        if not (row.answer or "").strip():
            raise DataError(
                f"{_where(row)} has nothing to learn: it has no answer",
                fix="give it one or remove it",
            )
        answer_of_row = row.answer or ""
        messages = self._messages(row)
        done, tokens, reasons = "", [], []  # type: str, list[int], list[Reason]
        targets = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        for i in [*targets, len(messages)]:
            answer = answer_of_row if i == len(messages) else messages[i]["content"]
            head, body = self._body(messages[:i], answer)
            if not head.startswith(done):
                # The template rewrites earlier turns (drops their reasoning, say): what was
                # learned there is not what is seen later, so only the last answer is learned.
                done, tokens, reasons = "", [], []
            prompt = self._tokenize_prompt(head[len(done) :], row, first=not done)
            tokens += [token for token, _ in prompt]
            reasons += [reason for _, reason in prompt]
            written = self._tokenize_body(head[len(done) :], body, answer)
            tokens += [token for token, _ in written]
            reasons += [reason for _, reason in written]
            done = head + body
        while reasons and not reasons[-1].learned:  # nothing is learned from a turn's line break
            tokens.pop()
            reasons.pop()
        return Encoded(tuple(tokens), tuple(reasons))

    def prompt(self, row: Row, examples: Sequence[Row] = ()) -> Encoded:
        """The tokens after which the model writes its answer; `examples` go before, as turns."""
        messages = self._messages(row, examples)
        head = self._render(messages, generation=True)
        pairs = self._tokenize_prompt(head, row, first=True)
        return Encoded(tuple(t for t, _ in pairs), tuple(r for _, r in pairs))

    def answer(self, text: str) -> tuple[int, ...]:
        """The tokens of an answer right after a generation prompt, its end of turn included."""
        head, body = self._body([{"role": "user", "content": "a"}], text)
        pairs = self._tokenize_body(head, body, text)
        return tuple(token for token, reason in pairs if reason is not Reason.ROLE)

    @functools.cached_property
    def stop_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer: the template's end of turn, and end of text."""
        end = self.answer("a")[-1]
        return tuple(dict.fromkeys([end, self.tokenizer.eos_token_id]))

    def decode(self, tokens: Sequence[int]) -> str:
        """Generated tokens → the answer's text, without special tokens and outer white space."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def _messages(self, row: Row, examples: Sequence[Row] = ()) -> list[dict[str, str]]:
        turns: list[Turn] = []
        for example in examples:
            turns += [*example.turns, Turn("assistant", example.answer or "")]
        turns += row.turns
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        if self.instruction:
            first = next(message for message in messages if message["role"] == "user")
            first["content"] = f"{self.instruction}\n\n{first['content']}"
        return messages

    def _render(self, messages: list[dict[str, str]], *, generation: bool) -> str:
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=generation,
                chat_template=self.jinja,
            )
        except TemplateError as error:
            roles = " → ".join(message["role"] for message in messages)
            raise DataError(
                f"the model's chat template refuses a conversation of {roles} ({error})",
                fix="set chat_template: default, or change the rows' roles",
            ) from error

    def _body(self, messages: list[dict[str, str]], answer: str) -> tuple[str, str]:
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

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _tokenize_prompt(self, text: str, row: Row, *, first: bool) -> list[tuple[int, Reason]]:
        encoding = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=self.tokenizer.is_fast
        )
        ids = encoding.input_ids
        reasons = [Reason.PROMPT] * len(ids)
        if self.tokenizer.is_fast:
            # Offsets tell the row's words from the template's; only the display depends on it.
            spans = _spans(text, [turn.text for turn in row.turns] + [self.instruction or ""])
            reasons = [
                Reason.PROMPT if any(a < end and start < b for a, b in spans) else Reason.ROLE
                for start, end in encoding.offset_mapping
            ]
        if first and ids and ids[0] == self.tokenizer.bos_token_id:
            reasons[0] = Reason.BOS
        return list(zip(ids, reasons, strict=True))

    def _tokenize_body(self, head: str, body: str, answer: str) -> list[tuple[int, Reason]]:
        """Tokens of an assistant turn, split from the prompt where generation would start."""
        at = body.find(answer.strip())
        if at < 0:
            raise DataError(
                f"the model's chat template changes the answer '{answer[:40]}' while writing it",
                fix="set chat_template: default",
            )
        cut = at + len(answer.strip())
        spoken, tail = body[:cut], body[cut:]
        tokens = self._continue(head, spoken)
        reasons = [Reason.ANSWER] * len(tokens)
        after = self._ids(tail)
        special = set(self.tokenizer.all_special_ids)
        stop = next((i for i, token in enumerate(after) if token in special), None)
        if stop is None:
            # The template has no end of turn: without one learned, generation never stops.
            after, stop = [self.tokenizer.eos_token_id, *after], 0
        tokens += after
        reasons += [Reason.END] * (stop + 1) + [Reason.ROLE] * (len(after) - stop - 1)
        return list(zip(tokens, reasons, strict=True))

    def _continue(self, head: str, text: str) -> list[int]:
        """Tokens of `text` as they follow `head`.

        Tokenizers that mark word starts give a text another first token when it stands alone, so
        both are tokenized together where the seam falls between tokens, and apart where not: at
        generation, the prompt's tokens are fixed before the answer's first one is written.
        """
        tail = head[-64:]
        before, joint = self._ids(tail), self._ids(tail + text)
        if joint[: len(before)] == before:
            return joint[len(before) :]
        return self._ids(text)


class TextTemplate:
    """For encoders: the text between the tokenizer's own special tokens; nothing is written."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, row: Row) -> Encoded:
        """Turns of a conversation are joined by line breaks; the answer is not part of it."""
        ids = self.tokenizer("\n".join(turn.text for turn in row.turns)).input_ids
        special = set(self.tokenizer.all_special_ids)
        reasons = tuple(Reason.ROLE if token in special else Reason.TEXT for token in ids)
        return Encoded(tuple(ids), reasons)


def encode_rows(
    encode: Callable[[Row], Encoded],
    rows: Rows,
    *,
    tokenizer: Any,
    max_length: int,
    too_long: str,
    what: str,
    drop_allowed: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[Encoded], list[int], list[str]]:
    """Encode rows under a token limit; nothing is cut or left out without being counted.

    Args:
        encode: e.g. ``template.encode``.
        max_length: tokens per row.
        too_long: `refuse`, `truncate` (the end of the row's last text is cut) or `drop`.
        what: the rows' name for messages, e.g. ``"training"``.
        drop_allowed: False for rows that must all be answered; `drop` then cuts as `truncate` does.

    Returns:
        the encoded rows, the indices of the rows they come from, and notes with counts.

    Raises:
        DataError: a row is too long and `too_long` is `refuse`, or a row's template alone fills
            the limit, or every row would be dropped.
    """
    encoded: list[Encoded] = []
    kept: list[int] = []
    over: list[tuple[int, int]] = []
    for index, row in enumerate(rows):
        if progress and index % 200 == 0:
            progress(f"tokens of {what} rows", index, len(rows))
        item = encode(row)
        if len(item) > max_length:
            over.append((index, len(item)))
            if too_long == "refuse":
                continue
            if too_long == "drop" and drop_allowed:
                continue
            item = _cut_to_fit(encode, row, item, tokenizer, max_length)
        encoded.append(item)
        kept.append(index)
    if progress:
        progress(f"tokens of {what} rows", len(rows), len(rows))
    if not over:
        return encoded, kept, []
    longest = max(over, key=lambda pair: pair[1])
    facts = (
        f"{len(over):,} of {len(rows):,} {what} rows are longer than {max_length:,} tokens "
        f"(the longest, {_where(rows[longest[0]])}, has {longest[1]:,})"
    )
    if too_long == "refuse":
        raise DataError(
            facts,
            fix="set data.too_long to truncate or drop, or raise max_length where the model can",
        )
    if not encoded:
        raise DataError(f"{facts}, so none is left", fix="set data.too_long: truncate")
    dropped = too_long == "drop" and drop_allowed
    lost = sum(item.cut for item in encoded)
    action = "they were left out" if dropped else f"{lost:,} tokens of their ends were cut"
    return encoded, kept, [f"{facts}; {action} (data.too_long: {too_long})."]


def _cut_to_fit(
    encode: Callable[[Row], Encoded], row: Row, item: Encoded, tokenizer: Any, max_length: int
) -> Encoded:
    full = len(item)
    ids = tokenizer(row.text, add_special_tokens=False).input_ids
    keep = len(ids)
    while len(item) > max_length:
        # Cutting may merge tokens at the seam, so it is repeated until the row fits.
        keep -= max(1, len(item) - max_length)
        if keep < 0:
            raise DataError(
                f"{_where(row)} does not fit into {max_length:,} tokens even with its text left "
                f"out: the rest alone has {len(item):,}",
                fix="raise max_length, or shorten the instruction or the answers",
            )
        text = tokenizer.decode(ids[:keep], skip_special_tokens=False)
        item = encode(replace(row, text=text))
    return replace(item, cut=full - len(item))


def _choose_jinja(tokenizer: Any, chat_template: str) -> str:
    if chat_template == "default":
        return DEFAULT_CHAT_TEMPLATE
    if chat_template == "auto":
        own = getattr(tokenizer, "chat_template", None)
        if isinstance(own, dict):
            own = own.get("default")
        return own or DEFAULT_CHAT_TEMPLATE
    try:
        return Path(chat_template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"chat_template '{chat_template}' is neither 'auto', 'default' nor a readable file",
            fix="give the path of a Jinja file",
        ) from error


def _adds_bos(tokenizer: Any) -> bool:
    """Whether this tokenizer puts a beginning-of-text token before plain text."""
    if tokenizer.bos_token_id is None:
        return False
    return tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]


def _spans(text: str, parts: list[str]) -> list[tuple[int, int]]:
    spans = []
    for part in filter(None, (part.strip() for part in parts)):
        at = text.rfind(part)
        if at >= 0:
            spans.append((at, at + len(part)))
    return spans


def _where(row: Row) -> str:
    return row.source or f"the row '{row.text[:40]}'"
