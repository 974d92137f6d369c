"""In which words a conversation is written: a chat template, chosen and rendered.

Knows Jinja as transformers reads it; knows nothing of tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fitune.errors import ConfigError, DataError

Message = dict[str, str]
"""`role` and `content`."""

DEFAULT_CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{{ message.content + '\\n\\n' }}"
    "{%- elif message.role == 'user' -%}{{ 'User: ' + message.content + '\\n' }}"
    "{%- else -%}{{ 'Assistant: ' + message.content + eos_token + '\\n' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}"
)
"""For tokenizers without a chat template: plain words, since such models know no role tokens."""


def choose_jinja(tokenizer: Any, chat_template: str) -> str:
    """The text of a template.

    Args:
        chat_template: `auto` (the tokenizer's own, else `DEFAULT_CHAT_TEMPLATE`), `default`, or the
            path of a Jinja file.

    Raises:
        ConfigError: there is no such file.
    """
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


def render(tokenizer: Any, jinja: str, messages: list[Message], *, generation: bool) -> str:
    """A conversation as text.

    Args:
        generation: with what stands before the answer that is to be written.

    Raises:
        DataError: the template refuses the conversation.
    """
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=generation,
            chat_template=jinja,
        )
    except (TemplateError, LookupError, TypeError, ValueError) as error:
        roles = " → ".join(message["role"] for message in messages)
        raise DataError(
            f"the model's chat template refuses a conversation of {roles} ({error})",
            fix="set chat_template: default, or change the rows' roles",
        ) from error
