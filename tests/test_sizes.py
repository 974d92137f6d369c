"""Amounts of memory: every unit, and anything else refused in one sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.errors import ConfigError
from fitune.sizes import GIB, KIB, MIB, TIB, parse_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24GiB", 25_769_803_776),
        ("24GB", 24_000_000_000),
        ("24 gb", 24_000_000_000),
        ("24g", 25_769_803_776),
        ("24G", 25_769_803_776),
        ("24Gi", 25_769_803_776),
        ("512 MiB", 536_870_912),
        ("512MB", 512_000_000),
        (" 1.5 GiB ", 1_610_612_736),
        (".5g", 536_870_912),
        ("4k", 4096),
        ("2TiB", 2_199_023_255_552),
        ("2TB", 2_000_000_000_000),
        ("100", 100),
        ("100B", 100),
        ("0", 0),
        (12345, 12345),
        (0, 0),
        ("0.3B", 0),
    ],
)
def test_sizes(text: str | int, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        *["", " ", "GiB", "24 gigs", "-1GiB", "24GiB!", "1e9", "24iB", "1,5GiB", "24 G B", "nan"],
        *["inf", "9" * 400, "24GiB 3", "٣GiB", -1, True, None, 1.5],
    ],
)
def test_what_is_no_size_is_refused_with_the_value(wrong: object) -> None:
    with pytest.raises(ConfigError, match="is not an amount of memory; write it like 24GiB"):
        parse_bytes(wrong)  # type: ignore[arg-type]


@given(
    number=st.integers(0, 10**9),
    unit=st.sampled_from(
        [("KiB", KIB), ("MiB", MIB), ("GiB", GIB), ("TiB", TIB), ("t", TIB), ("kB", 1000)]
    ),
    space=st.sampled_from(["", " "]),
)
def test_written_sizes_come_back(number: int, unit: tuple[str, int], space: str) -> None:
    assert parse_bytes(f"{number}{space}{unit[0]}") == number * unit[1]


@given(st.text(max_size=30))
def test_any_text_is_a_size_or_one_clear_sentence(text: str) -> None:
    try:
        assert parse_bytes(text) >= 0
    except ConfigError as error:
        assert "is not an amount of memory" in str(error)
