"""What every test starts from: an empty home, a clean environment, and no way to a paid API."""

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["claude_force.testing.plugin"]

# A slow machine is no failure, and CI has to give the same verdict twice.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what it runs in the background with Ctrl-C ignored, and the commands that are tested
    # would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.version_info < (3, 10):
        # The last pytest-asyncio for these Pythons leaves a loop open after a test that calls asyncio.run;
        # that nothing of the package's own is left open is checked on the newer ones.
        config.getini("filterwarnings").clear()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="the long form of tests that sample by default")


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for all of what a test otherwise samples."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test's home folder. Nothing of the user's own set-up reaches a test."""
    for name in list(os.environ):
        if name.startswith(("ANTHROPIC_", "CLAUDE_")) or name.upper() in PROXIES:
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CLAUDE_FORCE_LOOPBACK_ONLY", "1")
    return home
