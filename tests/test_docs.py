"""The guide says what the program does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml

from fitune.cli import VERBS
from fitune.config import KNOWN
from fitune.taskfile import parse_task

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]


def test_the_page_of_the_task_file_is_up_to_date() -> None:
    """If this fails: ./run docs"""
    written = runpy.run_path(str(ROOT / "docs" / "write_task_file.py"))["text"]()
    assert (ROOT / "docs" / "task-file.md").read_text("utf-8") == written


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_commands_exist(page: Path) -> None:
    """Every `fitune VERB` in a code block or between backquotes."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    code = [block for language, block in blocks if not language]
    code += re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*", "", text, flags=re.MULTILINE))
    assert code
    for verb in re.findall(r"^ *fitune ([a-z]+)\b", "\n".join(code), re.MULTILINE):
        assert verb in VERBS


def test_yaml_shown_in_the_guide_is_sound() -> None:
    shown = re.findall(
        r"^ *```yaml\n(.*?)^ *```", (ROOT / "docs/index.md").read_text(), re.S | re.M
    )
    assert shown
    for text in shown:
        parse_task(yaml.safe_load(text))


def test_the_guide_and_the_help_tell_the_same_story() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    for verb, (_, line) in VERBS.items():
        assert re.search(rf"^fitune {verb} +{re.escape(line)}$", index, re.MULTILINE)


def test_the_page_of_the_ladder_names_every_approach_in_order() -> None:
    rungs = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs/ladder.md").read_text(), re.MULTILINE)
    assert rungs == list(KNOWN)
