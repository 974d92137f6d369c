"""Files and folders → documents."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from fitune.errors import DataError, FituneError, MissingExtraError, ResourceError
from fitune.retrieval.documents import FORMATS, read_documents
from fitune.retrieval.passages import Document, Heading
from pdf_kit import pdf


def write(folder: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_every_format(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    write(
        tmp_path,
        a_txt="# not a heading\n",
        b_md="# One\r\ntext",
        c_html="<title>Page</title><h2>Two</h2><p>text",
        d_pdf=pdf(["A page."], title="Paper"),
        e_jsonl='{"title": "T", "text": "first"}\n{"text": "second"}\n',
        f_csv="name,text\nN,third\n",
        g__h_rst="deeper",
    )
    documents, notes = read_documents(str(tmp_path))
    f = str(tmp_path) + "/"
    assert documents == (
        Document(f + "a.txt", "# not a heading\n"),
        Document(f + "b.md", "# One\r\ntext", "One", (Heading(0, 1, "One"),)),
        Document(f + "c.html", "Two\n\ntext", "Page", (Heading(0, 2, "Two"),)),
        Document(f + "d.pdf", "A page.", "Paper"),
        Document(f + "e.jsonl:1", "first", "T"),
        Document(f + "e.jsonl:2", "second"),
        Document(f + "f.csv:2", "third", "N"),
        Document(f + "g/h.rst", "deeper"),
    )
    assert notes == ()


def test_one_file(tmp_path: Path) -> None:
    write(tmp_path, a_txt="text")
    [document], notes = read_documents(str(tmp_path / "a.txt"))
    assert document.text == "text" and notes == ()


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    write(
        tmp_path,
        a_txt="text",
        b_png=b"\x89PNG",
        c_png=b"\x89PNG",
        Makefile="all:",
        e_txt="",
        f_md=" \n",
        g_jsonl='{"text": "x"}\n{"text": null}\n',
    )
    write(tmp_path / ".git", h_txt="hidden")
    documents, notes = read_documents(str(tmp_path))
    assert [d.text for d in documents] == ["text", "x"]
    assert [note.removeprefix(f"{tmp_path}: ") for note in notes] == [
        "3 files of other kinds left out (2 .png, 1 no ending)",
        "3 documents without text left out",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "holds no text"),
        ("a.html", b"<script>x</script>", "holds no text"),
        ("a.txt", b"text\0text", "NUL character"),
        ("a.md", b"caf\xe9", "not utf-8"),
        ("a.png", b"\x89PNG", "by its ending '.png'"),
        ("a.jsonl", b'{"text": 3}', "'text' is 3"),
        ("a.jsonl", b'{"content": ', "not valid JSON"),
        ("a.csv", b"x,y\n1,2\n", "no column with the text of documents"),
        ("a.pdf", b"no PDF", "cannot be read as PDF"),
        ("a.pdf", pdf(["A page."])[:200], "cannot be read as PDF"),
        ("a.pdf", b"%PDF-1.4\n" + os.urandom(300), "cannot be read as PDF"),
    ],
)
def test_files_that_are_no_documents(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    if name.endswith(".pdf"):
        pytest.importorskip("pypdf")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FituneError, match=said):
        read_documents(str(tmp_path / name))


def test_folders_and_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no documents"):
        read_documents(str(tmp_path))
    write(tmp_path, manual_md="text")
    with pytest.raises(DataError, match=r"no file or folder .*did you mean manual\.md"):
        read_documents(str(tmp_path / "manuel.md"))
    with pytest.raises(DataError, match="no file or folder"):
        read_documents(str(tmp_path / "none" / "a.md"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    write(tmp_path, a_txt="text")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(ResourceError, match="no permission"):
        read_documents(str(tmp_path))


def test_pdf_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(["A page."]))
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(MissingExtraError, match=r"reading PDF files.*fitune\[pdf\]"):
        read_documents(str(tmp_path / "a.pdf"))


def test_pages_are_parted_and_passwords_named(tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf")
    (tmp_path / "a.pdf").write_bytes(pdf(["First page.", "", "Third page."]))
    [document], _ = read_documents(str(tmp_path / "a.pdf"))
    assert document.text == "First page.\n\nThird page."
    writer = pypdf.PdfWriter(clone_from=tmp_path / "a.pdf")
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "b.pdf")
    with pytest.raises(DataError, match="locked by a password"):
        read_documents(str(tmp_path / "b.pdf"))


def test_the_sample_of_a_squad_like_set(tmp_path: Path) -> None:
    records = [{"title": f"T{i}", "context": f"paragraph {i}"} for i in range(3)]
    (tmp_path / "a.json").write_text(json.dumps(records))
    documents, _ = read_documents(str(tmp_path / "a.json"))
    assert [d.source.rpartition(":")[2] for d in documents] == ["1", "1", "1"]
    assert [d.title for d in documents] == ["T0", "T1", "T2"]


def test_endings_are_listed_once_each() -> None:
    assert all(ending.startswith(".") and ending == ending.lower() for ending in FORMATS)
