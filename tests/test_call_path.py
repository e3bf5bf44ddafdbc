"""The number of frames between `execute_agent` and the transport is bounded."""

import importlib.util
import re
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "call_path.py"


@pytest.fixture
def script(clean_environment):
    spec = importlib.util.spec_from_file_location("call_path", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(script, tmp_path):
    return script.write_project(tmp_path / "project")


async def test_missed_call_is_short(script, project):
    path = (await script.path_of_call(project)).since("execute_agent")
    assert path.frames[-1].function == "Transport.attempt"
    assert len(path.frames) <= 9, path.frames
    assert len(path.modules) <= 5, path.modules


async def test_bulk_row_is_short(script, project):
    path = (await script.path_of_row(project)).since("run_row")
    assert path.frames[-1].function == "Transport.attempt"
    assert len(path.frames) <= 12, path.frames


async def test_architecture_page_shows_the_path(script, project):
    path = (await script.path_of_call(project)).since("execute_agent")
    page = (SCRIPT.parent.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^ +\d+ (\S+) +(\S+)$", page, re.M) == [tuple(frame) for frame in path.frames]
