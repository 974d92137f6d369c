"""Where Markdown's headings are, against CommonMark's examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.retrieval.markdown import markdown_headings


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("# foo\n## foo\n###### foo", [(1, "foo"), (2, "foo"), (6, "foo")]),  # example 62
        ("####### foo", []),  # 63
        ("#5 bolt\n\n#hashtag", []),  # 64
        ("\\## foo", []),  # 65
        ("   # foo", [(1, "foo")]),  # 68
        ("    # foo", []),  # 69
        ("## foo ##\n  ###   bar    ###", [(2, "foo"), (3, "bar")]),  # 71
        ("# foo#", [(1, "foo#")]),  # 75
        ("Foo *bar*\n=========\n\nFoo\n---", [(1, "Foo *bar*"), (2, "Foo")]),  # 80
        ("Foo\n= =\n\nFoo\n--- -", []),  # 88
        ("- Foo\n---", []),  # 94
        ("---\nFoo\n---", [(2, "Foo")]),  # 97, 98
        ("```\n# no\n```\n# yes", [(1, "yes")]),
        ("~~~ sh\n# no\n```\n# no\n~~~\n# yes\n", [(1, "yes")]),
        ("```\n# no, and never closed", []),
        ("# one\r\ntext\r\n\r\ntwo\r\n===\r\n", [(1, "one"), (1, "two")]),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n---", []),
        ("#\ttab", [(1, "tab")]),
        ("# ", []),
        ("", []),
    ],
)
def test_headings(text: str, wanted: list[tuple[int, str]]) -> None:
    assert [(h.level, h.title) for h in markdown_headings(text)] == wanted


@given(st.text(alphabet="#=-` \n\rab~|", max_size=60))
def test_each_begins_its_line(text: str) -> None:
    headings = markdown_headings(text)
    for heading in headings:
        assert heading.title in text[heading.start :].splitlines()[0]
        assert heading.start == 0 or text[heading.start - 1] in "\n\r"
    assert [h.start for h in headings] == sorted({h.start for h in headings})
