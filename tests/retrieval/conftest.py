"""What tests of retrieval share: a tiny encoder, loaded once, and texts whose words it knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fitune.retrieval.encoder import Encoder


@pytest.fixture(scope="session")
def encoder(tiny_encoder: Path) -> Encoder:
    from fitune.retrieval.encoder import Encoder

    return Encoder(str(tiny_encoder))


@pytest.fixture(scope="session")
def passages() -> list[str]:
    return [
        "my card was stolen, please help",
        "the bank transfer is late",
        "how to change my pin code",
        "a fee was charged for a cash machine",
        "the bank transfer is late",  # as the second
        "カードが盗まれました。助けてください",
        "my new card has not arrived " * 40,  # more than the encoder reads
        "!!!",  # without a word
    ]
