"""From text to token ids and back: words, characters or subwords.

Knows text and how often its pieces occur; knows nothing of language models.

- Words: runs of letters, digits and underscores, apostrophes inside included; every other visible
  character stands alone; white space separates and is not kept. A literal `<unk>`, as in WikiText,
  is the unknown word.
- Characters: Unicode code points, white space included.
- Subwords: byte-level byte-pair encoding (Sennrich et al., arXiv:1508.07909, on bytes as GPT-2
  does), learned here or taken from a model; any text survives it.

What is not in a vocabulary of words or characters is `<unk>`, token 0. Two models are comparable by
perplexity only over one vocabulary; between vocabularies, by bits per byte (`perplexity`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fitune.errors import ConfigError, DataError
from fitune.language_models import Ids
from fitune.runs import read_json, write_json

KINDS = ("words", "characters", "subwords")
UNKNOWN = "<unk>"
SUBWORDS = 8_000
"""How many subwords are learned where no size is given."""

_WORD = re.compile(r"<unk>|\w+(?:['’]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a text, each known by its place.

    Attributes:
        kind: one of `KINDS`.
        tokens: as they are written; of subwords, in the byte alphabet of GPT-2.
        lowercase: whether text is lowercased before it is cut.
        merges: of subwords, the tokenizer as the JSON of the library tokenizers.
    """

    kind: str
    tokens: tuple[str, ...]
    lowercase: bool = False
    merges: str = ""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def unknown(self) -> int | None:
        """The id of `<unk>`; None where every text can be written."""
        return None if self.kind == "subwords" else 0

    @property
    def lossless(self) -> bool:
        """Whether tokens, none of them unknown, give back the text as it was."""
        return self.kind != "words" and not self.lowercase

    def encode(self, text: str) -> Ids:
        """int32 [tokens of the text]."""
        if self.lowercase:
            text = text.lower()
        if self.kind == "subwords":
            encoded = self._tokenizer.encode(text, add_special_tokens=False)
            return np.array(encoded.ids, np.int32)
        if self.kind == "characters":
            points = _code_points(text)
            return self._by_code_point[np.minimum(points, len(self._by_code_point) - 1)]
        places = self._places
        return np.array([places.get(word, 0) for word in _WORD.findall(text)], np.int32)

    def encode_all(self, texts: Iterable[str]) -> list[Ids]:
        """One sequence for each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text of token ids; words are joined by spaces."""
        if self.kind == "subwords":
            text: str = self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)
            return text
        return (" " if self.kind == "words" else "").join(self.tokens[int(i)] for i in ids)

    def unknowns(self, text: str) -> list[str]:
        """What `encode` makes `<unk>` of, as it is written in the text."""
        if self.kind == "subwords":
            return []
        if self.lowercase:
            text = text.lower()
        pieces = _pieces(text, self.kind)
        return [piece for piece in pieces if self._places.get(piece, 0) == 0]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        about = {"kind": self.kind, "lowercase": self.lowercase}
        kept = {"merges": self.merges} if self.kind == "subwords" else {"tokens": self.tokens}
        write_json(path, about | kept)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            RunError: missing or damaged.
        """
        saved = read_json(path)
        if saved["kind"] == "subwords":
            return _of_merges(saved["merges"], saved["lowercase"])
        return cls(saved["kind"], tuple(saved["tokens"]), saved["lowercase"])

    @cached_property
    def _places(self) -> dict[str, int]:
        return {token: place for place, token in enumerate(self.tokens)}

    @cached_property
    def _by_code_point(self) -> Ids:
        """int32 [highest code point + 2]: the last is the unknown's, for all that lie beyond."""
        points = _code_points("".join(self.tokens[1:]))
        table = np.zeros(int(points.max(initial=0)) + 2, np.int32)
        table[points] = np.arange(1, len(self.tokens))
        return table

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_str(self.merges)


def build_vocabulary(
    texts: Iterable[str],
    kind: str,
    *,
    size: int | None = None,
    minimum_count: int = 1,
    lowercase: bool = False,
) -> Vocabulary:
    """The vocabulary of a corpus, which is read once and not kept.

    Words and characters are ranked by how often they occur, equals by the alphabet.

    Args:
        kind: `words`, `characters` or `subwords`.
        size: the most tokens, `<unk>` included; default: all, or 8,000 subwords.
        minimum_count: what occurs less often is `<unk>`; of subwords, is not merged.

    Raises:
        ConfigError: no such kind, or a size or count below its limit.
        DataError: there is nothing but white space in the corpus.
    """
    if kind not in KINDS:
        raise ConfigError(f"there are no tokens of kind '{kind}'", fix=f"use {', '.join(KINDS)}")
    least = 257 if kind == "subwords" else 2
    if size is not None and size < least:
        raise ConfigError(
            f"a vocabulary of {size} {kind} was asked for, and the smallest has {least}",
            fix=f"set the size to at least {least}",
        )
    if minimum_count < 1:
        raise ConfigError(f"the minimum count is {minimum_count}", fix="set it to at least 1")
    if lowercase:
        texts = (text.lower() for text in texts)
    if kind == "subwords":
        return _of_merges(_learned_merges(texts, size or SUBWORDS, minimum_count), lowercase)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_pieces(text, kind))
    counts.pop(UNKNOWN, None)
    if not counts:
        raise DataError(f"there are no {kind} in the corpus", fix="give a file with text in it")
    kept = (token for token, count in counts.items() if count >= minimum_count)
    ranked = sorted(kept, key=lambda token: (-counts[token], token))
    most = None if size is None else size - 1
    return Vocabulary(kind, (UNKNOWN, *ranked[:most]), lowercase)


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """The subwords of a model.

    Args:
        tokenizer: a fast tokenizer of transformers.

    Raises:
        ConfigError: the tokenizer is not a fast one, whose rules could be saved.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(
            f"the tokenizer {type(tokenizer).__name__} is not a fast one",
            fix="use a model with a tokenizer.json",
        )
    return _of_merges(backend.to_str(), lowercase=False)


def _pieces(text: str, kind: str) -> Iterator[str]:
    return iter(_WORD.findall(text) if kind == "words" else text)


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _learned_merges(texts: Iterable[str], size: int, minimum_count: int) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=minimum_count,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    rules: str = tokenizer.to_str()
    return rules


def _of_merges(merges: str, lowercase: bool) -> Vocabulary:
    from tokenizers import Tokenizer

    places = Tokenizer.from_str(merges).get_vocab(with_added_tokens=True)
    tokens = [""] * (max(places.values()) + 1)
    for token, place in places.items():
        tokens[place] = token
    return Vocabulary("subwords", tuple(tokens), lowercase, merges)
