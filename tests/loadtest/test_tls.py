"""perf_analyzer and the client speak mutual TLS, with a server started by the container's own command line."""

import csv

import pytest

from tests.deploy.conftest import certificates, start_server  # noqa: F401
from tests.loadtest.program import QUICK, run


@pytest.mark.long
def test_a_server_that_asks_for_certificates_is_measured(
    analyzer,
    start_server,  # noqa: F811
    certificates,  # noqa: F811
    videos,
    tmp_path,
):
    server = start_server(tls="mutual", secrets=certificates.server)
    key_file = tmp_path / "admin_key"
    key_file.write_text(server.admin_key)
    alice = certificates.client()
    result = run(
        *("--url", server.grpc_url, "--key-file", key_file, "--videos", videos, "--out", tmp_path / "out"),
        *("--root-certificates", alice.root_certificates, "--client-key", alice.private_key),
        *("--client-certificate", alice.certificate_chain),
        *("--through", "ensemble", "--search-steps", "0"),
        *QUICK,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (table,) = (tmp_path / "out").glob("*/load.csv")
    assert [row["failure"] for row in csv.DictReader(table.open())] == ["", ""]
