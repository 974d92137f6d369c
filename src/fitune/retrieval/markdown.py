"""Markdown: where its headings are.

Knows Markdown's headings and fenced code; knows nothing of files or passages. The text stays as it
is, marks and all: they say what a list, a table or code is, to readers and to models.
"""

from __future__ import annotations

import re

from fitune.retrieval.passages import Heading

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_NOT_A_PARAGRAPH = re.compile(r" {4}|\t| {0,3}([-*+>|]|\d+[.)])(\s|$)|\s*\|")


def markdown_headings(text: str) -> tuple[Heading, ...]:
    """Headings marked with `#`, or underlined with `=` or `-` (CommonMark 0.31, sections 4.2, 4.3).

    A heading of several underlined lines is taken by its last. Lines of fenced code (section 4.5)
    are none.
    """
    found: list[Heading] = []
    fence = ""  # that opened the code around this line
    above, above_start = "", 0  # the line above, where it is a paragraph's
    start = 0
    for whole in text.splitlines(keepends=True):
        line = whole.rstrip("\r\n")
        mark = _FENCE.fullmatch(line)
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
            above = ""
        elif mark and not (mark[1][0] == "`" and "`" in mark[2]):
            fence, above = mark[1], ""
        elif heading := _ATX.fullmatch(line):
            if heading[2]:
                found.append(Heading(start, len(heading[1]), heading[2]))
            above = ""
        elif above and (underline := _UNDERLINE.fullmatch(line)):
            found.append(Heading(above_start, 1 if underline[1][0] == "=" else 2, above.strip()))
            above = ""
        else:
            paragraph = line.strip() and not _NOT_A_PARAGRAPH.match(line)
            above, above_start = (line if paragraph else ""), start
        start += len(whole)
    return tuple(found)
