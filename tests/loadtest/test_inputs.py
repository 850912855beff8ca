"""Inputs, command lines and single runs of perf_analyzer."""

import base64
import json
import struct

import numpy as np
import pytest

from clipserve import VideoClassifier
from clipserve.loadtest.inputs import draw_intervals, list_videos, prefix_length, write_clips, write_videos
from clipserve.loadtest.load_levels import LoadLevel, LoadTestError, parse_numbers, parse_through
from clipserve.loadtest.measurements import read_measurement
from clipserve.loadtest.perf_analyzer import RunSettings, build_command, run_perf_analyzer
from clipserve.loadtest.server import Server


def read_contents(path, name):
    return [base64.b64decode(request[name]["content"]["b64"]) for request in json.loads(path.read_text())["data"]]


def test_a_video_begins_with_its_length_in_four_bytes_little_endian():
    assert prefix_length(b"x" * 258) == b"\x02\x01\x00\x00" + b"x" * 258


def test_every_video_is_sent_as_it_is(videos, tmp_path):
    paths = list_videos(videos, count=2)
    assert write_videos(tmp_path / "videos.json", paths) == 2
    contents = read_contents(tmp_path / "videos.json", "VIDEO")
    assert [content[4:] for content in contents] == [path.read_bytes() for path in paths]
    assert [struct.unpack("<I", content[:4])[0] for content in contents] == [path.stat().st_size for path in paths]


def test_clips_keep_their_shape_and_bytes(tmp_path):
    clip = np.arange(1 * 2 * 4 * 4 * 3, dtype=np.uint8).reshape(1, 2, 4, 4, 3)
    write_clips(tmp_path / "clips.json", "CLIP", [clip])
    (request,) = json.loads((tmp_path / "clips.json").read_text())["data"]
    assert request["CLIP"]["shape"] == [1, 2, 4, 4, 3]
    assert read_contents(tmp_path / "clips.json", "CLIP") == [clip.tobytes()]


def test_clips_are_those_that_the_server_itself_decodes(restricted, videos):
    server = Server(restricted.triton.grpc_url, "motion")
    (video,) = list_videos(videos, count=1)
    clips = server.decode(video)
    assert clips.shape == (1, 8, 64, 64, 3)
    assert clips.dtype == np.uint8
    assert clips.std() > 1


def test_names_of_headers_may_have_capitals():
    assert Server("127.0.0.1:1", "motion", headers={"Authorization": "x"}).headers == {"authorization": "x"}


@pytest.mark.parametrize("prefixed", [True, False])
def test_triton_answers_what_has_the_prefix_and_nothing_else(analyzer, restricted, videos, tmp_path, prefixed):
    paths = list_videos(videos, count=3)
    inputs = tmp_path / "videos.json"
    write_videos(inputs, paths)
    if not prefixed:
        data = json.loads(inputs.read_text())
        for request, path in zip(data["data"], paths, strict=True):
            request["VIDEO"]["content"]["b64"] = base64.b64encode(path.read_bytes()).decode()
        inputs.write_text(json.dumps(data))
    headers = {"triton-grpc-protocol-clipserve-admin": restricted.key_file.read_text().strip()}
    server = Server(restricted.triton.grpc_url, "motion", headers=headers)
    level, folder = LoadLevel("closed", 1), tmp_path / "run"
    command = build_command(analyzer, server, RunSettings(0.9, 95), level, model="motion", inputs=inputs, folder=folder)
    run_perf_analyzer(command, analyzer.environment, folder, level=level, seconds=0.9)
    found = read_measurement(folder, through="ensemble", level=level, network="motion_net")
    assert bool(found.failure) is not prefixed
    assert (found.requests > 0) is prefixed
    assert headers["triton-grpc-protocol-clipserve-admin"] not in (folder / "command.json").read_text()


def test_a_folder_without_videos_is_an_error(tmp_path):
    with pytest.raises(LoadTestError, match="there is no video in the folder"):
        list_videos(tmp_path, count=1)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(LoadTestError, match="there is no file"):
        list_videos(tmp_path / "nowhere", count=1)


@pytest.mark.parametrize("text", ["", "1,x", "0,1", "-2", "1.5"])
def test_an_invalid_load_level_is_an_error(text):
    with pytest.raises(LoadTestError, match="--concurrency takes whole numbers above 0"):
        parse_numbers(text, "--concurrency", whole=True)


@pytest.mark.parametrize("text", ["nan", "inf", "1,nan"])
def test_a_rate_is_a_finite_number(text):
    with pytest.raises(LoadTestError, match="--rate takes numbers above 0"):
        parse_numbers(text, "--rate")


def test_parts_of_the_service_come_in_their_order():
    assert parse_through("net,ensemble") == ["ensemble", "net"]
    with pytest.raises(LoadTestError, match="ensemble, decode, net"):
        parse_through("ensemble,nat")


def test_the_model_that_only_decodes_is_loaded_for_the_block(restricted, videos):
    headers = {"triton-grpc-protocol-clipserve-admin": restricted.key_file.read_text().strip()}
    server = Server(restricted.triton.grpc_url, "motion", headers=headers)
    with server.decode_only_model() as name:
        outputs = server.client.get_model_metadata(name, headers=headers).outputs
        assert {output.name for output in outputs} == {"CLIP", "REPORT"}
    assert not server.client.is_model_ready("motion_decode_alone")
    with VideoClassifier("motion", restricted.triton.grpc_url) as classifier:
        assert classifier.classify(list_videos(videos, count=1)[0]).top.score > 0.1


def test_without_the_key_nothing_is_loaded_and_the_error_says_what_to_do(restricted):
    server = Server(restricted.triton.grpc_url, "motion")
    with pytest.raises(LoadTestError, match=r"--key-file.*leave `decode` out"), server.decode_only_model():
        pass


@pytest.mark.parametrize(("rate", "seconds"), [(0.5, 4), (26.5, 2), (400, 3)])
def test_requests_come_at_random_moments_and_exactly_at_the_rate(rate, seconds):
    intervals = np.array(draw_intervals(rate, seconds))
    assert intervals.mean() == pytest.approx(1 / rate)
    # Of an exponential distribution, and in no order.
    assert intervals.std() == pytest.approx(1 / rate, rel=0.1)
    assert np.median(intervals) == pytest.approx(np.log(2) / rate, rel=0.05)
    assert abs(np.corrcoef(intervals[:-1], intervals[1:])[0, 1]) < 0.3


@pytest.mark.parametrize(
    ("mode", "value", "seconds"), [("open", 100, 3), ("open", 2, 15), ("closed", 1, 3), ("closed", 8, 24)]
)
def test_a_slow_load_gets_windows_in_which_something_is_answered(mode, value, seconds):
    level = LoadLevel(mode, value)
    assert RunSettings(3, 95).stretched(level, unloaded_seconds=0.5).seconds == seconds


def test_the_server_gets_as_many_requests_a_second_as_were_asked_for(analyzer, restricted, videos, tmp_path):
    inputs, folder, level = tmp_path / "clips.json", tmp_path / "run", LoadLevel("open", 30)
    headers = {"triton-grpc-protocol-clipserve-admin": restricted.key_file.read_text().strip()}
    server = Server(restricted.triton.grpc_url, "motion", headers=headers)
    write_clips(inputs, server.steps.network_input, map(server.decode, list_videos(videos, count=2)))
    settings = RunSettings(4.5, 95)
    command = build_command(analyzer, server, settings, level, model="motion_net", inputs=inputs, folder=folder)
    run_perf_analyzer(command, analyzer.environment, folder, level=level, seconds=settings.seconds)
    found = read_measurement(folder, through="net", level=level, network="motion_net")
    assert found.throughput == pytest.approx(30, rel=0.12)
