"""Keys, tokens and secret headers that a server repeats are not written anywhere."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from claude_force import AgentOrchestrator
from claude_force.cli.main import main

KEY = "my-house-key-1234567890"
TOKEN = "tok.en-0987654321-abcdef"
HEADER = "hush-gateway-value-42"
COOKIE = "c00kie-of-the-session"
SECRETS = (KEY, TOKEN, HEADER, COOKIE)
# Whatever a server may repeat it in.
ALL = " ".join(SECRETS)
NAMES = (
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
    "anthropic-organization-id",
    "x-amzn-errortype",
)
ERROR = {
    "type": "error",
    "error": {"type": ALL, "message": f"wrong: {ALL}", "details": {"error_code": ALL}, "code": ALL},
    "request_id": ALL,
}
USAGE = {"input_tokens": 5, "output_tokens": 3, "service_tier": ALL}
MESSAGE = {
    "id": ALL,
    "type": "message",
    "role": "assistant",
    "model": ALL,
    "content": [{"type": "text", "text": "fine"}],
    "stop_reason": ALL,
    "stop_sequence": ALL,
    "usage": USAGE,
}


def events(*found):
    return "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in found)


STREAM = events(
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "fine"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": ALL}, "usage": USAGE},
    {"type": "message_stop"},
)
BROKEN = events({"type": "message_start", "message": {**MESSAGE, "content": []}}, ERROR)
CUT = f"{'x' * 480}{KEY}"
# Status, media type and body of an answer.
ANSWERS = {
    "error 400": (400, "application/json", json.dumps(ERROR)),
    "error 401": (401, "application/json", json.dumps(ERROR)),
    "error 429": (429, "application/json", json.dumps(ERROR)),
    "error 529": (529, "application/json", json.dumps(ERROR)),
    "error 302": (302, "text/plain", ALL),
    "text": (400, "text/plain", ALL),
    "page": (502, "text/html", f"<html><title>{ALL}</title></html>"),
    "cut off": (400, "application/json", json.dumps({"error": {"type": "e", "message": CUT}})),
    "error in a 200": (200, "application/json", json.dumps(ERROR)),
    "error in a stream": (200, "text/event-stream", BROKEN),
    "answer": (200, "application/json", json.dumps(MESSAGE)),
    "stream": (200, "text/event-stream", STREAM),
    "no answer": (200, ALL, ALL),
    "no message": (200, "application/json", json.dumps({"type": ALL, "content": ALL})),
    "no event": (200, "text/event-stream", f"event: {ALL}\ndata: {ALL}\n\n"),
}


@pytest.fixture(params=sorted(ANSWERS))
def parrot(request, workplace, monkeypatch):
    """A server that repeats the secrets wherever it can, and a caller who has them."""
    status, media, body = ANSWERS[request.param]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status, ALL)
            self.send_header("content-type", media)
            self.send_header("content-length", str(len(body.encode())))
            for name in NAMES:
                self.send_header(name, ALL)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", f"X-Gateway: {HEADER}\nCookie: a=b; session={COOKIE}")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def expect_none(text, where):
    assert not [secret for secret in SECRETS if secret in text], where
    # Nor the beginning of one that was cut off.
    assert KEY[:8] not in text, where


def test_no_command_shows_it(parrot, workplace, capfd):
    Path("tasks.jsonl").write_text('{"agent": "python-expert", "task": "x"}\n', encoding="utf-8")
    for words in (
        ["run", "agent", "python-expert", "--task", "x", "-v", "--max-retries", "2"],
        ["run", "agent", "python-expert", "--task", "x", "--json", "--no-stream", "--max-retries", "1"],
        ["run", "many", "tasks.jsonl", "-o", "out.jsonl", "--max-retries", "1"],
        ["metrics", "errors"],
        ["metrics", "export"],
        ["report", "-o", "page.html"],
        ["doctor", "--send"],
    ):
        main(words)
        said = capfd.readouterr()
        expect_none(said.out + said.err, words)
    files = [path for path in workplace.rglob("*") if path.is_file()]
    assert {"out.jsonl", "executions.jsonl"} <= {path.name for path in files}
    for path in (*files, *(one for one in Path.home().rglob("*") if one.is_file())):
        expect_none(path.read_bytes().decode("utf-8", "replace"), path)


def test_no_result_error_or_log_has_it(parrot, workplace, caplog):
    caplog.set_level(logging.DEBUG, logger="claude_force")
    with AgentOrchestrator(max_retries=2) as orchestrator:
        result = orchestrator.run_agent("python-expert", "x")
    reported = [repr(result), str(result.to_dict()), repr(result.error), str(result.error), caplog.text]
    reported += [str(result.errors), repr(getattr(result.error, "__dict__", {}))]
    cause = result.error
    while cause is not None:
        reported.append(f"{cause!r} {cause}")
        cause = cause.__cause__
    for one in reported:
        expect_none(one, one)


def test_text_stays(workplace, another_server, monkeypatch, capsys):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    another_server(answer=lambda request: f"The key is {KEY}.")
    assert main(["run", "agent", "python-expert", "--task", "x"]) == 0
    assert capsys.readouterr().out == f"The key is {KEY}.\n"


def test_header_with_model_is_no_secret(workplace, another_server, monkeypatch, capsys):
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Route: claude-sonnet-5-5")
    another_server()
    assert main(["run", "agent", "python-expert", "--task", "x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["model"] == "claude-sonnet-5-5"


def test_bounds_names(workplace, parrot_of_length, capsys):
    assert main(["run", "agent", "python-expert", "--task", "x", "--json", "--max-retries", "1"]) == 1
    said = capsys.readouterr()
    assert len(said.out) + len(said.err) < 10_000


@pytest.fixture
def parrot_of_length(monkeypatch):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(418)
            self.send_header("content-type", "a" * 20_000)
            self.send_header("request-id", "r" * 20_000)
            self.end_headers()
            self.wfile.write(json.dumps({"error": {"type": "t" * 9_000, "message": "m" * 9_000}}).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
