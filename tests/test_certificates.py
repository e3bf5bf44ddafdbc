"""Certificates that the environment names, and servers whose authority is not known: over real TLS."""

import asyncio
import json
import shutil
import ssl
import subprocess

import pytest
from fleet import write_project
from raw_server import ANSWER, http

from claude_force import errors
from claude_force.async_orchestrator import AsyncAgentOrchestrator
from claude_force.cli.main import main

OPENSSL = shutil.which("openssl")
pytestmark = [
    pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates"),
    # Before Python 3.11 asyncio warns of each TLS connection that the server closes first.
    pytest.mark.filterwarnings(
        "ignore:.*_SSLProtocolTransport.__del__:pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A folder with `ca.pem` of a private authority, and `server.pem` and `server.key` that it signed."""
    folder = tmp_path_factory.mktemp("authority")

    def openssl(*arguments):
        subprocess.run([OPENSSL, *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes")
    # Since 3.13 Python wants what the standard does: an authority says what its key is for.
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    subject = ("-x509", "-days", "2", "-subj", "/CN=Private")
    openssl(*new, *subject, *usage, "-keyout", "ca.key", "-out", "ca.pem")
    openssl(*new, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    identifiers = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    (folder / "names").write_text(f"subjectAltName=IP:127.0.0.1,DNS:localhost\n{identifiers}")
    signed_by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "server.csr", *signed_by, "-out", "server.pem")
    return folder


class Server:
    """Answers over TLS; `url` is its address."""

    def __init__(self, authority):
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(authority / "server.pem", authority / "server.key")

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.context)
        self.url = f"https://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def serve(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        writer.write(http(json.dumps(ANSWER).encode()))
        await writer.drain()
        writer.close()


async def ask(project, url, api_key="k"):
    async with AsyncAgentOrchestrator(project, api_key=api_key, base_url=url, max_retries=1) as orchestrator:
        return await orchestrator.execute_agent("python-expert", "x")


async def test_unknown_authority_names_variable(project, authority, route):
    async with Server(authority) as server:
        error = (await ask(project, server.url, **route)).error
    assert type(error) is errors.ConnectionFailedError
    assert "SSL_CERT_FILE" in str(error)
    assert server.url in str(error)


async def test_trusts_named_authority(project, authority, route, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    async with Server(authority) as server:
        assert (await ask(project, server.url, **route)).output == "As it is."


async def test_missing_authority_names_file(project, authority, monkeypatch, tmp_path):
    other = tmp_path / "other.pem"
    make = ("req", "-newkey", "rsa:2048", "-nodes", "-x509", "-subj", "/CN=Other", "-keyout", "/dev/null")
    subprocess.run([OPENSSL, *make, "-out", other], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    async with Server(authority) as server:
        error = (await ask(project, server.url)).error
    assert f"to {other} (SSL_CERT_FILE)" in str(error)


async def test_wrong_name_has_own_advice(project, authority, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    async with Server(authority) as server:
        error = (await ask(project, server.url.replace("127.0.0.1", "127.0.0.2"))).error
    assert type(error) is errors.ConnectionFailedError
    assert "SSL_CERT_FILE" not in str(error)


async def test_server_without_tls(project, messages_server):
    error = (await ask(project, messages_server.base_url.replace("http:", "https:"))).error
    assert type(error) is errors.ConnectionFailedError
    assert error.fatal_for == "run"


def unusable(folder):
    """Values of SSL_CERT_FILE, and what is wrong with them."""
    (folder / "empty.pem").write_text("")
    (folder / "text.pem").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    return {
        str(folder / "nowhere.pem"): "No such file",
        str(folder): "not a file",
        str(folder / "empty.pem"): "no certificate",
        str(folder / "text.pem"): "no certificate",
        "/dev/zero": "not a file",
    }


@pytest.mark.parametrize("number", range(5))
async def test_names_unusable_file(project, tmp_path, monkeypatch, number):
    value, reason = list(unusable(tmp_path).items())[number]
    monkeypatch.setenv("SSL_CERT_FILE", value)
    with pytest.raises(errors.ConfigurationError) as raised:
        await ask(project, "http://127.0.0.1:1")
    assert f"SSL_CERT_FILE names {value}" in str(raised.value)
    assert reason in str(raised.value)


async def test_names_missing_folder(project, monkeypatch):
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
    with pytest.raises(errors.ConfigurationError, match="SSL_CERT_DIR names /nowhere"):
        await ask(project, "http://127.0.0.1:1")


async def test_file_wins_over_folder(project, authority, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
    async with Server(authority) as server:
        assert (await ask(project, server.url)).success


async def test_ignores_unused_variables(project, messages_server, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    assert (await ask(project, messages_server.base_url)).success


async def test_a_bulk_run_ends_with_it(project, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    async with AsyncAgentOrchestrator(project, api_key="k", base_url="http://127.0.0.1:1") as orchestrator:
        results = await orchestrator.execute_multiple([("python-expert", f"{n}") for n in range(500)])
    assert {type(one.error) for one in results} == {errors.ConfigurationError}


def test_the_command_names_it_once(workplace, monkeypatch, capsys):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    (workplace / "t.jsonl").write_text('{"agent": "python-expert", "task": "x"}\n' * 50, encoding="utf-8")
    assert main(["run", "many", "t.jsonl", "-o", "out.jsonl"]) == 1
    said = capsys.readouterr().err
    assert said.count("/nowhere.pem") == 1
    assert (workplace / "out.jsonl").read_text(encoding="utf-8") == ""
    assert main(["run", "agent", "python-expert", "--task", "x"]) == 2
    assert "SSL_CERT_FILE names /nowhere.pem" in capsys.readouterr().err


def test_doctor_names_it(workplace, monkeypatch, capsys):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    assert main(["doctor"]) == 1
    said = capsys.readouterr()
    assert "SSL_CERT_FILE names /nowhere.pem" in said.out
    assert "problem  credentials" in said.out
