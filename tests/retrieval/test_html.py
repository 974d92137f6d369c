"""HTML → text with its structure."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.retrieval.html import html_text
from fitune.retrieval.passages import Heading

PAGE = """<!DOCTYPE html>
<html><head><title>A  manual</title><meta charset="utf-8"><style>p { color: red }</style>
<script>if (a < b) document.write("<p>never</p>")</script></head>
<body>
<h1>Set <em>up</em></h1>
<p>First &amp; foremost,
   plug it in.<br>Then wait.</p>
<ul><li>one</li><li><p>two</p><ul><li>inner</li></ul></li><li></li></ul>
<h2>Sizes</h2>
<table><caption>All</caption><tr><th>name</th><th>size</th></tr>
<tr><td><p>small</p></td>
    <td>1</td></tr></table>
<pre>
def f():
    return <b>1</b>
</pre>
<svg><title>no</title><text>no</text></svg><noscript>no</noscript>
After<!-- not this --> all.
</body></html>"""

TEXT = """Set up

First & foremost, plug it in.
Then wait.

- one
- two

- inner

Sizes

All
name | size
small | 1


def f():
    return 1

After all."""


def squeezed(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text)


def test_a_page() -> None:
    text, title, headings = html_text(PAGE)
    assert squeezed(text) == squeezed(TEXT)
    assert title == "A manual"
    assert [(h.level, h.title) for h in headings] == [(1, "Set up"), (2, "Sizes")]
    assert [text[h.start :].split("\n")[0] for h in headings] == ["Set up", "Sizes"]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("", ""),
        ("no markup at all", "no markup at all"),
        ("a <b>b</b>c d", "a bc d"),
        ("a<b> b </b>c", "a b c"),
        ("<p>open<p>paragraphs", "open\n\nparagraphs"),
        ("<head><title>t</title><p>a head left open", "a head left open"),
        ("<li></li><p>after an empty item", "after an empty item"),
        ("a<script>b", "a"),
        ("x<![CDATA[y]]>z", "xz"),
        ("<![if IE]>x<![endif]>", "x"),
        ("&lt;tag&gt; &eacute;&#233;", "<tag> éé"),
        ("<pre><b>a</b>\n  <b>c</b></pre>d", "a\n  c\n\nd"),
        ("<h1></h1>none", "none"),
    ],
)
def test_small_ones(markup: str, text: str) -> None:
    assert html_text(markup)[0] == text


def test_a_table_that_lays_out_a_page_keeps_its_paragraphs() -> None:
    text, _, headings = html_text("<table><tr><td><h1>A</h1><p>one</p><p>two</p></table>")
    assert text == "A\n\none\n\ntwo"
    assert headings == (Heading(0, 1, "A"),)


TAGS = ("p", "li", "td", "tr", "table", "h2", "pre", "script", "title", "head", "body", "svg")
pieces = st.one_of(
    st.sampled_from([f"<{tag}>" for tag in TAGS] + [f"</{tag}>" for tag in TAGS]),
    st.sampled_from(["<br>", "<![x]>", "<!--", "-->", "<![", "<!", "</", "<", "&", "&amp;", "<?"]),
    st.text(max_size=5),
)


@given(st.lists(pieces, max_size=30).map("".join))
def test_any_text_is_read(markup: str) -> None:
    text, _, headings = html_text(markup)
    for heading in headings:
        shown = " ".join(text[heading.start :].split())
        assert shown.startswith(heading.title) and heading.title
    assert [h.start for h in headings] == sorted({h.start for h in headings})


def test_no_word_outside_scripts_is_lost() -> None:
    words = [f"word{i}" for i in range(40)]
    tags = ["p", "li", "td", "div", "b", "h3", "pre", "dd", "blockquote", "span"]
    markup = "".join(f"<{tags[i % 10]}>{w}</{tags[i % 10]}>" for i, w in enumerate(words))
    assert re.findall(r"word\d+", html_text(markup)[0]) == words
