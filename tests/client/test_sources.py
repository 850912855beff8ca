"""Every kind of source becomes entries, read only as far as they are needed."""

import io
import itertools
import json
import os
import re
import threading
import tracemalloc
from pathlib import Path

import av
import pandas
import pytest

from clipserve import Entry, InvalidRequest, VideoNotReadable, read_entries
from clipserve.sources.folders import VIDEO_SUFFIXES, Skipped

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Videos in no order, and files that are not videos."""
    for name in ("10.mp4", "2.MP4", "1.webm", "labels.txt", ".hidden.mp4", "more/3.avi", "more/.cache/4.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"video")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ids(source):
    return [entry.id for entry in read_entries(source)]


def read(source):
    return [(entry.id, entry.video, entry.label) for entry in read_entries(source)]


def test_a_path_is_taken_as_it_is(folder):
    assert read("videos/10.mp4") == [("videos/10.mp4", "videos/10.mp4", None)]
    assert ids("missing.mp4") == ["missing.mp4"]
    assert ids(folder / "videos" / "10.mp4") == [str(folder / "videos" / "10.mp4")]


def test_a_folder_is_its_videos_and_those_below_it_in_natural_order(folder):
    assert ids("videos") == ["videos/1.webm", "videos/2.MP4", "videos/10.mp4", "videos/more/3.avi"]


def test_names_that_differ_by_case_alone_have_an_order_too(folder):
    for name in ("b1.mp4", "B1.mp4", "b01.mp4", "a.mp4", "A.mp4"):
        (folder / "more" / name).parent.mkdir(exist_ok=True)
        (folder / "more" / name).touch()
    found = [f"more/{name}" for name in ("A.mp4", "a.mp4", "B1.mp4", "b01.mp4", "b1.mp4")]
    assert ids("more") == ids("more/*.mp4") == ids("more/**/*.mp4") == found


def test_a_pattern_is_what_it_matches(folder):
    assert ids("videos/*.[mM][pP]4") == ["videos/2.MP4", "videos/10.mp4"]
    assert ids("videos/**/*.avi") == ["videos/more/3.avi"]
    assert ids("videos/mor?") == ["videos/more/3.avi"]


def test_a_pattern_with_two_stars_may_match_folders(folder):
    for name in ("a/day1/1.mp4", "a/day1/day1.mp4", "b/c/day2/2.mp4", "b/c/day2/notes.txt", "b/day3.mp4", "none/x.txt"):
        (folder / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "all" / name).touch()
    found = ["all/a/day1/1.mp4", "all/a/day1/day1.mp4", "all/b/c/day2/2.mp4", "all/b/day3.mp4"]
    assert ids("all/**/day*") == found
    assert ids("all/**/day2") == ["all/b/c/day2/2.mp4"]
    (folder / "empty" / "folder").mkdir(parents=True)
    (entry,) = read_entries("empty/**")
    assert "no file matches" in str(entry.video)


def test_a_file_may_have_brackets_in_its_name(folder):
    (folder / "a[1].mp4").touch()
    assert ids("a[1].mp4") == ["a[1].mp4"]


def test_links_to_folders_are_followed_but_not_in_circles(folder):
    (folder / "elsewhere" / "deep").mkdir(parents=True)
    (folder / "elsewhere" / "deep" / "5.mp4").touch()
    (folder / "elsewhere" / "deep" / "up").symlink_to(folder / "videos")
    (folder / "videos" / "linked").symlink_to("../elsewhere")
    (folder / "videos" / "more" / "itself").symlink_to(".")
    (folder / "videos" / "more" / "twice").symlink_to("../../elsewhere/deep")
    skipped = Skipped()
    found = [entry.id for entry in read_entries("videos", skipped)]
    assert found == [
        *("videos/1.webm", "videos/2.MP4", "videos/10.mp4", "videos/linked/deep/5.mp4"),
        *("videos/more/3.avi", "videos/more/twice/5.mp4"),
    ]
    assert skipped.circles == 3


def test_a_pattern_follows_links_to_folders_but_not_in_circles(folder):
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "5.mp4").touch()
    (folder / "videos" / "linked").symlink_to("../elsewhere")
    for name in ("one", "two", "three"):  # glob itself would take 3 to the power of 40 ways
        (folder / "videos" / name).symlink_to(".")
    found = ["videos/2.MP4", "videos/10.mp4", "videos/linked/5.mp4"]
    skipped = Skipped()
    assert [entry.id for entry in read_entries("videos/**/*.[mM][pP]4", skipped)] == found
    assert skipped.circles == 3
    assert ids("vid*/**/*.[mM][pP]4") == found
    assert ids(f"{folder}/**/linked/**/*.mp4") == [f"{folder}/videos/linked/5.mp4"]
    assert ids("**/*.avi") == ["videos/more/3.avi"]
    assert ids("videos/more/**") == ["videos/more/3.avi"]


def test_what_a_scan_leaves_out_is_counted(folder):
    for name in ("1.jpg", "2.JPG", "3.jpg", "README", ".DS_Store"):
        (folder / "videos" / name).touch()
    (folder / "videos" / "gone.mp4").symlink_to("nowhere")
    (folder / "videos" / "itself.mp4").symlink_to("itself.mp4")
    (folder / "videos" / "more" / "up").symlink_to("..")
    skipped = Skipped()
    assert len(list(read_entries(["videos", "missing.mp4"], skipped))) == 5
    assert str(skipped) == (
        "6 no video by name (3 .jpg, 2 without a suffix, 1 .txt), 1 hidden, 2 broken link or no file,"
        " 1 link in a circle"
    )
    assert not Skipped()


def test_kinds_of_files_that_are_left_out_are_few_in_a_message(folder):
    for number in range(200):
        (folder / "videos" / f"frame.{number:05d}").touch()
    skipped = Skipped()
    list(read_entries("videos", skipped))
    assert skipped.files.total() == 201
    assert len(skipped.files) <= 51
    assert len(str(skipped)) < 100


def test_a_summary_says_what_was_left_out(connect, folder):
    stream = connect().classify_many(["videos"])
    table = stream.table()
    assert str(table.summary) == "4 classified, 0 failed; left out: 1 no video by name (1 .txt), 1 hidden"
    assert str(stream.summary) == str(table.summary)


def test_every_container_that_the_server_opens_is_looked_for():
    code = ROOT / "model_repository" / "decode" / "1" / "packages" / "clip_decode"
    container = code / "demux" / "container.py"
    (opened,) = re.findall(r'^CONTAINERS = "(.*)"$', container.read_text(), re.MULTILINE)
    sound = {"aac", "f4a", "isma", "m4a", "m4b", "mka", "mks", "oga", "opus", "spx"}
    stills = {"avif", "avifs", "heic", "heics", "heif", "heifs"}
    names = {
        f".{name}"
        for container in opened.split(",")
        for name in av.format.ContainerFormat(container, "r").extensions - sound - stills
    }
    assert {".mp4", ".mov", ".avi", ".h264"} <= names
    assert names <= VIDEO_SUFFIXES


@pytest.mark.parametrize("source", ["videos/*.mkv", "empty"])
def test_a_source_without_a_video_is_a_failure_of_its_own(folder, source):
    (folder / "empty").mkdir()
    (entry,) = read_entries(source)
    assert isinstance(entry.video, VideoNotReadable)
    assert (entry.name, source in str(entry.video)) == (source, True)


def test_a_list_may_mix_everything(folder):
    file = io.BytesIO(b"video")
    source = ["videos", "http://host/a.mp4", b"video", file, {"path": "x.mp4", "label": "archery"}]
    assert ids(source) == [*ids("videos"), "http://host/a.mp4", "5", "6", "x.mp4"]
    assert [entry.video for entry in read_entries(source)][4:] == ["http://host/a.mp4", b"video", file, "x.mp4"]


def test_a_wrong_type_fails_alone_in_a_list_and_at_once_by_itself():
    good, bad = read_entries(["a.mp4", None])
    assert isinstance(bad.video, InvalidRequest)
    assert (good.id, bad.id) == ("a.mp4", "1")
    with pytest.raises(InvalidRequest, match="got int"):
        read_entries(3)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_csv_names_ids_paths_and_labels_with_paths_beside_it(folder, mark):
    (folder / "lists").mkdir()
    text = f"{mark}id,path,label,more\n7,a.mp4,eating ice cream,x\n8,/b.mp4,,\n9,http://host/c.mp4,yoga,\n"
    (folder / "lists" / "labels.csv").write_bytes(text.encode())
    assert read("lists/labels.csv") == [
        ("7", "lists/a.mp4", "eating ice cream"),
        ("8", "/b.mp4", None),
        ("9", "http://host/c.mp4", "yoga"),
    ]


def test_only_the_column_path_is_needed(folder):
    (folder / "paths.csv").write_text(' path \n"a, b.mp4"\n')
    assert read("paths.csv") == [("a, b.mp4", "a, b.mp4", None)]


@pytest.mark.parametrize("classify", [read_entries, lambda source: read_entries([source]).__next__()])
def test_a_wrong_column_name_is_refused_with_the_columns_there_are(folder, classify):
    (folder / "labels.csv").write_text("id,file,label\n1,a.mp4,x\n")
    with pytest.raises(InvalidRequest, match=r"labels\.csv' has no column 'path'; it has 'id', 'file', 'label'"):
        classify("labels.csv")
    with pytest.raises(InvalidRequest, match="no column 'path'; it has 'id', 'video'"):
        read_entries(pandas.DataFrame({"id": [1], "video": ["a.mp4"]}))
    (folder / "labels.jsonl").write_text('{"file": "a.mp4"}\n')
    with pytest.raises(InvalidRequest, match=r"line 1 has no column 'path'; it has 'file'"):
        read_entries("labels.jsonl")


def test_a_list_that_cannot_be_read_is_refused_at_once(folder):
    with pytest.raises(InvalidRequest, match=r"'missing\.csv': No such file"):
        read_entries("missing.csv")
    (folder / "latin.csv").write_bytes("path\né.mp4\n".encode("latin-1"))
    with pytest.raises(InvalidRequest, match="save it as UTF-8"):
        list(read_entries("latin.csv"))


def test_blanks_around_commas_are_left_out(folder):
    (folder / " odd .mp4").touch()
    (folder / "labels.csv").write_text(
        'id , path,  label\n 7 , a b.mp4 , "eating, ice" \n8, "c, d.mp4",x\n9," odd .mp4",\n'
    )
    with pytest.raises(InvalidRequest, match=r"labels\.csv', line 2: a quote opens a field here"):
        read("labels.csv")  # the message names the blank after a quote
    (folder / "labels.csv").write_text(
        'id , path,  label\n 7 , a b.mp4 , eating ice \n8, "c, d.mp4",x\n9," odd .mp4",\n'
    )
    assert read("labels.csv") == [("7", "a b.mp4", "eating ice"), ("8", "c, d.mp4", "x"), ("9", " odd .mp4", None)]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('a.mp4,x\n"b.mp4,y\nc.mp4,z\n', 3),  # up to the end of the file
        ('"a.mp4,x\nb.mp4,y\n"c.mp4",z\n', 2),  # up to the next quote, which begins a field
        ('"a.mp4",x\n"b ""c"".mp4","y\nz.mp4,\n', 3),
        ('"a\nb.mp4","y\nz.mp4,\n', 3),
        ('"a.mp4"x,y\n', 2),
        (f'"a.mp4,{"x" * 140_000}\n', 2),
    ],
)
def test_a_quote_that_is_not_closed_is_reported_with_its_line(folder, rows, line):
    (folder / "labels.csv").write_text(f"path,label\n{rows}d.mp4,w\n")
    with pytest.raises(
        InvalidRequest,
        match=rf"labels\.csv', line {line}: a quote opens a field here, and no quote closes it up to line",
    ):
        list(read_entries("labels.csv"))


def test_a_quote_in_the_header_that_is_not_closed_is_reported_at_once(folder):
    (folder / "labels.csv").write_text('path,"label\na.mp4,x\n')
    with pytest.raises(InvalidRequest, match=r"labels\.csv', line 1: a quote opens a field here"):
        read_entries("labels.csv")


def test_a_field_that_is_too_long_is_reported_with_its_line(folder):
    (folder / "labels.csv").write_text(f'path,label\n"a.mp4",x\n"b.mp4",{"x" * 140_000}\n')
    entries = read_entries("labels.csv")
    assert next(entries).id == "a.mp4"
    with pytest.raises(InvalidRequest, match=r"labels\.csv', line 3: field larger than field limit \(131072\)"):
        next(entries)


def test_quotes_as_csv_has_them_are_read(folder):
    (folder / "labels.csv").write_text('path,label\n"a ""b"".mp4","x\ny"\n5" disc.mp4,"z"\n')
    assert read("labels.csv") == [('a "b".mp4', 'a "b".mp4', "x\ny"), ('5" disc.mp4', '5" disc.mp4', "z")]


@pytest.mark.parametrize("path", ["5", '["a.mp4"]', "{}", "true"])
def test_a_path_that_is_no_text_names_the_list_and_the_line(folder, path):
    (folder / "list.jsonl").write_text('{"path": "a.mp4"}\n{"id": "second", "path": ' + path + "}\n")
    _, wrong = read_entries("list.jsonl")
    assert wrong.id == "second"
    assert "list.jsonl, line 2: the path is a text" in str(wrong.video)


@pytest.mark.parametrize(
    ("name", "lines"), [("list.csv", "path\na.mp4\nb.mp4\n"), ("list.jsonl", '"a.mp4"\n"b.mp4"\n')]
)
def test_a_list_may_be_a_pipe(folder, name, lines):
    os.mkfifo(folder / name)
    writer = threading.Thread(target=(folder / name).write_text, args=(lines,), daemon=True)
    writer.start()
    assert ids(name) == ["a.mp4", "b.mp4"]
    writer.join()


def test_a_pattern_may_match_lists(folder):
    for name in ("1.csv", "2.csv"):
        (folder / name).write_text(f"path\n{name}.mp4\n")
    assert ids("*.csv") == ["1.csv.mp4", "2.csv.mp4"]
    (folder / "[1].csv").write_text("path\nthis.mp4\n")
    assert ids("[1].csv") == ["this.mp4"]


@pytest.mark.parametrize("columns", ["path,path", "path, path", "id,path,label,label"])
def test_a_column_that_comes_twice_is_reported(folder, columns):
    (folder / "labels.csv").write_text(f"{columns}\na,b,c,d\n")
    with pytest.raises(InvalidRequest, match=r"labels\.csv' has the column '(path|label)' more than once"):
        read_entries("labels.csv")
    frame = pandas.DataFrame([["a"] * len(columns.split(","))], columns=[name.strip() for name in columns.split(",")])
    with pytest.raises(InvalidRequest, match=r"more than once"):
        read_entries(frame)


def test_blank_lines_may_come_before_the_header(folder):
    (folder / "labels.csv").write_text("\n\npath,label\n\na.mp4,x\n,y\n")
    entries = list(read_entries("labels.csv"))
    assert entries[0].id == "a.mp4"
    assert "line 6" in str(entries[1].video)


def test_a_list_of_nothing_says_so(folder):
    (folder / "labels.csv").touch()
    with pytest.raises(InvalidRequest, match=r"labels\.csv' has no columns: it is empty"):
        read_entries("labels.csv")


def test_a_line_of_json_may_be_nested_as_deep_as_it_likes(folder):
    (folder / "list.jsonl").write_text("[" * 100_000 + '\n"a.mp4"\n')
    broken, good = read_entries("list.jsonl")
    assert isinstance(broken.video, VideoNotReadable)
    assert good.video == "a.mp4"


def test_a_line_without_a_path_fails_alone(folder):
    (folder / "labels.csv").write_text("id,path\n1,a.mp4\n2,\n3,c.mp4\n")
    first, second, third = read_entries("labels.csv")
    assert isinstance(second.video, VideoNotReadable)
    assert "labels.csv, line 3: the line has no path" in str(second.video)
    assert (first.id, second.id, third.id) == ("1", "2", "3")


def test_a_line_with_more_values_than_columns_fails_alone(folder):
    (folder / "labels.csv").write_text("path,label\na.mp4,up, down\nb.mp4,up,,\na, b.mp4,up\n")
    cut, good, other = read_entries("labels.csv")
    assert "labels.csv, line 2: the line has 3 values for 2 columns" in str(cut.video)
    assert (good.video, good.label) == ("b.mp4", "up")
    assert isinstance(other.video, VideoNotReadable)
    (folder / "labels.csv").write_text(",path\n0,a.mp4\n1,b.mp4\n")  # as pandas writes an index
    assert ids("labels.csv") == ["a.mp4", "b.mp4"]


def test_json_lines_have_the_same_keys(folder):
    lines = [
        json.dumps({"id": 5, "path": "a.mp4", "label": ["running", "jumping"]}),
        "",
        json.dumps("b.mp4"),
        "{broken",
        "3",
    ]
    (folder / "list.jsonl").write_text("\ufeff" + "\n".join(lines))
    first, second, broken, number = read_entries("list.jsonl")
    assert (first.id, first.video, first.label) == ("5", "a.mp4", '["running", "jumping"]')
    assert second.video == "b.mp4"
    assert "line 4: a line is a JSON object" in str(broken.video)
    assert "line 5: a line is a JSON object; got int" in str(number.video)


def test_a_data_frame_is_read_by_its_columns():
    frame = pandas.DataFrame({"path": ["a.mp4", None], "label": ["yoga", None], "id": [3, 4]})
    first, second = read_entries(frame)
    assert (first.id, first.video, first.label) == ("3", "a.mp4", "yoga")
    assert isinstance(second.video, VideoNotReadable)
    assert (second.id, second.label) == ("4", None)


def test_nothing_is_read_ahead_of_what_is_taken():
    taken = []

    def videos():
        for number in itertools.count():
            taken.append(number)
            yield {"path": f"{number}.mp4"}

    assert [entry.id for entry in itertools.islice(read_entries(videos()), 3)] == ["0.mp4", "1.mp4", "2.mp4"]
    assert taken == [0, 1, 2]


def test_a_long_list_needs_no_more_memory_than_a_short_one(folder):
    def peak_bytes(rows):
        with (folder / "list.csv").open("w") as file:
            file.write("path,label\n")
            file.writelines(f"{number}.mp4,label {number}\n" for number in range(rows))
        tracemalloc.start()
        assert sum(1 for _ in read_entries("list.csv")) == rows
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(1000)  # what Python keeps for later
    # 20,000 rows are a megabyte of text alone.
    assert peak_bytes(20_000) < peak_bytes(1000) + 50_000


def test_entries_are_a_source_too():
    entry = Entry("mine", "a.mp4", "yoga")
    assert list(read_entries([entry])) == [entry]
