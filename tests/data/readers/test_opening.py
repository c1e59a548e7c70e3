"""Text files may be compressed, and have other suffixes and encodings than .jsonl and UTF-8."""

import bz2
import gzip
import json
import lzma
import zipfile
from pathlib import Path

import pytest
from reader_helpers import concatenate, get_error, make_row, read_leniently, write_jsonl

from crosstask.data.readers import read_rows
from crosstask.data.readers.opening import split_name

ROWS = [make_row(n, passage=f"Mühle {n}, ¼ 水車 🌉") for n in range(4)]


def compress(path, suffix):
    """Compress a file, delete it, and return the path of the compressed one."""
    target = path.with_name(path.name + suffix)
    if suffix.lower() == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            archive.write(path, path.name)
            archive.writestr("__MACOSX/._" + path.name, b"attributes")
    else:
        compressor = {".gz": gzip, ".bz2": bz2, ".xz": lzma}[suffix.lower()]
        target.write_bytes(compressor.compress(path.read_bytes()))
    path.unlink()
    return target


@pytest.mark.parametrize("suffix", [".gz", ".GZ", ".bz2", ".xz", ".zip"])
def test_a_text_file_may_be_compressed(tmp_path, suffix):
    write_jsonl(tmp_path / "rows.jsonl", [*ROWS, make_row(9, question="")])
    path = compress(tmp_path / "rows.jsonl", suffix)
    rejects = []
    rows = concatenate(read_rows(path, "fuse", rejects=rejects))
    assert sorted(rows, key=lambda row: row["id"]) == ROWS
    assert rejects == [{"source": str(path), "line": 5, "id": "r9", "reason": "empty question"}]


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.json.gz", "rows.tsv.xz"])
def test_what_only_seems_to_be_compressed_is_an_error(tmp_path, name):
    (tmp_path / name).write_text("passage,summary\np,s\n")
    assert f"{tmp_path / name}: cannot be read: " in get_error(tmp_path / name, "summarize")


def test_a_compressed_file_that_is_cut_off_is_an_error(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    path = compress(tmp_path / "rows.jsonl", ".gz")
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{path}: cannot be read: " in get_error(path, "fuse")


def test_an_archive_of_several_files_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "rows.csv.zip", "w") as archive:
        for name in ("a.csv", "b.csv"):
            archive.writestr(name, "passage,summary\n")
    assert "rows.csv.zip: has 2 files, expected one" in get_error(tmp_path / "rows.csv.zip", "fuse")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_a_byte_order_mark_names_the_encoding(tmp_path, name, encoding):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    text = (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    if name == "rows.csv":
        lines = ["\t".join(ROWS[0])] + ["\t".join(map(str, row.values())) for row in ROWS]
        text = "\r\n".join([*lines, ""])  # as Excel writes "Unicode text"
    mark = "\ufeff" if encoding.endswith("e") else ""
    (tmp_path / name).write_bytes((mark + text).encode(encoding))
    rows = concatenate(read_rows(tmp_path / name, "fuse"))
    assert sorted(rows, key=lambda row: row["id"]) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "cp1252"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.json"])
def test_a_byte_order_mark_of_utf8_takes_precedence(tmp_path, name, encoding):
    if name == "rows.csv":
        lines = ["\t".join(ROWS[0])] + ["\t".join(map(str, row.values())) for row in ROWS]
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    (tmp_path / name).write_text("\n".join(lines), encoding="utf-8-sig")
    rows = concatenate(read_rows(tmp_path / name, "fuse", encoding=encoding))
    assert sorted(rows, key=lambda row: row["id"]) == ROWS


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-16"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.json"])
def test_the_error_of_a_wrong_encoding_names_it_and_says_that_a_file_is_utf8(tmp_path, name, encoding):
    text = 'passage,summary\n"”",s\n' if name == "rows.csv" else '{"passage": "”", "summary": "s"}\n'
    (tmp_path / name).write_text(text, encoding="utf-8")
    message = get_error(tmp_path / name, "summarize", encoding=encoding)
    assert f"as {encoding}: " in message or f"expected {encoding}, got the byte" in message
    assert message.endswith("; it is valid UTF-8, which needs no `data_encoding`")
    (tmp_path / name).write_text(text.replace("”", "ü"), encoding="latin-1")
    message = get_error(tmp_path / name, "summarize", encoding="utf-8")
    assert "expected utf-8, got the byte 0xfc" in message and "names another encoding" in message


def test_utf16_that_is_cut_off_is_an_error(tmp_path):
    (tmp_path / "rows.csv").write_bytes("passage,summary\np,s\n".encode("utf-16")[:-1])
    assert "rows.csv: cannot be read as utf-16: 'utf-16-le' codec can't decode" in get_error(
        tmp_path / "rows.csv", "summarize"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rows.jsonl", ("rows", ".jsonl")),
        ("Rows.CSV", ("Rows", ".csv")),
        ("a/train.tsv.GZ", ("train", ".tsv")),
        ("v1.2.csv.zip", ("v1.2", ".csv")),
        ("rows.gz", ("rows", "")),
    ],
)
def test_the_name_has_a_stem_and_a_suffix(name, expected):
    assert split_name(Path(name)) == expected


def test_ids_do_not_contain_the_suffixes(tmp_path):
    write_jsonl(tmp_path / "news.jsonl", [{"passage": "p", "summary": "s"}])
    [row], _ = read_leniently(compress(tmp_path / "news.jsonl", ".gz"), "summarize")
    assert (row["id"], row["source"]) == ("news:1", "news.jsonl.gz")
