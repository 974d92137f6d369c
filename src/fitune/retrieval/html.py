"""HTML → plain text that keeps its structure: headings, paragraphs, lists and tables as lines.

Knows HTML's elements; knows nothing of files or passages.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

from fitune.retrieval.passages import Heading

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_UNSEEN = frozenset({"head", "script", "style", "template", "noscript", "svg", "math"})
"""What holds no text of the page. Of `head`, the title is taken."""

_OF_HEAD = frozenset({"title", "meta", "link", "base", "script", "style", "template", "noscript"})
"""Any other element ends `head`, which need not be closed."""

_PARAGRAPHS = frozenset(
    {
        *("p", "div", "section", "article", "main", "header", "footer", "nav", "aside", "figure"),
        *("ul", "ol", "dl", "table", "blockquote", "pre", "form", "hr", "address", "details"),
        *("figcaption", "fieldset", "body"),
        *_HEADINGS,
    }
)
_LINES = frozenset({"br", "li", "tr", "dt", "dd", "caption", "option", "summary", "legend"})
_CELLS = frozenset({"td", "th"})

_PARAGRAPH, _LINE, _SPACE, _CELL, _ITEM = "\n\n", "\n", " ", " | ", "- "


def html_text(markup: str) -> tuple[str, str, tuple[Heading, ...]]:
    """The text of a page, its title and its headings.

    Paragraphs are parted by a blank line, list items begin with "- ", a table's cells stand on one
    line with " | " between them. Scripts, styles and the page's head are left out; what is inside
    `pre` keeps its spaces and lines. Elements may be left open, as browsers allow.
    """
    page = _Page()
    page.feed(markup)
    page.close()
    return "".join(page.parts).rstrip(), page.title, tuple(page.headings)


class _Page(HTMLParser):
    """Writes text as elements come by.

    `gap` parts the next words from those before: it is written only once there are such words, so
    that elements without text leave no trace.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.length = 0
        self.headings: list[Heading] = []
        self.title = ""
        self.gap = ""
        self.item = False  # the next words are the first of a list item
        self.in_title = False
        self.in_cell = False
        self.unseen: list[str] = []  # open elements without text
        self.verbatim = 0  # open `pre`
        self.level = 0  # of the open heading
        self.heading: list[str] = []  # its words
        self.heading_start = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if self.unseen == ["head"] and tag not in _OF_HEAD:
            self.unseen = []
        if tag == "title" and not self.title and self.unseen in ([], ["head"]):
            self.in_title = True
        elif tag in _UNSEEN:
            self.unseen.append(tag)
        elif not self.unseen:
            self._begin(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self.in_title = False
        elif tag in self.unseen:
            del self.unseen[self.unseen.index(tag) :]
        elif not self.unseen:
            self._end(tag)

    def handle_data(self, data: str) -> None:
        if self.in_title:
            self.title = " ".join(f"{self.title} {data}".split())
        elif not self.unseen:
            self._write(data)

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """`<![…` is a comment up to the next `>`, as in browsers; the parser's own reading of it
        raises where it is malformed."""
        return self.rawdata.find(">", i) + 1 or -1

    def close(self) -> None:
        super().close()
        self._close_heading()

    def _begin(self, tag: str) -> None:
        if tag in _HEADINGS or tag == "table":
            self.in_cell = False  # a cell with these in it lays out the page
        if tag in _CELLS:
            self.in_cell = True
            if self.parts and not self.gap.startswith(_LINE):
                self.gap = _CELL
            return
        if tag == "tr":
            self.in_cell = False
        self._part(tag)
        if tag == "li":
            self.item = True
        elif tag == "pre":
            self.verbatim += 1
        elif tag in _HEADINGS:
            self._close_heading()
            self.level = _HEADINGS[tag]

    def _end(self, tag: str) -> None:
        if tag in _HEADINGS:
            self._close_heading()
        if tag in _CELLS or tag in ("tr", "table"):
            self.in_cell = False
        self._part(tag)
        if tag == "li":
            self.item = False
        elif tag == "pre":
            self.verbatim = max(0, self.verbatim - 1)

    def _part(self, tag: str) -> None:
        """What `tag` asks for between words; the widest asked for stands."""
        if tag not in _PARAGRAPHS and tag not in _LINES:
            return
        if self.in_cell:
            self.gap = self.gap or _SPACE
        elif tag in _PARAGRAPHS and not self.item:
            self.gap = _PARAGRAPH
        elif self.gap != _PARAGRAPH:
            self.gap = _LINE

    def _write(self, data: str) -> None:
        words = data if self.verbatim else re.sub(r"\s+", " ", data).strip()
        if not words.strip():
            if self.verbatim and self.parts and not self.gap:
                self._append(data)
            elif data:
                self.gap = self.gap or _SPACE
            return
        if not self.verbatim and data[0].isspace():
            self.gap = self.gap or _SPACE
        if self.parts:
            self._append(self.gap)
        if self.item:
            self._append(_ITEM)
            self.item = False
        if self.level:
            if not self.heading:
                self.heading_start = self.length
            self.heading.append(self.gap + words)
        self._append(words)
        self.gap = _SPACE if not self.verbatim and data[-1].isspace() else ""

    def _append(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)

    def _close_heading(self) -> None:
        if self.heading:
            title = " ".join("".join(self.heading).split())
            self.headings.append(Heading(self.heading_start, self.level, title))
        self.heading, self.level = [], 0
