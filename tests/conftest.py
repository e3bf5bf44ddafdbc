"""What every test starts from: an empty home, a clean environment, and no way to a paid API."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import extras
import pytest
from fleet import clear_environment, write_profile, write_project
from hypothesis import settings

from claude_force.testing import MessagesServer

pytest_plugins = ["claude_force.testing.plugin"]

# A slow machine is no failure, and CI has to give the same verdict twice.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

ROOT = Path(__file__).parent.parent
MOST_WORKERS = 8
# Of a test in its long form; `timeout` in pyproject.toml is for the others.
SOAK_SECONDS = 3600


def pytest_configure(config: pytest.Config) -> None:
    extras.demanded = config.getoption("--extras")
    # A shell starts what it runs in the background with Ctrl-C ignored, and the commands that are tested
    # would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.version_info < (3, 10):
        # The last pytest-asyncio for these Pythons leaves a loop open after a test that calls asyncio.run;
        # that nothing of the package's own is left open is checked on the newer ones.
        config.getini("filterwarnings").clear()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> Optional[int]:
    """One more than there are processors: at any time some of the tests wait for a process or a server."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return min(MOST_WORKERS, (os.cpu_count() or 1) + 1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="the long form of tests that sample by default")
    parser.addoption("--extras", action="store_true", help="an extra that is not installed is a failure")
    parser.addoption("--seed", type=int, help="the storm of this seed alone (tests/test_chaos.py)")


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Gives the long forms of `--soak` the time that they take."""
    for item in items if config.getoption("--soak") else ():
        if "soak" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(SOAK_SECONDS))


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for all of what a test otherwise samples."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture(autouse=True)
def no_handler_that_dbos_left() -> Iterator[None]:
    """It writes into the capture of the test that began it, which is closed by the next one."""
    yield
    logging.getLogger("dbos").handlers.clear()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test's home folder. Nothing of the user's own set-up reaches a test."""
    home = tmp_path_factory.mktemp("home")
    clear_environment(monkeypatch, home)
    return home


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A real server, for the whole session; skipped where there is no way to run one."""
    from postgres import NoPostgresError, Postgres

    try:
        server = Postgres().create()
    except NoPostgresError as error:
        pytest.skip(f"no Postgres: {error}")
    yield server
    server.remove()


@pytest.fixture(scope="session")
def tables_alone(postgres: Any) -> str:
    """The name of a database that has the tables of durable runs and nothing in them. To make them takes a
    second or two, to copy them a tenth."""
    from durable import database

    url: str = postgres.new_database()
    with database(url) as opened:
        opened.prepare()
    return url.rpartition("/")[2]


@pytest.fixture
def pg_url(postgres: Any, tables_alone: str) -> Iterator[str]:
    """The URL of a database of the test's own, as the first run would leave it."""
    url = postgres.new_database(like=tables_alone)
    yield url
    postgres.drop(url)


@pytest.fixture
def empty_pg_url(postgres: Any) -> Iterator[str]:
    """The URL of a database of the test's own, as an administrator makes it."""
    url = postgres.new_database()
    yield url
    postgres.drop(url)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that judge what a process imports or how long it takes: no share of coverage's in that."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's claude.json."""
    return write_project(tmp_path)


@pytest.fixture(params=["http", "sdk"])
def route(request: pytest.FixtureRequest, clean_environment: Path) -> Dict[str, Optional[str]]:
    """What makes an orchestrator send over aiohttp alone, a key, and through the SDK, a profile."""
    if request.param == "http":
        return {"api_key": "test-key"}
    pytest.importorskip("anthropic.lib.credentials", reason="this SDK has no profiles")
    write_profile(clean_environment, "default", "http://127.0.0.1:1")
    return {"api_key": None}


@pytest.fixture
def workplace(tmp_path: Path, messages_server: MessagesServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project as the working directory, and a server that the command finds by the environment."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.fixture
def another_server(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., MessagesServer]]:
    """Starts a server of other ways, such as `faults=`, in the place of the ordinary one."""
    servers = []

    def start(**ways: Any) -> MessagesServer:
        servers.append(MessagesServer(**ways).start())
        monkeypatch.setenv("ANTHROPIC_BASE_URL", servers[-1].base_url)
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
