"""Options of approaches that need no language model made by others."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fitune.config.fields import ApproachConfig, Fraction, Positive, Switch


class Majority(ApproachConfig):
    """Always the most frequent answer: the score of knowing nothing."""

    use: Literal["majority"] = "majority"


class Linear(ApproachConfig):
    """TF-IDF of word and character n-grams, logistic regression."""

    use: Literal["linear"] = "linear"
    regularization: float = Field(10.0, gt=0, description="Inverse strength C, as scikit-learn's.")


class NGram(ApproachConfig):
    """N-gram models of words and characters for every label, and Bayes' rule."""

    use: Literal["ngram"] = "ngram"
    word_order: int = Field(
        2, gt=0, le=20, description="Words in the longest n-gram; every order up to it is a model."
    )
    character_order: int = Field(
        5, gt=0, le=20, description="Characters in the longest n-gram of another model."
    )
    smoothing: Literal["kneser-ney", "absolute"] = Field(
        "kneser-ney",
        description="Where the probability of n-grams never seen comes from: interpolated "
        "Kneser-Ney with three discounts an order, or back-off with one.",
    )


class Hmm(ApproachConfig):
    """A hidden Markov model for every label, and Bayes' rule."""

    use: Literal["hmm"] = "hmm"
    tokens: Literal["words", "characters", "subwords"] = Field(
        "words", description="What a state says."
    )
    states: Positive = Field(2, description="Hidden ones of each label's model.")
    iterations: Positive = Field(10, description="Of Baum-Welch, at the most.")
    smoothing: float = Field(
        100.0,
        gt=0,
        description="Tokens, spread as in the label's rows, that each state has as well.",
    )
    seed: int | None = Field(None, ge=0, lt=2**32, description="Default: the task's.")


class Recurrent(ApproachConfig):
    """A recurrent network that learns from the training rows alone: chooses a label, or writes."""

    use: Literal["recurrent"] = "recurrent"
    cell: Literal["rnn", "lstm", "gru"] = Field(
        "gru", description="Elman's network, long short-term memory or gated recurrent units."
    )
    tokens: Literal["words", "characters", "subwords"] | None = Field(
        None,
        description="What is read and written one after the other; default: `words` for classify, "
        "`subwords` for generate. Written words are joined by spaces.",
    )
    hidden: Positive = Field(
        256, description="Values of an embedding, and of the memory in each direction."
    )
    layers: Positive = Field(1, description="That read each other's states.")
    bidirectional: Switch = Field(True, description="Rows are read from their end, too.")
    dropout: Fraction | None = Field(
        None, description="On embeddings and states while training; default: by the kind of task."
    )
    word_dropout: Fraction | None = Field(
        None,
        description="The share of tokens that are read as unknown ones while training, so that "
        "unknown ones confuse less; default: by the kind of task.",
    )
    epochs: float | None = Field(
        None,
        gt=0,
        description="Passes over the training rows, unless validation ends them sooner; default: "
        "by their number.",
    )
    learning_rate: float = Field(2e-3, gt=0, description="The highest of the schedule.")
    batch_size: Positive | None = Field(
        None, description="Rows per optimizer step; default: by their number."
    )
    seed: int | None = Field(None, ge=0, lt=2**32, description="Default: the task's.")
