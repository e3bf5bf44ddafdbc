"""Stand-ins on loopback for Amazon Bedrock, Google Vertex AI and Google's server of tokens.

They speak as the services' references say ("InvokeModelWithResponseStream", "rawPredict"), and check
signatures and tokens.
"""

import base64
import binascii
import json
import re
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote

from claude_force.testing.replies import Message

REGION = "us-west-2"
AWS_KEY, AWS_SECRET, AWS_TOKEN = "AKIAEXAMPLE", "secret-key-of-the-test", "session-token-of-the-test"
TEXT = "An answer in a few pieces, long enough for two or three of them at the least, I hope."
BLOCKS = [{"type": "text", "text": TEXT}]
USAGE = {"input_tokens": 20, "output_tokens": 10}
_BEDROCK = re.compile(r"(?:/v1)?/model/(?P<model>[^/]+)/(?P<way>invoke|invoke-with-response-stream)")
_VERTEX = re.compile(
    r"/v1/projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/publishers/anthropic/models/"
    r"(?P<model>[^/:]+):(?P<way>rawPredict|streamRawPredict)"
)


class Seen(NamedTuple):
    """A request for an answer."""

    path: str
    model: str
    headers: dict
    body: dict


class Answer(NamedTuple):
    """What is answered in place of a message."""

    status: int
    body: bytes
    headers: dict


def aws_error(status, kind, message):
    return Answer(
        status, json.dumps({"message": message}).encode(), {"x-amzn-errortype": f"{kind}:http://aws/"}
    )


def google_error(status, kind, message):
    error = {"code": status, "message": message, "status": kind}
    return Answer(status, json.dumps([{"error": error}]).encode(), {})


SILENCE = Answer(0, b"", {})


class CloudServer:
    """Both services on one port; `plan` has what is answered first, None for a message.

    Attributes:
        seen: the requests in their order.
        tokens: those that Google's part has given.
        refuses_tokens: it gives none.
    """

    def __init__(self, *plan, refuses_tokens=False):
        self.plan, self.seen, self.tokens = list(plan), [], []
        self.refuses_tokens, self.closed = refuses_tokens, threading.Event()
        handler = type("Handler", (_Handler,), {"cloud": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.closed.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/token" and self.cloud.refuses_tokens:
            return self.send(Answer(400, b'{"error": "invalid_grant", "error_description": "Gone"}', {}))
        if self.path == "/token":
            self.cloud.tokens.append(f"ya29.token-{len(self.cloud.tokens)}-of-the-test")
            fields = {"access_token": self.cloud.tokens[-1], "expires_in": 3600, "token_type": "Bearer"}
            return self.send(Answer(200, json.dumps(fields).encode(), {}))
        found = _BEDROCK.fullmatch(self.path) or _VERTEX.fullmatch(self.path)
        if found is None:
            return self.send(Answer(404, b'{"message": "no such path"}', {}))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.path, unquote(found["model"]), headers, json.loads(raw))
        self.cloud.seen.append(seen)
        refused = self.refused(seen, raw, found)
        if refused is not None:
            return self.send(refused)
        planned = self.cloud.plan.pop(0) if self.cloud.plan else None
        return self.send(planned or _message(seen, found["way"]))

    def refused(self, seen, raw, found):
        given = seen.headers.get("authorization", "")
        if found.re is _BEDROCK:
            if given != "Bearer key-of-bedrock" and given != _signed(self.path, seen.headers, raw):
                return aws_error(403, "InvalidSignatureException", "The signature does not match")
        elif given.partition(" ")[2] not in self.cloud.tokens:
            return google_error(401, "UNAUTHENTICATED", "The token is not known")
        if ("model" in seen.body) != (seen.model == "count-tokens") or "anthropic_version" not in seen.body:
            return aws_error(400, "ValidationException", "The body is not one for this service")
        return None

    def send(self, answer):
        if answer is SILENCE:
            self.close_connection = self.cloud.closed.wait()
            return
        self.send_response(answer.status)
        for name, value in {"content-type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)


def _message(seen, way):
    if seen.model == "count-tokens":
        return Answer(200, b'{"input_tokens": 7}', {})
    message = Message("msg_1", "claude-sonnet-4-5-20250929", BLOCKS, "end_turn", USAGE)
    if way == "streamRawPredict":
        assert seen.body["stream"] is True
        return Answer(200, b"".join(message.events(4)), {"content-type": "text/event-stream"})
    if way == "invoke-with-response-stream":
        return streamed(*map(frame, message.events(4)))
    return Answer(200, message.body(), {"x-amzn-requestid": "aws-request-1"})


def streamed(*frames):
    kind = "application/vnd.amazon.eventstream"
    return Answer(200, b"".join(frames), {"content-type": kind, "x-amzn-requestid": "aws-request-1"})


def first_frames(count):
    """The begin of an answer."""
    events = Message("msg_1", "claude-sonnet-4-5-20250929", BLOCKS, "end_turn", USAGE).events(4)
    return [frame(event) for event in events[:count]]


def frame(event):
    """A server-sent event in the form of an AWS event stream."""
    data = base64.b64encode(event.partition(b"data: ")[2].strip()).decode()
    headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    return _framed(headers, json.dumps({"bytes": data, "p": "abcdef"}).encode())


def exception_frame(kind, message):
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return _framed(headers, json.dumps({"message": message}).encode())


def _framed(headers, payload):
    pairs = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(pairs) + len(payload), len(pairs))
    begin = prelude + struct.pack(">I", binascii.crc32(prelude)) + pairs + payload
    return begin + struct.pack(">I", binascii.crc32(begin))


def _signed(path, headers, raw):
    """What AWS makes of the request with the secret that it shares with the client."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    names = re.search("SignedHeaders=([^,]+)", headers.get("authorization", ""))
    if names is None:
        return None
    signed = {name: headers[name] for name in names[1].split(";")}
    request = AWSRequest("POST", f"http://{headers['host']}{path}", signed, raw)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials(AWS_KEY, AWS_SECRET, AWS_TOKEN), "bedrock", REGION)
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return (
        f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={names[1]}, Signature={signature}"
    )
