"""N-gram models of words and of characters, one of each for every label, and Bayes' rule.

Knows which n-gram models an option means; knows nothing of other approaches.
"""

from __future__ import annotations

from functools import partial

from fitune import config
from fitune.approaches.generative import Generative, Kind


class NGram(Generative[config.NGram]):
    """Models of words of every order up to `word_order`, and one of characters.

    Single words alone are the strongest kind where a label has few rows; longer n-grams and
    characters add what order and spelling tell. How much each counts is chosen by validation.
    """

    use = "ngram"
    schema = config.NGram

    def kinds(self) -> tuple[Kind, ...]:
        from fitune.language_models import ngram

        options = self._options
        orders = [("words", n) for n in range(1, options.word_order + 1)]
        return tuple(
            Kind(
                f"{tokens}-{order}",
                tokens,
                partial(ngram.NGram, order=order, smoothing=options.smoothing),
                ngram.NGram.load,
            )
            for tokens, order in [*orders, ("characters", options.character_order)]
        )
