"""Servers of the Messages API that others wrote, each as a process of its own on loopback."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, Dict, List

# What a server reads of the environment besides its own variables: nothing that points anywhere.
_INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR")
# Whatever is not on loopback is a dead end.
_DEAD_END = "http://127.0.0.1:9"
_NOWHERE_ELSE = {"HTTP_PROXY": _DEAD_END, "HTTPS_PROXY": _DEAD_END, "NO_PROXY": "127.0.0.1"}
_SECONDS_TO_START = 300
_SECONDS_TO_STOP = 20


class Server:
    """`with` starts it, waits until `ready` answers, and ends it by its id. `log` is what it wrote."""

    ready = "/health"

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log.txt"
        self.port = _free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._folder = folder

    def command(self) -> List[str]:
        raise NotImplementedError

    def variables(self) -> Dict[str, str]:
        """Those of its environment that are its own."""
        return {}

    def get(self, path: str) -> bytes:
        with _direct.open(self.base_url + path, timeout=60) as answer:
            return bytes(answer.read())

    def post(self, path: str, fields: Dict[str, Any], **headers: str) -> Dict[str, Any]:
        """What it answers without the package in between."""
        body = json.dumps(fields).encode()
        request = urllib.request.Request(self.base_url + path, body, {"content-type": "application/json"})
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        with _direct.open(request, timeout=120) as answer:
            found: Dict[str, Any] = json.loads(answer.read())
            return found

    def __enter__(self) -> "Server":
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment.update({"HOME": str(self._folder), **_NOWHERE_ELSE, **self.variables()})
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        try:
            self._await_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _await_ready(self) -> None:
        end = time.monotonic() + _SECONDS_TO_START
        while True:
            try:
                self.get(self.ready)
                return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    last = "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-30:])
                    raise RuntimeError(f"{self.command()[0]} did not start: {error}\n{last}") from error
            time.sleep(0.2)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class LlamaServer(Server):
    """llama.cpp's server: four slots of 4,096 tokens each, and always the likeliest word.

    One thread: several wait for each other in busy loops, which takes twenty times as long where others share
    the cores.
    """

    model = "gemma3-270m"
    slots = 4
    context = 4096

    def __init__(self, folder: Path, binary: Path, weights: Path) -> None:
        super().__init__(folder)
        self._binary, self._weights = binary, weights

    def command(self) -> List[str]:
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--metrics", "--no-ui"]
        size = ["-np", str(self.slots), "-c", str(self.slots * self.context), "-t", "1", "--temp", "0"]
        template = ["--no-jinja", "--chat-template", "gemma"]
        named = ["-m", str(self._weights), "--alias", self.model]
        return [str(self._binary), *named, *place, *size, *template]

    def variables(self) -> Dict[str, str]:
        # With it, /slots tells the prompts too.
        return {"LLAMA_SERVER_SLOTS_DEBUG": "1"}

    def at_work(self) -> List[Dict[str, Any]]:
        """The slots that have something to do."""
        return [slot for slot in self.all_slots() if slot["is_processing"]]

    def all_slots(self) -> List[Dict[str, Any]]:
        found: List[Dict[str, Any]] = json.loads(self.get("/slots"))
        return found

    def figures(self) -> Dict[str, float]:
        """Its counters and gauges since it was started, such as `tokens_predicted_total`."""
        lines = self.get("/metrics").decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("llamacpp:"))
        return {name[len("llamacpp:") :]: float(value) for name, value in pairs}

    def until(self, busy: int, seconds: float = 120, tokens: int = 0, pause: float = 0.05) -> int:
        """Waits until exactly so many slots are at work, each with so many tokens written; returns how many
        a slot had at most meanwhile."""
        end, most = time.monotonic() + seconds, 0
        while True:
            working = self.at_work()
            counts = [_written(slot) for slot in working]
            most = max([most, *counts])
            if len(working) == busy and all(count >= tokens for count in counts):
                return most
            assert time.monotonic() < end, f"{len(working)} slots are at work, not {busy}"
            time.sleep(pause)


class LiteLLMProxy(Server):
    """LiteLLM's proxy: some models whose answers it makes itself, and two that are the one `behind` it."""

    ready = "/health/liveliness"
    answer = "A list holds values in order."
    key = "sk-of-this-test-alone"

    def __init__(self, folder: Path, program: Path, behind: LlamaServer) -> None:
        super().__init__(folder)
        self._program, self._behind = program, behind

    def command(self) -> List[str]:
        config = self._folder / "config.json"
        config.write_text(json.dumps({"model_list": self._models(), "router_settings": {"num_retries": 0}}))
        place = ["--host", "127.0.0.1", "--port", str(self.port)]
        return [str(self._program), "--config", str(config), "--telemetry", "False", *place]

    def variables(self) -> Dict[str, str]:
        # The list of prices that it brings, in the place of the one that it would fetch.
        return {
            "LITELLM_MASTER_KEY": self.key,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "PYTHONUNBUFFERED": "1",
        }

    def requests(self) -> int:
        """How many were made of it, by its own log."""
        return self.log.read_text("utf-8", "replace").count('"POST /v1/messages HTTP')

    def _models(self) -> List[Dict[str, Any]]:
        answers = {
            "mocked": self.answer,
            "limited": "litellm.RateLimitError",
            "broken": "litellm.InternalServerError",
            "too-long": "litellm.ContextWindowExceededError",
        }
        mocked = [
            _model(name, f"anthropic/{name}", mock_response=text, api_base=_DEAD_END)
            for name, text in answers.items()
        ]
        passed = _model("passed-on", f"anthropic/{LlamaServer.model}", api_base=self._behind.base_url)
        translated = _model(
            "translated", f"openai/{LlamaServer.model}", api_base=f"{self._behind.base_url}/v1"
        )
        return [*mocked, passed, translated]


def _written(slot: Dict[str, Any]) -> int:
    """How many tokens of its answer a slot has written."""
    steps: List[Dict[str, int]] = slot.get("next_token", [])
    return steps[0]["n_decoded"] if steps else 0


def _model(name: str, model: str, **parameters: str) -> Dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, "api_key": "none", **parameters}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
