"""Options of a language model that compares answers."""

from __future__ import annotations

from pydantic import Field

from fitune.config.fields import Positive, Strict


class Judge(Strict):
    """A language model that compares each rung's answers with others', behind a URL that speaks as
    OpenAI's does. Questions, reference answers and answers are sent there."""

    url: str = Field(
        pattern=r"^https?://[^\s/]+\S*$",
        description="Of the API, e.g. `http://localhost:8000/v1`; `/chat/completions` is asked.",
    )
    model: str = Field(min_length=1, description="As the API calls it.")
    key_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="The environment variable that holds the key; the key is never written.",
    )
    criterion: str = Field(
        "which answer is right, complete and to the point",
        min_length=1,
        description="What the better answer is better at, put into the question to the judge.",
    )
    rows: Positive = Field(
        100, description="Test rows judged at most, chosen by content hash; each is asked twice."
    )
