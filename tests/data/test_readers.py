"""Files of every format, whole and broken."""

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fitune.data import readers
from fitune.data.readers import read_table
from fitune.errors import ConfigError, DataError, MissingExtraError, ResourceError

# Anything a text file can hold: no surrogates, and no NUL, which is refused.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
ROWS = st.lists(st.fixed_dictionaries({"text": TEXT, "label": TEXT}), min_size=1, max_size=8)
NASTY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(folder: Path, name: str, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    return str(folder / name)


def values(where: str, **options) -> list[dict]:
    return [record.values for record in read_table(where, **options).records]


def refused(where: str, *parts: str, error=DataError, **options) -> str:
    with pytest.raises(error) as caught:
        read_table(where, **options)
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    assert "\n" not in message
    return message


# --- round trips ---------------------------------------------------------------------------------


@NASTY
@given(rows=ROWS, dialect=st.sampled_from(["csv", "tsv"]), ending=st.sampled_from(["\n", "\r\n"]))
def test_separated_files_read_back_as_written(tmp_path, rows, dialect, ending):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(
        out,
        ["text", "label"],
        delimiter="," if dialect == "csv" else "\t",
        lineterminator=ending,
        quoting=csv.QUOTE_ALL,
    )
    writer.writeheader()
    writer.writerows(rows)
    assert values(write(tmp_path, f"rows.{dialect}", out.getvalue())) == rows


@NASTY
@given(rows=ROWS, ascii=st.booleans(), indent=st.sampled_from([None, 2]))
def test_json_reads_back_as_written_with_the_line_of_each_row(tmp_path, rows, ascii, indent):
    text = json.dumps(rows, ensure_ascii=ascii, indent=indent)
    table = read_table(write(tmp_path, "rows.json", text))
    assert [record.values for record in table.records] == rows
    lines = [int(record.source.rpartition(":")[2]) for record in table.records]
    # With indent 2 an object of two members takes four lines.
    assert lines == ([2 + 4 * i for i in range(len(rows))] if indent else [1] * len(rows))


@NASTY
@given(rows=ROWS, ascii=st.booleans(), gap=st.integers(0, 2))
def test_jsonl_reads_back_as_written_with_the_line_of_each_row(tmp_path, rows, ascii, gap):
    lines = "".join(json.dumps(row, ensure_ascii=ascii) + "\n" * (gap + 1) for row in rows)
    table = read_table(write(tmp_path, "rows.jsonl", lines))
    assert [record.values for record in table.records] == rows
    numbers = [int(record.source.rpartition(":")[2]) for record in table.records]
    assert numbers == [1 + i * (gap + 1) for i in range(len(rows))]


@NASTY
@given(data=st.binary(max_size=200), name=st.sampled_from(sorted(readers.SUFFIXES)))
def test_arbitrary_bytes_are_rows_or_one_clear_sentence(tmp_path, data, name):
    try:
        table = read_table(write(tmp_path, f"rows{name}", data))
    except (DataError, ConfigError) as error:
        assert str(error).endswith(".") and error.fix
    else:
        assert table.records


@NASTY
@given(text=st.text(alphabet='{}[]",:0 1a\n\\', max_size=40))
def test_broken_json_is_refused_exactly_when_the_json_module_refuses_it(tmp_path, text):
    where = write(tmp_path, "rows.json", text)
    try:
        truth = json.loads(text)
    except ValueError:
        refused(where, "rows.json", format="json")
        return
    if isinstance(truth, list) and truth and all(isinstance(row, dict) for row in truth):
        try:
            assert values(where, format="json") == truth
        except DataError as error:
            assert "twice" in str(error)


# --- whole files ---------------------------------------------------------------------------------


def test_sources_name_the_line_on_which_a_row_begins(tmp_path):
    where = write(tmp_path, "a.csv", 'text,label\n"one\ntwo",x\n\nthree,y\n')
    assert [record.source for record in read_table(where).records] == [f"{where}:2", f"{where}:5"]


def test_byte_order_mark_is_not_part_of_the_first_column(tmp_path):
    assert values(write(tmp_path, "a.csv", "\ufefftext,label\na,b\n")) == [
        {"text": "a", "label": "b"}
    ]


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_other_separators_are_found_in_the_header_and_said(tmp_path, mark):
    where = write(tmp_path, "a.csv", f"text{mark}label\na, b{mark}c\n")
    table = read_table(where)
    assert table.records[0].values == {"text": "a, b", "label": "c"}
    assert repr(mark) in table.notes[0]


def test_given_format_is_not_second_guessed(tmp_path):
    where = write(tmp_path, "a.csv", "text;label\na;b\n")
    assert values(where, format="csv") == [{"text;label": "a;b"}]


def test_long_fields_are_read_and_the_csv_limit_is_left_as_it_was(tmp_path):
    before = csv.field_size_limit()
    where = write(tmp_path, "a.csv", "text,label\n" + "x" * 200_000 + ",b\n")
    assert len(values(where)[0]["text"]) == 200_000
    assert csv.field_size_limit() == before


def test_columns_without_a_name_are_left_out_and_said(tmp_path):
    table = read_table(write(tmp_path, "a.csv", ",text,label\n0,a,b\n"))
    assert table.records[0].values == {"text": "a", "label": "b"}
    assert "without a name" in table.notes[0]


def test_object_with_one_list_is_read_and_said(tmp_path):
    text = '{"version": "1",\n "data": [\n{"text": "a"},\n{"text": "b"}]}'
    table = read_table(write(tmp_path, "a.json", text))
    assert [record.values for record in table.records] == [{"text": "a"}, {"text": "b"}]
    assert [record.source[-2:] for record in table.records] == [":3", ":4"]
    assert "'data'" in table.notes[0]


def test_json_with_one_object_a_line_is_read_as_jsonl_and_said(tmp_path):
    where = write(tmp_path, "a.json", '{"text": "a"}\n{"text": "b"}\n')
    table = read_table(where)
    assert len(table.records) == 2 and "JSONL" in table.notes[0]
    refused(where, "data.format: jsonl", format="json")


def test_line_separators_of_unicode_do_not_break_jsonl_lines(tmp_path):
    assert values(write(tmp_path, "a.jsonl", '{"text": "a\u2028b\x85c"}\n')) == [
        {"text": "a\u2028b\x85c"}
    ]


def test_gzip(tmp_path):
    where = write(tmp_path, "a.csv.gz", gzip.compress(b"text,label\na,b\n"))
    assert values(where) == [{"text": "a", "label": "b"}]
    refused(write(tmp_path, "b.csv.gz", b"text,label\n"), "gzip")
    refused(write(tmp_path, "c.csv.gz", gzip.compress(b"text,label\n" * 99)[:-9]), "gzip")


def test_text_files_are_decided_by_their_first_character(tmp_path):
    assert values(write(tmp_path, "a.txt", '{"t": 1}\n')) == [{"t": 1}]
    assert values(write(tmp_path, "b.txt", '[{"t": 1}]')) == [{"t": 1}]
    assert values(write(tmp_path, "c.txt", "t\tu\n1\t2\n")) == [{"t": "1", "u": "2"}]


def test_folder_and_pattern_read_every_data_file_in_order(tmp_path):
    write(tmp_path, "b.csv", "t\n2\n")
    write(tmp_path, "a.jsonl", '{"t": "1"}\n')
    write(tmp_path, "notes.md", "not data")
    assert values(str(tmp_path)) == [{"t": "1"}, {"t": "2"}]
    assert values(str(tmp_path / "*.csv")) == [{"t": "2"}]
    refused(str(tmp_path / "*.tsv"), "no file matches")


def test_encodings(tmp_path):
    for encoding in ("utf-16", "latin-1", "cp1252"):
        where = write(tmp_path, "a.csv", "text,label\nné,b\n".encode(encoding))
        assert values(where, encoding=encoding) == [{"text": "né", "label": "b"}]


# --- broken files --------------------------------------------------------------------------------


def test_bad_utf8_names_byte_line_and_the_encoding_that_fits(tmp_path):
    where = write(tmp_path, "a.csv", b"text,label\nok,b\ncaf\xe9,b\n")
    refused(where, f"{where}:3", "byte 19", "0xe9", "byte 4 of its line", "data.encoding: cp1252")
    refused(write(tmp_path, "b.csv", b"t\n\x81\n"), "data.encoding: latin-1")
    refused(write(tmp_path, "c.csv", "t\né\n".encode("utf-16")), "data.encoding: utf-16")
    refused(write(tmp_path, "d.csv", "t\né\n"), "data.encoding: utf-8", encoding="ascii")


@pytest.mark.parametrize("encoding", ["utf8x", "base64", "rot13", "", "a\0b"])
def test_unknown_encoding(tmp_path, encoding):
    refused(
        write(tmp_path, "a.csv", "t\na\n"), "data.encoding", error=ConfigError, encoding=encoding
    )


def test_missing_file_suggests_near_names(tmp_path):
    write(tmp_path, "train.csv", "t\na\n")
    refused(str(tmp_path / "trian.csv"), "there is no file", "did you mean train.csv")
    refused(str(tmp_path / "zzz.parquet"), "check the path")
    refused(str(tmp_path / "nowhere" / "a.csv"), "does not exist")


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.csv", "", ["is empty"]),
        ("a.csv", " \n\n", ["is empty"]),
        ("a.csv", "text,label\n", ["header line and no rows"]),
        ("a.csv", "text,label\na,b\nc\n", [":3", "1 fields", "header has 2"]),
        ("a.csv", "text,label\na,b,c\n", [":2", "3 fields", "quotes"]),
        ("a.csv", 'text,label\na,b\n"c,d\ne,f\n', [":3", "never closed"]),
        ("a.csv", 'text,label\n"a"b,c\n', [":2", "not valid CSV"]),
        ("a.csv", "text,text\na,b\n", [":1", "'text' twice"]),
        ("a.csv", ",\na,b\n", [":1", "no column names"]),
        ("a.csv", "text,label\na\0,b\n", [":2", "NUL"]),
        ("a.json", "[]", ["empty list"]),
        ("a.json", "3", [":1", "column 1", "list of objects"]),
        ("a.json", '[{"a": 1},\n {"a": }]', [":2", "column 8"]),
        ("a.json", '[{"a": 1}\n{"a": 2}]', [":2", "column 1", "expecting ','"]),
        ("a.json", '[{"a": 1}] x', ["column 12", "end of the file"]),
        ("a.json", '[{"a": 1}, 3]', ["is a number"]),
        ("a.json", '[{"a": 1},\n{"b": 1, "b": 2}]', [":2", "'b' appears twice"]),
        ("a.json", '{"x": 1,\n"x": [{"a": 1}]}', [":2", "'x' appears twice"]),
        ("a.json", '{"text": {"0": "a"}}', ["without a list", "orient='records'"]),
        ("a.json", '{"a": [{"t": 1}], "b": [{"t": 1}]}', ["2 lists", "a, b"]),
        ("a.json", "[" * 100_000, ["nested too deeply"]),
        ("a.json", "[{" + '"a":' + "9" * 5000 + "}]", ["limit"]),
        ("a.jsonl", '{"a": 1}\n[1]\n', [":2", "is a list"]),
        ("a.jsonl", '{"a": 1}\n{"a": \n', [":2", "column"]),
        ("a.jsonl", '{"a": 1} {"a": 2}\n', [":1", "column 10", "end of the line"]),
        ("a.jsonl", '{"a": 1}\n\n{"a": 1, "a": 2}\n', [":3", "'a' appears twice"]),
        ("a.parquet", "PAR1 not really PAR1", ["not a readable Parquet file"]),
        ("a.xlsx", "x", ["'.xlsx'", "data.format"]),
        ("plain", "x", ["(none)", "data.format"]),
    ],
)
def test_broken_file_is_one_sentence_with_its_place(tmp_path, name, content, parts):
    refused(write(tmp_path, name, content), name, *parts)


@pytest.mark.parametrize(
    "where", ["", " ", "a\0b", "/dev/null", "x" * 5000 + ".csv", "~nobody/a.csv"]
)
def test_names_that_are_no_files(where):
    with pytest.raises((DataError, ResourceError)):
        read_table(where)


def test_folder_without_data(tmp_path):
    refused(str(tmp_path), "holds no data files")
    refused(str(tmp_path), "save_to_disk", format="dataset")


def test_no_permission(tmp_path, monkeypatch):
    where = write(tmp_path, "a.csv", "t\na\n")

    def deny(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", deny)  # the tests may run as root, whom nobody denies
    refused(where, "no permission", where, error=ResourceError)


# --- Parquet and datasets ------------------------------------------------------------------------


def test_parquet_reads_back_and_class_labels_become_names(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features)
    where = str(tmp_path / "a.parquet")
    data.to_parquet(where)
    expected = [
        {"text": "a", "label": "yes"},
        {"text": "b", "label": "no"},
        {"text": "c", "label": None},
    ]
    assert values(where) == expected
    data.save_to_disk(str(tmp_path / "saved"))
    assert values(str(tmp_path / "saved")) == expected


def test_saved_dataset_with_several_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    parts = {name: datasets.Dataset.from_dict({"t": [name]}) for name in ("train", "test", "extra")}
    where = str(tmp_path / "saved")
    datasets.DatasetDict(parts).save_to_disk(where)
    table = read_table(where, split="test")
    assert table.records[0].values == {"t": "test"} and "'test'" in table.notes[0]
    assert table.records[0].source == f"{where}:test:1"
    assert values(f"{where}:extra") == [{"t": "extra"}]
    refused(where, "no split 'validation'", "train, test, extra", split="validation")
    refused(f"{where}:tset", "no split 'tset'")
    (tmp_path / "saved" / "test" / "state.json").write_text("{")
    refused(where, "not a whole saved dataset")


def test_missing_packages_name_the_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(write(tmp_path, "a.parquet", "x"), "fitune[data]", error=MissingExtraError)
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused("hub:a/b", "fitune[data]", error=MissingExtraError, download=True)


def test_hub_needs_permission_and_says_what_failed(monkeypatch):
    refused("hub:org/name", "download: true", error=ConfigError)
    refused("hub:", "not the id", error=ConfigError, download=True)
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(*arguments):
        asked.append(arguments)
        if len(asked) > 1:
            raise ConnectionError("Couldn't reach 'org/name' on the Hub")
        return datasets.DatasetDict({"dev": datasets.Dataset.from_dict({"t": ["a"]})})

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert values("hub:org/name/config:dev", download=True) == [{"t": "a"}]
    assert asked == [("org/name", "config")]
    refused("hub:org/name", "Couldn't reach", "connection", download=True)
