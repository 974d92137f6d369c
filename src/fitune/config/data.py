"""Where rows come from: the `data` part of a task file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fitune.config.fields import Fraction, Positive, Strict


class RowCaps(Strict):
    """The most rows of each split to use; rows beyond are left out by content hash, and counted."""

    train: Positive | None = None
    validation: Positive | None = None
    test: Positive | None = None


class Data(Strict):
    """Where rows come from and how they are split."""

    train: str = Field(
        description="A file, a saved dataset folder, `hub:ORG/NAME`, or `sample:pydocs`."
    )
    validation: str | None = Field(None, description="As `train`; default: taken from train.")
    test: str | None = Field(None, description="As `train`; default: taken from train.")
    format: Literal["auto", "csv", "tsv", "json", "jsonl", "parquet", "dataset", "txt"] = Field(
        "auto", description="Of the files; `auto` goes by the name, then by the content."
    )
    shape: Literal[
        "auto",
        "columns",
        "alpaca",
        "sharegpt",
        "messages",
        "prompt-completion",
        "preference",
        "document",
        "sections",
        "lines",
    ] = Field(
        "auto",
        description="How a record holds its text; `auto` goes by the field names. For "
        "language-model: each file or record is a `document`, or is cut into `sections` (at blank "
        "lines) or `lines` that are documents of their own; `auto` cuts a text file into sections "
        "where test or validation documents are taken from it.",
    )
    input: str | None = Field(None, description="The column with the text, for shape `columns`.")
    output: str | None = Field(None, description="The column with the label or the answer.")
    encoding: str = Field("utf-8", description="Of text files, as Python names it.")
    validation_fraction: Fraction = Field(
        0.1, description="Of the training rows, when `validation` is not given."
    )
    test_fraction: Fraction = Field(0.2, description="Of all rows, when `test` is not given.")
    split_seed: int = Field(
        0, ge=0, lt=2**32, description="Another seed puts other rows into validation and test."
    )
    documents: str | tuple[str, ...] | None = Field(
        None,
        description="Where answers may be found, for approaches that look them up: a file, a "
        "folder or a list of these (`.txt`, `.md`, `.html`, `.pdf`, or records with a text, such "
        "as `.jsonl` and `.csv`).",
    )
    max_rows: RowCaps = Field(RowCaps(), description="The most rows of each split to use.")
    too_long: Literal["refuse", "truncate", "drop"] = Field(
        "refuse",
        description="What happens to rows over the token limit: an error, the end of their text "
        "cut off, or (training rows only; others are cut) left out. Always counted and reported.",
    )
