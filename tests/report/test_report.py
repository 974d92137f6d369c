"""The page: whole, safe, self-contained, and there for an interrupted run too."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.errors import ResourceError, RunError
from fitune.report import write_report
from fitune.report.write import clip, flat, tied

MakeRun = Callable[..., Path]
VOID = {"meta", "link", "br", "img", "input", "hr"}
DRAWN = {"line", "path", "circle", "rect"}


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page; a tag that is not closed in order is an error."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in DRAWN
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    @property
    def cells(self) -> list[dict[str, str]]:
        """Of the confusion matrix that is a picture."""
        return [a for a in self.having("rect") if a.get("class") in ("hit", "miss")]

    def having(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(params=["classify", "generate"])
def page(request: pytest.FixtureRequest, make_run: MakeRun) -> Page:
    return Page(write_report(make_run(kind=request.param)))


def test_everything_of_the_run_is_on_the_page(page: Page) -> None:
    for figure in (
        "task-1", "rung-0", "rung-1", "rung-2", "Use rung-2: it is best.", "Others are worse.",
        "recommended", "0.600", "0.500 to 0.700", "+0.100", "p = 0.003", "1 min 38 s", "2.5 s",
        "1.00 GiB", "4.88 M", "1,234 rows", "24 rows", "exact McNemar test", "target",
        "rung-1-model", "packages.torch", "2.13.0", "macro_f1", "Learning curves", "text number 2",
    ):  # fmt: skip
        assert figure in page.text, figure


@pytest.fixture(params=["classify", "generate"])
def whole(request: pytest.FixtureRequest, explained: MakeRun) -> Page:
    return Page(write_report(explained(kind=request.param)))


def test_what_is_behind_the_recommendation_is_on_the_page(whole: Page) -> None:
    for text in (
        "Quality against cost", "answering 7,000 requests", "Money at 1.5 an hour",
        "rung-2 is cheaper than rung-0 from", "What more rows would bring rung-2",
        "More rows: it rises.", "Why answers are wrong", "9 of information", "3 of capacity",
        "rung-0 answers 4 of them rightly", "slow was skipped: it would take 2 h",
        "2 passages shown, 1 cited", "manual",
    ):  # fmt: skip
        assert text in whole.text, text
    pictures = [a["aria-label"] for a in whole.having("svg")]
    assert any(label.startswith("rung-0: 0.500, ") for label in pictures)
    assert any("1,600 rows: 0.800 expected (0.700 to 0.900)" in label for label in pictures)
    for check in (
        test_text_from_the_data_stays_text,
        test_nothing_is_loaded_from_elsewhere,
        test_the_page_is_accessible,
    ):
        check(whole)


def test_how_far_confidence_is_to_be_believed(explained: MakeRun) -> None:
    assert "confidence is to be believed" in Page(write_report(explained(kind="classify"))).text


def test_break_even_is_told_once_it_is_known(make_run: MakeRun) -> None:
    text = Page(write_report(make_run())).text
    assert "Quality against cost" in text and "is cheaper than" not in text
    assert "Why answers are wrong" not in text and "What more rows" not in text


@pytest.mark.parametrize("name", ["ladder.json", "curve/curve.json"])
def test_damage_is_said_in_a_sentence(explained: MakeRun, name: str) -> None:
    run = explained()
    record = json.loads((run / name).read_text())
    record.update({"diagnoses": [{"rung": 3}], "points": [{"rows": 1}]})
    (run / name).write_text(json.dumps(record))
    with pytest.raises(RunError, match=f"{name} cannot be read"):
        write_report(run)


def test_the_two_kinds_show_what_suits_them(make_run: MakeRun) -> None:
    classify = Page(write_report(make_run(kind="classify"))).text
    assert "takes for what" in classify and "Most confused" in classify
    generate = Page(write_report(make_run(kind="generate"))).text
    assert "takes for what" not in generate and "reference" in generate and "[1.000]" in generate


def test_text_from_the_data_stays_text(page: Page) -> None:
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "iframe", "object", "b", "form", "input"}
    assert not any(name.startswith("on") for _, a in page.tags for name in a)
    assert page.text.count("<script>alert('x')</script>") >= 5
    assert "\x00" not in page.source and "␀" in page.text
    assert not re.search("[\ud800-\udfff]", page.source)


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    for tag, attributes in page.tags:
        assert "src" not in attributes and "srcset" not in attributes and "action" not in attributes
        assert tag not in {"a", "base"}
        assert attributes.get("href", "data:,") == "data:,"
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    assert "url(" not in style and "@import" not in style and "http" not in style
    policies = [a["content"] for a in page.having("meta") if "http-equiv" in a]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_the_page_is_accessible(page: Page) -> None:
    assert page.having("html") == [{"lang": "en"}]
    assert all(a.get("role") == "img" and a.get("aria-label") for a in page.having("svg"))
    assert all(a.get("scope") in {"row", "col"} for a in page.having("th"))
    assert len(page.having("h1")) == 1
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        assert attributes.get("aria-labelledby", ids[0]) in ids
    viewport = [a["content"] for a in page.having("meta") if a.get("name") == "viewport"]
    assert viewport == ["width=device-width, initial-scale=1"]


def test_colours_have_enough_contrast() -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text, in both colour schemes."""
    import fitune.report

    css = (Path(fitune.report.__file__).parent / "report.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.S)[:2]
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in blocks)

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    assert len(light) > 10 and set(light) == set(dark)
    for scheme in (light, dark):
        for ink in ("ink", "muted", "accent", "good", "bad"):
            for ground in ("page", "card", "good-tint"):
                a, b = sorted((luminance(scheme[ink]), luminance(scheme[ground])), reverse=True)
                assert (a + 0.05) / (b + 0.05) >= 4.5, (ink, ground, scheme[ink])


@pytest.mark.parametrize(
    "missing",
    [
        "environment.json", "data.json", "rows.test.jsonl", "ladder.json", "rungs",
        "rungs/rung-2", "rungs/rung-2/rung.json", "rungs/rung-2/predictions.jsonl",
        "rungs/rung-2/options.json", "rungs/rung-2/metrics.jsonl",
    ],
)  # fmt: skip
def test_whatever_an_interruption_left_out_is_tolerated(make_run: MakeRun, missing: str) -> None:
    import shutil

    run = make_run()
    if (run / missing).is_dir():
        shutil.rmtree(run / missing)
    else:
        (run / missing).unlink()
    text = Page(write_report(run)).text
    assert ("did not finish" in text) == (missing == "rungs/rung-2/rung.json")
    assert ("This run has not finished" in text) == (missing == "ladder.json")
    if missing != "rungs":
        assert "rung-0" in text and "rung-1" in text


def test_a_run_that_only_has_its_task(tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text('{"kind": "classify"}')
    text = Page(write_report(tmp_path)).text
    assert "This run has not finished" in text and "The rungs" not in text


def test_a_line_cut_off_by_an_interruption_is_left_out(make_run: MakeRun) -> None:
    run = make_run()
    metrics = run / "rungs/rung-2/metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-9])
    assert "Validation accuracy" in Page(write_report(run)).text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("task.json", "{"), ("data.json", "[]"), ("rows.test.jsonl", '{"text"\n{"text": "a"}\n'),
        ("rows.test.jsonl", '{"answer": "a"}\n'), ("rows.test.jsonl", "3\n"),
        ("rungs/rung-1/rung.json", '{"name": "x"}'), ("rungs/rung-1/predictions.jsonl", "{}\n"),
    ],
)  # fmt: skip
def test_damage_is_named(make_run: MakeRun, name: str, content: str) -> None:
    run = make_run()
    (run / name).write_text(content)
    with pytest.raises(RunError, match=re.escape(f"{name} cannot be read: ")):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run folder: it has no task\.json"):
        write_report(tmp_path / "nothing")


def test_an_older_report_is_replaced_or_left_whole(make_run: MakeRun) -> None:
    run = make_run()
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    with pytest.raises(ResourceError, match=r"report\.html cannot be written"):
        write_report(run)
    assert not list(run.glob(".*"))


def test_a_large_run_makes_a_small_page(make_run: MakeRun) -> None:
    labels = [f"a_rather_long_intent_name_{i}" for i in range(79)]  # 79 and 7 share no factor
    path = write_report(make_run(rows=3080, labels=labels, rungs=6))
    assert path.stat().st_size < 500_000
    page = Page(path)
    assert len(page.cells) == 2 * 79  # right, and the next label when wrong, for every label
    assert "Most confused" in page.text


def test_thirty_labels_are_a_table_of_numbers(make_run: MakeRun) -> None:
    page = Page(write_report(make_run(rows=300, labels=[f"label{i}" for i in range(30)])))
    assert not page.cells
    hits = [a for a in page.having("td") if a.get("class", "").startswith("hit")]
    assert len(hits) == 30


@settings(deadline=None)
@given(st.text(max_size=40))
def test_clipped_text_keeps_what_it_shows(text: str) -> None:
    shown = clip(text, 20)
    assert not any(c < " " and c not in "\n\t" for c in shown)
    if len(text) <= 20:
        assert [a for a, b in zip(text, shown, strict=True) if a != b and a >= " "] == []
    else:
        assert shown.endswith(f" … ({len(text) - 20} more characters)")


def test_settings_are_flattened_with_their_whole_name() -> None:
    value = {"a": {"b": 1, "c": None}, "d": [{"e": "x"}], "f": [], "g": [1, 2], "h": {}}
    assert flat(value) == [
        ("a.b", "1"), ("a.c", "null"), ("d[0].e", "x"), ("f", "[]"), ("g", "[1, 2]"), ("h", "{}"),
    ]  # fmt: skip
    assert flat({}) == []


def test_figures_keep_their_units() -> None:
    assert tied("p < 0.001, 95 % of 4 min 12 s") == "p\xa0<\xa00.001, 95\xa0% of 4\xa0min 12\xa0s"


def test_templates_belong_to_the_package() -> None:
    from importlib.resources import files

    assert files("fitune.report").joinpath("report.html").is_file()
    assert files("fitune.report").joinpath("report.css").is_file()
