"""Reading the output of perf_analyzer. perf_analyzer_output/ has that of real runs against `motion`."""

import csv
import shutil
import socket
import threading
from pathlib import Path

import pytest

from clipserve.loadtest.load_levels import LatencyLimit, LoadLevel
from clipserve.loadtest.measurements import DecodeTime, can_read, parse_decode_time, read_measurement
from clipserve.loadtest.report import format_rows, write_csv

OUTPUT = Path(__file__).parent / "perf_analyzer_output"


def read(name, **options):
    through = "net" if name == "net" else "ensemble"
    return read_measurement(
        OUTPUT / name, through=through, level=LoadLevel("closed", 4), network="motion_net", **options
    )


def test_throughput_is_that_of_the_windows_after_the_first():
    found = read("ensemble")
    assert found.throughput == pytest.approx((50.5939 + 51.9384) / 2)
    assert found.spread == pytest.approx(51.9384 / 50.5939 - 1)


def test_percentiles_are_those_of_the_table_in_milliseconds():
    found = read("ensemble")
    assert (found.p50, found.p90, found.p95, found.p99) == (42.434, 172.123, 197.261, 198.336)
    assert found.requests == 69


@pytest.mark.parametrize("name", ["ensemble", "net"])
def test_the_parts_make_up_the_mean_request(name):
    found = read(name)
    assert found.queue + (found.decode or 0) + found.model + found.outside == pytest.approx(found.mean)


def test_decoding_without_its_own_count_is_all_that_is_neither_queue_nor_network():
    found = read("ensemble")
    waiting = 0.753 + 0.991
    assert found.queue == pytest.approx(waiting, abs=0.01)
    assert found.decode == pytest.approx(74.063 - found.model - waiting, abs=0.01)


def test_with_the_decoders_count_the_wait_for_a_decoder_is_queue():
    found = read("ensemble", before=DecodeTime(1.0, 10), after=DecodeTime(2.0, 60))
    assert found.decode == pytest.approx(20)
    assert found.queue == pytest.approx(74.063 - found.model - 20)


def test_the_network_alone_has_no_decoding_and_batches():
    found = read("net")
    assert found.decode is None
    assert found.batch > 1


def test_a_refused_request_leaves_no_numbers_but_the_reason():
    found = read("refused")
    assert found.failure.startswith("[busy]")
    assert found.throughput is None
    assert not found.meets(LatencyLimit(95, 10_000))


def test_a_run_without_a_word_is_a_failure(tmp_path):
    shutil.copytree(OUTPUT / "ensemble", tmp_path / "run")
    (tmp_path / "run" / "stdout.txt").write_text("")
    found = read_measurement(tmp_path / "run", through="ensemble", level=LoadLevel("closed", 4), network="motion_net")
    assert found.failure == "perf_analyzer ended without a result"


@pytest.mark.parametrize(("milliseconds", "meets"), [(197.3, True), (197.2, False)])
def test_the_limit_is_compared_with_its_percentile(milliseconds, meets):
    assert read("ensemble").meets(LatencyLimit(95, milliseconds)) is meets


def test_the_metrics_tell_how_long_decoders_work():
    text = "# HELP x\nclipserve_decode_seconds_sum 34.5\nclipserve_decode_seconds_count 10\n"
    assert parse_decode_time(text) == DecodeTime(34.5, 10)
    assert parse_decode_time("nv_inference_count 3\n") is None
    assert DecodeTime(1, 1).mean_milliseconds_since(DecodeTime(1, 1)) is None


def test_an_address_that_gives_no_metrics_cannot_be_read():
    """Such as the gRPC port, which answers in HTTP/2."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            taken, _ = server.accept()
            with taken:
                taken.recv(1000)
                taken.sendall(b"\0\0\x12\4\0\0\0\0\0\n")

        threading.Thread(target=answer).start()
        assert not can_read(f"http://127.0.0.1:{server.getsockname()[1]}/metrics")
    assert not can_read("http://127.0.0.1:port/metrics")


def test_the_table_has_failures_too(tmp_path):
    rows = [read("ensemble"), read("refused"), read("net")]
    write_csv(tmp_path / "load.csv", rows)
    with (tmp_path / "load.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["through"] for row in written] == ["ensemble", "ensemble", "net"]
    assert [row["p50"] for row in written] == ["42.434", "", str(rows[2].p50)]
    shown = format_rows(rows)
    assert [bool(row["note"]) for row in shown] == [False, True, False]
