r"""Names that are not UTF-8, and names with commands to a terminal in them, survive in every output."""

import csv
import io
import json
import os
import random
import re
import sys
import unicodedata

import numpy as np
import pandas
import pytest
from rich.console import Console

from clipserve import ServerFailed, read_name
from clipserve.names import make_printable, spell_name
from clipserve.tables.display import draw_table, write_html
from tests.evaluation.made_evaluation import make_evaluation

# A file's name, and the name in outputs.
NAMES = {
    b"plain.mp4": "plain.mp4",
    "\u00e9t\u00e9 \U0001f3f9.mp4".encode(): "\u00e9t\u00e9 \U0001f3f9.mp4",
    b"caf\xe9.mp4": r"caf\xe9.mp4",
    b"back\\slash.mp4": r"back\slash.mp4",
    rb"caf\xe9.mp4": r"caf\x5cxe9.mp4",
    rb"\ud800.mp4": r"\x5cud800.mp4",
    rb"\x5cxe9.mp4": r"\x5cx5cxe9.mp4",
    b"\\\xe9.mp4": r"\\xe9.mp4",
    b"line\nbreak \x1b[31m.mp4": "line\nbreak \x1b[31m.mp4",
    "turned \u202e4pm.exe.mp4".encode(): "turned \u202e4pm.exe.mp4",
    "hidden \u200b\U000e0041.mp4".encode(): "hidden \u200b\U000e0041.mp4",
    rb"\U000e0041.mp4": r"\x5cU000e0041.mp4",
}
NOT_FOR_TERMINALS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e\U000e0041\ud800-\udfff]")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_spelt_and_read_back(name):
    assert spell_name(os.fsdecode(name)) == NAMES[name]
    assert os.fsencode(read_name(NAMES[name])) == name


def test_no_two_names_are_spelt_alike():
    draw = random.Random(1)
    letters = [*r"\\\xuU0589cdef.", "\udce9", "\udc80", "\ud800", "\udfff", "\u00e9", "\n", "\x1b", "\u202e"]
    letters.append("\U000e0041")
    for _ in range(20_000):
        name = "".join(draw.choices(letters, k=draw.randint(0, 12)))
        spelt = spell_name(name)
        assert read_name(spelt.encode().decode()) == name
        # What a terminal shows can be read back, too.
        assert read_name(make_printable(spelt)) == name


def test_a_terminal_gets_no_commands_and_other_scripts_stay():
    assert make_printable("a\x1b[2J\r\n\x9bb\u202ec\ud800") == r"a\x1b[2J\x0d\x0a\u009bb\u202ec\ud800"
    for text in ("\u65e5\u672c\u3000\u8a9e", "\u0646\u0627\u0645", "\U0001f468\u2764\ufe0f\U0001f469", "tab-less"):
        assert make_printable(text) == text
    assert str(ServerFailed("first line\nsecond \x1b]0;title\x07")) == "first line\nsecond \\x1b]0;title\\x07"


def test_a_terminal_gets_nothing_invisible():
    assert make_printable("a\u200bb\u200dc\ufeffd\u00ade") == r"a\u200bb\u200dc\ufeffd\u00ade"
    assert make_printable("x\U000e0041\U000e007f.mp4") == r"x\U000e0041\U000e007f.mp4"
    for character in map(chr, range(sys.maxunicode + 1)):
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            assert make_printable(character).isascii()
            assert read_name(make_printable(character)) == character


@pytest.fixture
def folder(tmp_path):
    """A video of each name."""
    place = tmp_path / "videos"
    place.mkdir()
    for name in NAMES:
        (place / os.fsdecode(name)).write_bytes(name)
    return place


@pytest.fixture
def table(connect, folder):
    odd = {"id": "\ud800", "path": "missing \ud800\udce9.mp4", "label": "\udfff"}
    return connect().classify_many([folder, odd], features=True).table()


def test_rows_name_their_files(table, folder, triton):
    assert {row.video for row in table} == {
        *(f"{folder}/{spelling}" for spelling in NAMES.values()),
        r"missing \ud800\xe9.mp4",
    }
    assert sorted(triton.videos) == sorted(NAMES)
    for row in table.rows[:-1]:
        with open(read_name(row.video), "rb") as file:  # noqa: PTH123 - as the documentation says
            assert os.fsencode(os.path.basename(read_name(row.video))) == file.read()  # noqa: PTH119
        assert (row.id, row.prediction.video) == (row.video, row.video)
    assert (table[-1].id, table[-1].label, table[-1].error.video) == (r"\ud800", r"\udfff", r"missing \ud800\xe9.mp4")


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [row["video"] for row in csv.DictReader(file)]


def read_lines(path):
    return [json.loads(line)["video"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_file_of_a_table_has_every_name(table, tmp_path):
    table.to_csv(tmp_path / "table.csv")
    table.to_jsonl(tmp_path / "table.jsonl")
    table.to_parquet(tmp_path / "table.parquet")
    videos = [row.video for row in table]
    assert read_csv(tmp_path / "table.csv") == videos
    assert read_lines(tmp_path / "table.jsonl") == videos
    assert pandas.read_parquet(tmp_path / "table.parquet").video.tolist() == videos
    assert table.to_pandas().video.tolist() == videos


def test_vectors_have_every_name(connect, folder, tmp_path):
    embeddings = connect().embed(folder)
    embeddings.save(tmp_path / "x.npy")
    embeddings.save(tmp_path / "x.parquet")
    assert read_csv(tmp_path / "x.csv") == embeddings.videos
    assert len(np.load(tmp_path / "x.npy")) == len(NAMES)
    assert pandas.read_parquet(tmp_path / "x.parquet").video.tolist() == embeddings.videos


def test_tables_for_people_hold_no_commands(table):
    console = Console(file=io.StringIO(), width=300)
    console.print(draw_table(table.rows))
    for shown in (console.file.getvalue(), write_html(table.rows, str(table.summary))):
        assert not NOT_FOR_TERMINALS.search(shown)
        assert r"line\x0abreak \x1b[31m.mp4" in shown
        assert r"caf\xe9.mp4" in shown


def test_reports_hold_no_commands_either(tmp_path):
    odd = "odd \x1b[31m \u202e \x9b"
    report = make_evaluation(name=odd, failures=1)
    console = Console(file=io.StringIO(), width=300)
    report.show(console)
    pages = [
        console.file.getvalue(),
        report.to_json(tmp_path / "report.json"),
        report.to_html(tmp_path / "report.html"),
    ]
    assert not any(NOT_FOR_TERMINALS.search(page) for page in pages)
    assert json.loads(pages[1])["name"] == odd
    assert r"odd \x1b[31m \u202e \u009b" in pages[2]


def test_lists_spell_the_names_of_files_as_outputs_do(connect, folder, triton):
    (folder / "list.csv").write_text('path\n"caf\\x5cxe9.mp4"\ncaf\\xe9.mp4\n')
    lines = [json.dumps({"path": r"caf\xe9.mp4"}), json.dumps({"path": "caf\udce9.mp4"})]
    (folder / "list.jsonl").write_text("\n".join(lines))
    rows = list(connect().classify_many([str(folder / "list.csv"), str(folder / "list.jsonl")]))
    assert [row.error for row in rows] == [None] * 4
    assert [row.id for row in rows] == [r"caf\x5cxe9.mp4", *[r"caf\xe9.mp4"] * 3]
    assert sorted(triton.videos) == [rb"caf\xe9.mp4", *[b"caf\xe9.mp4"] * 3]
