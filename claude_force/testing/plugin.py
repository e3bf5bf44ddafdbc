"""pytest plugin: `pytest_plugins = ["claude_force.testing.plugin"]` gives the fixture `messages_server`."""

from __future__ import annotations

from typing import Iterator

import pytest

from .. import settings
from .server import MessagesServer


@pytest.fixture
def messages_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MessagesServer]:
    """A stand-in server that the environment points to; calls to any other server are blocked."""
    with MessagesServer() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        for cloud in settings.clouds():
            monkeypatch.delenv(settings.cloud_switch(cloud))
        monkeypatch.setenv("CLAUDE_FORCE_LOOPBACK_ONLY", "1")
        yield server
