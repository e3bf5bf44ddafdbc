"""A headless Chromium over its DevTools pipe: one page, real clicks and keys, and all that it reports."""

import json
import os
import select
import shutil
import subprocess
import tempfile

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
)
# What the browser reads from and writes to, by the numbers that it expects.
COMMANDS, ANSWERS = 3, 4
# A machine under load may be slow; only a browser that hangs takes as long.
MOST_SECONDS = 60
KEYS = {"Tab": 9, "Enter": 13, "Space": 32, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}
TEXTS = {"Enter": "\r", "Space": " "}
NAMED_OTHERWISE = {"Space": " "}


def chromium():
    """Where it is installed, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    def __init__(self, binary):
        self._folder = tempfile.mkdtemp(prefix="chromium-")
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        # Numbers of their own first: what is to become 3 may be in the way of what is to become 4.
        ends = [os.dup(commands), os.dup(answers)]
        self._process = subprocess.Popen(
            [binary, *FLAGS, f"--user-data-dir={self._folder}"],
            preexec_fn=lambda: (os.dup2(ends[0], COMMANDS), os.dup2(ends[1], ANSWERS)),
            pass_fds=(COMMANDS, ANSWERS),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (commands, answers, *ends):
            os.close(end)
        self._read, self._number, self._session = b"", 0, None
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        """Ends it."""
        os.close(self._to)
        self._process.terminate()
        self._process.wait(timeout=MOST_SECONDS)
        os.close(self._from)
        shutil.rmtree(self._folder, ignore_errors=True)

    def call(self, method, **params):
        """What the browser answers; what it reports meanwhile goes to `events`."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self):
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], MOST_SECONDS)
            assert ready, "the browser says nothing"
            data = os.read(self._from, 1 << 20)
            assert data, "the browser is gone"
            self._read += data
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def open(self, path, width=1400, scheme="light"):
        """Shows a file, and returns when its script says that all is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        ready = "document.documentElement.dataset.ready"
        self.js(f"new Promise(done => {{ const ask = () => {ready} ? done() : setTimeout(ask, 5); ask() }})")

    def js(self, expression):
        """Its value, awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector):
        """What a reader sees of the first element."""
        return self.js(f"document.querySelector({json.dumps(selector)}).innerText")

    def texts(self, selector):
        """The same of all elements."""
        return self.js(f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.innerText)")

    def click(self, selector):
        """A press of the pointer on the middle of the first element."""
        place = self.js(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.scrollIntoView("
            "{block: 'center'}); const box = one.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        self.press(*place)
        self.release(*place)

    def press(self, x, y):
        self._mouse("mousePressed", x, y)

    def move(self, x, y):
        self._mouse("mouseMoved", x, y)

    def release(self, x, y):
        self._mouse("mouseReleased", x, y)

    def _mouse(self, kind, x, y):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def key(self, *names):
        """Presses these keys, one after another."""
        for name in names:
            text = TEXTS.get(name, "")
            pressed = {
                "key": NAMED_OTHERWISE.get(name, name),
                "code": name,
                "windowsVirtualKeyCode": KEYS[name],
            }
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **pressed)
            self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def write(self, text):
        """As if typed into what has the focus."""
        self.call("Input.insertText", text=text)

    def requests(self):
        """Addresses that were asked for since the page was opened."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def complaints(self):
        """What stands in the console since the page was opened, and what the policy refused."""
        methods = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event["params"] for event in self.events if event.get("method") in methods]
