"""Classification by Bayes' rule: which label's language model would most likely have written this?

Knows language models, one a label, and how to weigh several kinds of them; knows nothing of text.

log p(label | text) = log p(label) + Σ w_k log p_k(text | label) - log p(text), where k counts kinds
of models (of words, of characters, …). With one kind and w = 1 it is Bayes' rule itself. But
tokens are not independent given what an imperfect model knows of them, and kinds that read the same
text less so, which makes plain sums far too sure: the weights, found on rows held out, mend that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fitune.language_models import Floats, Ids, LanguageModel

Labels = npt.NDArray[np.integer]
"""Each text's label as a number: [texts]."""


def fit_each(
    make: Callable[[], LanguageModel],
    sequences: Sequence[Ids],
    labels: Labels,
    count: int,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> list[LanguageModel | None]:
    """One model for each of `count` labels, fitted to its texts; None for a label without any."""
    models: list[LanguageModel | None] = []
    for label in range(count):
        told(label, count)
        own = [sequences[i] for i in np.flatnonzero(labels == label).tolist()]
        model = make() if own else None
        if model is not None:
            model.fit(own)
        models.append(model)
    told(count, count)
    return models


def log_priors(labels: Labels, count: int) -> Floats:
    """The natural log of each label's share: [labels]; minus infinity where it does not occur."""
    with np.errstate(divide="ignore"):
        shares: Floats = np.log(np.bincount(labels, minlength=count) / len(labels))
    return shares


def log_likelihoods(models: Sequence[LanguageModel | None], sequences: Sequence[Ids]) -> Floats:
    """log p(text | label): [texts, labels]; zeros for a label without a model, whose prior must
    rule it out."""
    found = np.zeros((len(sequences), len(models)))
    for label, model in enumerate(models):
        if model is not None:
            found[:, label] = [logs.sum() for logs in model.log_probabilities(sequences)]
    return found


def posteriors(likelihoods: Floats, priors: Floats, weights: Floats) -> Floats:
    """p(label | text): [texts, labels], each row sums to 1.

    Args:
        likelihoods: [kinds, texts, labels] of `log_likelihoods`.
        priors: [labels] of `log_priors`.
        weights: [kinds].
    """
    return np.exp(_log_posteriors(likelihoods, priors, weights))


def choose_weights(likelihoods: Floats, priors: Floats, labels: Labels) -> Floats:
    """The weights from 0 to 1 that make the right labels of texts held out most likely: [kinds].

    The problem is convex: log-linear in the weights. Texts with a label that training lacked do
    not count; without any text, each kind weighs one over their number.
    """
    from scipy.optimize import minimize

    kinds = len(likelihoods)
    first = np.full(kinds, 1 / kinds)
    known = np.isfinite(priors)[labels]
    likelihoods, labels = likelihoods[:, known], labels[known]
    if not len(labels):
        return first
    rows = np.arange(len(labels))

    def loss(weights: Floats) -> tuple[float, Floats]:
        logs = _log_posteriors(likelihoods, priors, weights)
        expected = (np.exp(logs) * likelihoods).sum(axis=2)
        slope = (expected - likelihoods[:, rows, labels]).mean(axis=1)
        return -float(logs[rows, labels].mean()), slope

    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * kinds)
    weights: Floats = found.x
    return weights


def _log_posteriors(likelihoods: Floats, priors: Floats, weights: Floats) -> Floats:
    from scipy.special import log_softmax

    # Kind by kind, not as one product: a text's answer must not depend on those beside it.
    evidence = sum((w * of_kind for w, of_kind in zip(weights, likelihoods, strict=True)), priors)
    logs: Floats = log_softmax(evidence, axis=1)
    return logs
