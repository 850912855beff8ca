"""Videos from http(s) addresses, fetched by the client from a real server on this machine."""

import base64
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clipserve import (
    DownloadLimits,
    InvalidRequest,
    RequestCancelled,
    VideoClassifier,
    VideoNotReadable,
    VideoTooLarge,
)
from clipserve.sources.addresses import Address
from tests.watching import HANG_SECONDS, NEVER_SECONDS, at_once

VIDEO = b"video" * 1000


class Site(BaseHTTPRequestHandler):
    """Addresses named after what they do."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        {
            "/clip.mp4": self.give,
            "/empty.mp4": lambda: self.give(b""),
            "/chunked.mp4": self.give_chunks,
            "/endless.mp4": self.drip,
            "/slow-header.mp4": self.drip_header,
            "/slow-chunk.mp4": self.drip_chunk,
            "/silent.mp4": lambda: self.server.release.wait(NEVER_SECONDS),
            "/torn.mp4": lambda: self.give(VIDEO, stated=len(VIDEO) + 1),
            "/moved.mp4": lambda: self.redirect("/clip.mp4"),
            "/no-length.mp4": lambda: self.give(VIDEO, stated="abc"),
            "/less-than-nothing.mp4": lambda: self.give(VIDEO, stated=-5),
            "/broken-chunks.mp4": lambda: self.give_chunks(end=b"xyz\r\n"),
            "/cut-off-chunks.mp4": lambda: self.give_chunks(end=b"ff\r\n123"),
            "/no-http.mp4": lambda: self.wfile.write(b"SSH-2.0\r\n"),
            "/to-ftp-with-key": lambda: self.redirect("ftp://user:p4ss@localhost/clip.mp4"),
            "/to-file-with-key": lambda: self.redirect("file://user:p4ss@localhost/clip.mp4"),
            "/to-nowhere-with-key": lambda: self.redirect("http://user:p4ss@ho\u2100st".encode().decode("latin-1")),
            "/to-file": lambda: self.redirect("file:///etc/hostname"),
            "/to-ftp": lambda: self.redirect("ftp://localhost/clip.mp4"),
            "/to-data": lambda: self.redirect("data:video/mp4;base64,AAAA"),
            "/in-circles": lambda: self.redirect("/in-circles"),
            "/a%20b%C3%A9/%E6%97%A5.mp4?q=%20%22": self.give,
            "/caf%E9.mp4": self.give,
            "/signed.mp4?X-Amz-Signature=abc": self.give,
            "/locked.mp4": self.give_to_those_with_a_key,
            "/to-locked": lambda: self.redirect("/locked.mp4"),
            "/to-locked-elsewhere": lambda: self.redirect(f"http://localhost:{self.server.server_port}/locked.mp4"),
            "/to-locked-with-key": lambda: self.redirect(
                f"http://us%20er:pa%40ss@localhost:{self.server.server_port}/locked.mp4"
            ),
        }.get(self.path, lambda: self.send_error(404, "Nowhere"))()

    def give(self, content=VIDEO, stated=None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) if stated is None else stated))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def give_to_those_with_a_key(self):
        if self.headers["Authorization"] == f"Basic {base64.b64encode(b'us er:pa@ss').decode()}":
            self.give()
        else:
            self.send_error(401, "No key")

    def give_chunks(self, end=b"0\r\n\r\n"):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(10):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(VIDEO), VIDEO))
        self.wfile.write(end)
        self.close_connection = True

    def drip(self):
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        while not self.server.release.wait(0.1):
            self.wfile.write(b".")

    def drip_header(self):
        self.send_response(200)
        self.flush_headers()
        self.drip_parts(b"X-More: 1\r\n")
        self.give()

    def drip_chunk(self):
        """The size of a chunk, with an extension that does not end."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"1;")
        self.drip_parts(b"x")
        self.wfile.write(b"\r\n.\r\n0\r\n\r\n")

    def drip_parts(self, part):
        """Long enough for `at_once` to fail."""
        end = time.monotonic() + HANG_SECONDS + 5
        while time.monotonic() < end and not self.server.release.wait(0.1):
            self.wfile.write(part)

    def redirect(self, to):
        self.send_response(302)
        self.send_header("Location", to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments): ...


@pytest.fixture
def site():
    """The address of a running Site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that leaves is no news
    server.release = threading.Event()
    threading.Thread(target=server.serve_forever, args=[0.05]).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["clip.mp4", "moved.mp4"])
def test_an_address_arrives_as_its_content_and_names_the_prediction(connect, triton, site, name):
    prediction = connect().classify(f"{site}/{name}")
    assert triton.videos == [VIDEO]
    assert prediction.video == f"{site}/{name}"
    (row,) = connect().classify_many(f"{site}/{name}")
    assert (row.id, row.prediction.top.label) == (f"{site}/{name}", "archery")


@pytest.mark.parametrize("path", ["a bé/日.mp4?q= %22", "a%20b%C3%A9/%E6%97%A5.mp4?q= %22#part", "caf\udce9.mp4"])
def test_what_an_address_may_not_hold_is_quoted_and_what_is_quoted_stays(connect, triton, site, path):
    assert connect().classify(f"{site}/{path}").video == f"{site}/{path}".replace("\udce9", r"\xe9")
    assert triton.videos == [VIDEO]


KEY = "us%20er:pa%40ss@"


@pytest.mark.parametrize("name", ["locked.mp4", "to-locked", "clip.mp4", "missing.mp4"])
def test_credentials_are_sent_and_shown_nowhere(connect, triton, site, name):
    address = site.replace("http://", f"HTTP://{KEY}")
    source = [f"{address}/{name}", {"path": f"{address}/{name}"}]
    for row in connect().classify_many(source):
        assert (row.id, row.video) == (f"HTTP://{site[7:]}/{name}",) * 2
        assert bool(row.error) == (name == "missing.mp4")
        assert "ss@" not in f"{row}{row.error}"


def test_credentials_go_to_their_own_host_alone(connect, site):
    address = site.replace("http://", f"http://{KEY}")
    for there in (f"{address}/to-locked-elsewhere", f"{site}/locked.mp4"):
        (row,) = connect().classify_many(there)
        assert "401 No key" in str(row.error)
    (row,) = connect().classify_many(f"{site}/to-locked-with-key")
    assert row.prediction


@pytest.mark.parametrize("address", ["http://us:pa/ss@host.invalid/a.mp4", "https://us:pa%2Fss@host.invalid:x/a.mp4"])
def test_credentials_in_a_broken_address_are_not_shown_either(connect, address):
    (row,) = connect().classify_many(address)
    assert "the port is not a number" in str(row.error)
    assert "pa" not in f"{row.id} {row.video} {row.error}".replace("password", "")


@pytest.mark.parametrize("word", ["12/34", "12?34", "12#34", "12/3@4"])
def test_a_password_that_begins_like_a_port_is_not_shown(connect, word):
    (row,) = connect().classify_many(f"http://user:{word}@host.invalid/a.mp4")
    assert (row.id, row.video) == ("http://...host.invalid/a.mp4",) * 2
    assert "12" not in str(row.error)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("X-Amz-Credential=AK%2F1&X-Amz-Signature=abc", "X-Amz-Credential=...&X-Amz-Signature=..."),
        ("X-Goog-Signature=abc", "X-Goog-Signature=..."),
        ("AWSAccessKeyId=AK&Signature=abc&Expires=1", "AWSAccessKeyId=...&Signature=...&Expires=1"),
        ("sv=2026&sig=abc%2B", "sv=2026&sig=..."),
        ("key=videos/a.mp4&design=b", "key=videos/a.mp4&design=b"),  # rows are told apart by it
    ],
)
def test_signatures_of_presigned_addresses_are_not_shown(query, shown):
    assert Address.parse(f"https://bucket.test/a.mp4?{query}").shown == f"https://bucket.test/a.mp4?{shown}"


def test_signatures_are_sent_and_shown_nowhere(connect, triton, site):
    for name, found in (("signed", True), ("missing", False)):
        (row,) = connect().classify_many(f"{site}/{name}.mp4?X-Amz-Signature=abc")
        assert (row.id, row.video) == (f"{site}/{name}.mp4?X-Amz-Signature=...",) * 2
        assert bool(row.prediction) == found
        assert "abc" not in f"{row}{row.error}"


@pytest.mark.parametrize("place", ["localhost:1", "127.0.0.1:1", "[::1]:1", "[fe80::1]:1", "host.invalid:1", "host"])
def test_an_at_sign_in_a_path_is_shown(place):
    assert Address.parse(f"http://{place}/@user/a.mp4").shown == f"http://{place}/@user/a.mp4"


def test_a_host_outside_ascii_is_looked_up_as_name_servers_write_it(connect):
    request = Address.parse("http://bücher.example:8080/a.mp4").make_request()
    assert (request.host, request.full_url) == ("xn--bcher-kva.example:8080", "http://xn--bcher-kva.example:8080/a.mp4")
    with pytest.raises(VideoNotReadable, match="label"):
        connect().classify(f"http://{'ü' * 100}.example/a.mp4")


def test_an_answer_in_chunks_arrives_whole(connect, triton, site):
    connect().classify(f"{site}/chunked.mp4")
    assert triton.videos == [VIDEO * 10]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.mp4", "the answer was 404 Nowhere"),
        ("torn.mp4", "ended after 5,000 of 5,001 bytes"),
        ("no-length.mp4", r"Content-Length of 'abc', not a number of bytes"),
        ("less-than-nothing.mp4", r"Content-Length of '-5', not a number of bytes"),
        ("broken-chunks.mp4", r"a chunk is broken or cut off after 50,000 bytes"),
        ("cut-off-chunks.mp4", r"a chunk is broken or cut off after 50,00[03] bytes"),
        ("no-http.mp4", "the answer is not HTTP"),
        ("to-file", "redirects to an address that begins with file:, not with http: or https:"),
        ("to-ftp", "begins with ftp:"),
        ("to-data", "begins with data:"),
        ("to-ftp-with-key", "begins with ftp:"),
        ("to-file-with-key", "begins with file:"),
        ("to-nowhere-with-key", "."),
        ("in-circles", "infinite loop"),
    ],
)
def test_what_cannot_be_fetched_is_not_readable_and_nothing_is_sent(connect, triton, site, name, said):
    with pytest.raises(VideoNotReadable, match=said) as caught:
        connect().classify(f"{site}/{name}")
    assert caught.value.video == f"{site}/{name}"
    assert "p4ss" not in str(caught.value)
    assert not triton.metadata


@pytest.mark.parametrize("address", ["http://", "http://127.0.0.1:1/a.mp4", "http://[::1/a.mp4", "http://a b/c.mp4"])
def test_an_address_that_leads_nowhere_is_not_readable(connect, address):
    with pytest.raises(VideoNotReadable):
        connect().classify(address)


@pytest.mark.parametrize("name", ["clip.mp4", "chunked.mp4"])
def test_a_download_ends_at_its_size_limit(connect, triton, site, name):
    limits = DownloadLimits(max_bytes=4999)
    with pytest.raises(VideoTooLarge, match=r"more than the 4,999 bytes.*max_bytes=\.\.\.\) in Python"):
        connect(download_limits=limits).classify(f"{site}/{name}")
    assert not triton.metadata


@pytest.mark.parametrize("name", ["endless.mp4", "silent.mp4", "slow-header.mp4", "slow-chunk.mp4"])
def test_a_download_ends_at_its_time_limit_however_slowly_bytes_come(connect, site, name):
    with at_once(), pytest.raises(VideoNotReadable, match=r"longer than 0\.5 s; .* in Python, or download the file"):
        connect(download_limits=DownloadLimits(seconds=0.5)).classify(f"{site}/{name}")


def test_limits_are_positive():
    for limits in ({"max_bytes": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"seconds": 2**63}):
        with pytest.raises(InvalidRequest, match="max_bytes must be from 1"):
            DownloadLimits(**limits)


def test_closing_a_run_ends_its_downloads(triton, site):
    with VideoClassifier("x3d_m", triton.url) as classifier:
        stream = classifier.classify_many([f"{site}/silent.mp4", f"{site}/endless.mp4"])
        timer = threading.Timer(0.3, stream.close)
        timer.start()
        with at_once(), pytest.raises(RequestCancelled):
            next(stream)
        timer.join()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("clipserve")]


def test_addresses_among_many_fail_alone(connect, site):
    table = connect().classify_many([f"{site}/clip.mp4", f"{site}/missing.mp4", f"{site}/empty.mp4"]).table()
    assert [row.error and row.error.code for row in table] == [None, "video-not-readable", "empty"]
