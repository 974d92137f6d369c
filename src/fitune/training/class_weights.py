"""How much a row of each label counts.

Knows labels by name; knows nothing of losses.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from fitune.errors import ConfigError


def label_weights(
    chosen: str | Mapping[str, float] | None, labels: Sequence[str], answers: Sequence[str | None]
) -> list[float] | None:
    """One weight a label, in the order of `labels`; None where all weigh the same.

    Balanced: ``rows / (labels that occur · rows of the label)``, as scikit-learn's `class_weight`
    (after King and Zeng, Logistic Regression in Rare Events Data, 2001). A label without rows
    weighs 1.

    Args:
        chosen: ``"balanced"``, or label → weight, where a label left out weighs 1.
        labels: of the task.
        answers: of the training rows.

    Raises:
        ConfigError: `chosen` names a label that the task does not have.
    """
    if chosen is None:
        return None
    if isinstance(chosen, Mapping):
        unknown = next((label for label in chosen if label not in labels), None)
        if unknown is not None:
            close = difflib.get_close_matches(unknown, labels, n=1)
            shown = ", ".join(list(labels)[:5]) + (", …" if len(labels) > 5 else "")
            raise ConfigError(
                f"class_weights names the label '{unknown:.60}', which the task does not have",
                fix=f"did you mean '{close[0]}'?" if close else f"labels are {shown}",
            )
        return [float(chosen.get(label, 1.0)) for label in labels]
    counts = {label: answers.count(label) for label in labels}
    present = sum(count > 0 for count in counts.values())
    return [len(answers) / (present * counts[label]) if counts[label] else 1.0 for label in labels]
