"""What `fitune lm` does: language models trained on one corpus, scored on one text, and probed.

Knows corpora, the tables of models and figures; knows nothing of terminals.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fitune.corpora import Corpus, read_corpus
from fitune.errors import ConfigError
from fitune.ladder.climb import Watching
from fitune.language_models import LANGUAGE_MODELS, Ids, LanguageModel
from fitune.language_models.figures import Continuation, CurvePoint, ModelFigures
from fitune.language_models.making import NEURAL, Making, make_model, make_small
from fitune.language_models.perplexity import Score, score
from fitune.language_models.pretrained import Pretrained
from fitune.language_models.probes import Probed, learn_small_language, likeliest
from fitune.language_models.saving import load_models, save_models
from fitune.language_models.vocabulary import KINDS, Vocabulary, build_vocabulary
from fitune.models.source import resolve_source
from fitune.results import LmResult
from fitune.runs import write_text
from fitune.taskproblems import near

VOCABULARY = {"words": 10_000, "subwords": 4_000, "characters": None}
"""Most tokens where no size is given."""

SHARES = (1 / 8, 1 / 4, 1 / 2)
"""Of the training texts, for the curve over their size; all of them are the last point."""

WRITTEN = {"words": (6, 40), "subwords": (8, 60), "characters": (24, 160)}
"""Tokens of a beginning that is continued, and of a sample."""

BEGINNINGS = 3


@dataclass(frozen=True)
class Modelling:
    """What is asked of `fitune lm`; the options of the command line with underscores.

    Attributes:
        corpus: a text file or a folder of them.
        models: names of `LANGUAGE_MODELS`, and models that exist: a packaged name such as
            ``smollm2-135m``, a folder, a GGUF file or a Hub id that was fetched before.
        tokens: `words`, `characters` or `subwords`.
        unit: what a sequence is: `lines`, `sections`, `documents` or `auto`.
        order: of n-grams.
        states: of the hidden Markov model.
        hidden: values of a layer of a network.
        layers: of a network; None: one recurrent, two of a transformer.
        epochs: over the training texts; None: see `neural.Training`.
        vocabulary: most tokens; None: see `VOCABULARY`.
        valid: a file or a share, see `corpora.read_corpus`.
        test: a file.
        save: a folder for the trained models.
        load: a folder that `save` wrote; nothing is trained then.
        plot: a file for the curve over training size, .html or .svg; models are trained on parts of
            the corpus, too.
        minutes: for all networks together; None: no limit.
        seed: of everything that is drawn.
    """

    corpus: str
    models: Sequence[str] | str = tuple(LANGUAGE_MODELS)
    tokens: str = "words"
    unit: str = "auto"
    order: int = 5
    states: int = 32
    hidden: int = 128
    layers: int | None = None
    epochs: float | None = None
    vocabulary: int | None = None
    valid: str | float = 0.1
    test: str | None = None
    save: str | Path | None = None
    load: str | Path | None = None
    plot: str | Path | None = None
    minutes: float | None = None
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The models in the order given, each once."""
        given = self.models.split(",") if isinstance(self.models, str) else self.models
        return tuple(dict.fromkeys(name.strip() for name in given if name.strip()))

    @property
    def making(self) -> Making:
        """What concerns models alone."""
        return Making(
            order=self.order,
            states=self.states,
            hidden=self.hidden,
            layers=self.layers,
            epochs=self.epochs,
            seed=self.seed,
        )


def compare(asked: Modelling, on: Watching) -> LmResult:
    """Train or load, score, let each write, and probe.

    Raises:
        FituneError: any user mistake, in one sentence.
    """
    started = time.perf_counter()
    check(asked)
    on.progress("reading the corpus", 0, 1)
    corpus = read_corpus(asked.corpus, unit=asked.unit, valid=asked.valid, test=asked.test)
    if asked.load is None:
        vocabulary = build_vocabulary(
            corpus.train,
            asked.tokens,
            size=asked.vocabulary or VOCABULARY[asked.tokens],
            # A word that was seen once says no more than that there are such words.
            minimum_count=2 if asked.tokens == "words" else 1,
        )
        loaded: dict[str, LanguageModel] = {}
    else:
        vocabulary, loaded = load_models(Path(asked.load), asked.names)
    train = vocabulary.encode_all(corpus.train)
    validation = vocabulary.encode_all(corpus.validation)
    on.progress("reading the corpus", 1, 1)
    names = tuple(loaded) or asked.names
    made: dict[str, LanguageModel] = {}
    figures = []
    for name in names:
        work = _Work(asked, vocabulary, corpus, train, validation, on)
        made[name], found = work.model(name, loaded.get(name))
        figures.append(found)
    if asked.save is not None:
        save_models(Path(asked.save), vocabulary, made)
    result = LmResult(
        corpus=corpus.source,
        unit=corpus.unit,
        tokens=vocabulary.kind,
        vocabulary=len(vocabulary),
        train_tokens=sum(map(len, train)),
        sequences=(len(corpus.train), len(corpus.validation), len(corpus.test)),
        models=tuple(figures),
        notes=_notes(figures, corpus, trained=not loaded),
        saved=None if asked.save is None else Path(asked.save),
        plot=None if asked.plot is None else Path(asked.plot),
        seconds=time.perf_counter() - started,
    )
    if result.plot is not None:
        from fitune.report.lm_plot import Picture

        picture = Picture.of(result.corpus, result.tokens, result.models)
        drawn = picture.svg() if result.plot.suffix.lower() == ".svg" else picture.page()
        write_text(result.plot, drawn)
    return result


def check(asked: Modelling) -> None:
    """Refuse what cannot be done, before anything is read.

    Raises:
        FituneError: an option is out of its limits, or there is no such model.
    """
    if not asked.names and asked.load is None:
        raise ConfigError("no model is named", fix=f"use some of {', '.join(LANGUAGE_MODELS)}")
    if asked.tokens not in KINDS:
        raise ConfigError(
            f"there are no tokens of kind '{asked.tokens}'", fix=near(asked.tokens, KINDS)
        )
    for name in ("states", "hidden", "layers", "epochs", "vocabulary", "minutes"):
        value = getattr(asked, name)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{name} is {value:g}", fix="set it above 0")
    if asked.hidden % 8:
        raise ConfigError(f"hidden is {asked.hidden}", fix="set it to a multiple of 8")
    if asked.plot is not None and Path(asked.plot).suffix.lower() not in (".html", ".svg"):
        raise ConfigError(
            f"plot is '{asked.plot}', and a picture is .html or .svg", fix="name such a file"
        )
    if asked.plot is not None and asked.load is not None:
        raise ConfigError(
            "plot draws models that learn from parts of the corpus, and load trains none",
            fix="leave one of them out",
        )
    if asked.load is None:
        for name in asked.names:
            if name not in LANGUAGE_MODELS:
                _require_model(name)


def _require_model(name: str) -> None:
    if "/" in name or "." in name or name.startswith("~") or Path(name).exists():
        resolve_source(name)
        return
    from fitune.models.catalogue import PACKAGED

    if name not in PACKAGED:
        raise ConfigError(
            f"there is no language model '{name}'",
            fix=near(name, [*LANGUAGE_MODELS, *PACKAGED]),
        )
    resolve_source(name)


class _Work:
    """One comparison: what every model of it is given."""

    def __init__(
        self,
        asked: Modelling,
        vocabulary: Vocabulary,
        corpus: Corpus,
        train: list[Ids],
        validation: list[Ids],
        on: Watching,
    ) -> None:
        self.asked, self.vocabulary, self.corpus = asked, vocabulary, corpus
        self.train, self.validation, self.on = train, validation, on

    def model(self, name: str, loaded: LanguageModel | None) -> tuple[LanguageModel, ModelFigures]:
        """Train unless it is there, and find out everything about it."""
        seconds, own = None, name not in LANGUAGE_MODELS
        if loaded is not None:
            made = loaded
        elif own:
            self.on.progress(name, 0, 1)
            made = Pretrained(name)
        else:
            made, seconds = self.trained(name, 1.0)
        vocabulary = made.vocabulary if isinstance(made, Pretrained) else self.vocabulary
        self.on.progress(f"{name}: scoring", 0, 1)
        began = time.perf_counter()
        scored = self.score(made, vocabulary)
        scoring = time.perf_counter() - began
        _, length = WRITTEN[vocabulary.kind]
        written = vocabulary.decode(made.sample(length, seed=self.asked.seed))
        continuations = tuple(
            continued(made, vocabulary, prefix, actual) for prefix, actual in self.beginnings()
        )
        learned = getattr(made, "learned", None)
        curve: tuple[CurvePoint, ...] = ()
        if self.asked.plot is not None and not own:
            curve = self.curve(name, scored)
        figures = ModelFigures(
            name=name,
            score=scored,
            parameters=made.parameters,
            train_seconds=seconds,
            learned_tokens=learned.tokens if learned else sum(len(one) + 1 for one in self.train),
            score_tokens_per_second=scored.predictions / max(scoring, 1e-9),
            own_tokens=own,
            ended=None if learned is None or learned.ended == "epochs" else learned.ended,
            sample=written,
            continuations=continuations,
            probed=None if own else self.probed(name),
            curve=curve,
        )
        return made, figures

    def trained(self, name: str, share: float) -> tuple[LanguageModel, float]:
        """A model that learned from the first `share` of the training texts, and the seconds."""
        part = self.train[: max(1, round(share * len(self.train)))]
        label = name if share == 1 else f"{name} on {share:.1%} of the text"

        def progress(done: int, total: int) -> None:
            self.on.progress(label, done, total)

        progress(0, 1)
        model = make_model(
            name,
            len(self.vocabulary),
            self.asked.making,
            seconds=self._seconds(share),
            progress=progress,
        )
        began = time.perf_counter()
        model.fit(part, self.validation)
        seconds = time.perf_counter() - began
        progress(1, 1)
        return model, seconds

    def _seconds(self, share: float) -> float | None:
        """What one training may take of the minutes that there are for all networks."""
        if self.asked.minutes is None:
            return None
        networks = sum(name in NEURAL for name in self.asked.names)
        parts = 1 + (sum(SHARES) if self.asked.plot is not None else 0)
        return self.asked.minutes * 60 * share / max(1, networks) / parts

    def score(self, model: LanguageModel, vocabulary: Vocabulary) -> Score:
        return score(model, vocabulary, self.corpus.test, separator=self.corpus.separator)

    def curve(self, name: str, whole: Score) -> tuple[CurvePoint, ...]:
        """Perplexity of the test texts by size of the training text."""
        points = []
        for share in SHARES:
            model, _ = self.trained(name, share)
            part = self.train[: max(1, round(share * len(self.train)))]
            tokens = sum(map(len, part))
            points.append(CurvePoint(tokens, self.score(model, self.vocabulary).perplexity))
        return (*points, CurvePoint(sum(map(len, self.train)), whole.perplexity))

    def beginnings(self) -> list[tuple[str, str]]:
        """Beginnings of test texts from all over, and the token that follows each."""
        tokens, _ = WRITTEN[self.vocabulary.kind]
        long = [text for text in self.corpus.test if len(self.vocabulary.encode(text)) > tokens]
        picked = [long[i * len(long) // BEGINNINGS] for i in range(min(BEGINNINGS, len(long)))]
        found = []
        for text in picked:
            ids = self.vocabulary.encode(text)
            decode = self.vocabulary.decode
            found.append((decode(ids[:tokens]), decode(ids[tokens : tokens + 1])))
        return found

    def probed(self, name: str) -> Probed:
        """What a model of this kind makes of the small language."""
        self.on.progress(f"{name}: learning a small language", 0, 1)
        return learn_small_language(
            lambda words: make_small(name, words, self.asked.making),
            seed=self.asked.seed,
            clock=time.perf_counter,
        )


def continued(
    model: LanguageModel, vocabulary: Vocabulary, prefix: str, actual: str
) -> Continuation:
    """What a model says after `prefix`."""
    ids = vocabulary.encode(prefix).tolist()
    best = likeliest(model, ids)
    end = len(vocabulary)
    follows = vocabulary.encode(actual)
    chance = float(model.next_distribution(ids)[follows[0]]) if len(follows) == 1 else None
    return Continuation(
        prefix=prefix,
        actual=actual,
        likeliest=tuple(
            ("(end)" if token == end else vocabulary.decode([token]), probability)
            for token, probability in best
        ),
        probability=chance,
    )


def _notes(figures: Sequence[ModelFigures], corpus: Corpus, *, trained: bool) -> tuple[str, ...]:
    notes = []
    first = figures[0].score
    if first.unknown:
        share = first.unknown / first.predictions
        notes.append(
            f"{share:.1%} of the test tokens are unknown; bits per byte charge their spelling, "
            "perplexity does not."
        )
    if not first.exact:
        notes.append("Words lose white space, so bits per byte are a little too low.")
    if any(each.own_tokens for each in figures):
        notes.append(
            "A model with tokens of its own (*) has a perplexity per token of its own, which "
            "compares with no other; bits per byte do."
        )
    stopped = [each.name for each in figures if each.ended == "time"]
    if trained and stopped:
        notes.append(f"Out of time before the last epoch: {', '.join(stopped)}.")
    return tuple(notes)
