"""A hidden Markov model for every label, and Bayes' rule.

Knows which model an option means; knows nothing of other approaches.
"""

from __future__ import annotations

from functools import partial

from fitune import config
from fitune.approaches.generative import Generative, Kind


class Hmm(Generative[config.Hmm]):
    """One model a label, over words, characters or subwords."""

    use = "hmm"
    schema = config.Hmm

    def kinds(self) -> tuple[Kind, ...]:
        from fitune.language_models.hmm import HiddenMarkov

        options = self._options
        make = partial(
            HiddenMarkov,
            states=options.states,
            iterations=options.iterations,
            smoothing=options.smoothing,
            seed=self.work.task.seed if options.seed is None else options.seed,
        )
        return (Kind(options.tokens, options.tokens, make, HiddenMarkov.load),)
