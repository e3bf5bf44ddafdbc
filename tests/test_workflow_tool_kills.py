"""A workflow whose agent has side effects is killed at each boundary, and resumed."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fleet import write_project

from claude_force.testing import MessagesServer, Script, tool_calls

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")

NOTES = ("one", "two")
ANSWERS = [
    tool_calls(("Look", {"at": "a"}), ("Note", {"what": "one"}), ("Look", {"at": "b"})),
    tool_calls(("Note", {"what": "two"})),
    "Done.",
]
# A life as the driver prints it.
LIFE = re.compile(r'\{"at": (\d+)\} killed:(\S+) ended:(True|False):(\d+) \{"effects": (\[.*\])\}', re.ASCII)


@pytest.fixture
def project(tmp_path):
    path = write_project(tmp_path)
    config = json.loads(path.read_text(encoding="utf-8"))
    config["workflows"]["do"] = {"steps": [{"id": "do", "agent": "python-expert"}]}
    path.write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


@pytest.fixture
def lives(project):
    """What each life of the driver came to, and the requests that were made for it."""
    with MessagesServer(answer=Script(ANSWERS)) as server:
        driver = Path(__file__).parent / "kill_driver.py"
        command = [sys.executable, str(driver), str(project), server.base_url, str(project / "effects")]
        folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        requests = list(server.requests)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [match.groups() for match in map(LIFE.match, done.stdout.splitlines()) if match]
    assert len(found) == len(done.stdout.splitlines()) - 1  # the last was not killed
    return [
        (where, ended == "True", int(told), json.loads(effects), sent(requests, number))
        for number, where, ended, told, effects in found
    ]


def sent(requests, number):
    """How often each request of a life was made."""
    bodies = [json.dumps(one.body["messages"], sort_keys=True) for one in requests]
    return Counter(body for body in bodies if f'"Do {number}"' in body)


def test_no_answer_is_paid_twice_and_no_effect_repeated(lives):
    assert len(lives) > 15
    for where, is_done, told, effects, requests in lives:
        assert is_done, where
        # An answer that was not written yet is lost with its process.
        again = max(requests.values())
        assert again == 1 or where in ("before-answered", "before-whole"), (where, again)
        assert not [one for one in Counter(effects).values() if one > 1], where
        missing = set(NOTES) - set(effects)
        # A call that is lost was interrupted, and the model was told.
        assert len(missing) <= told <= 1, (where, effects, told)
    told = {where for where, _, count, _, _ in lives if count}
    assert told == {"after-begun", "before-effect", "after-effect", "before-ended"}
