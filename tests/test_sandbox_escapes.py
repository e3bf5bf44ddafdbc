"""Attempts to get out of the sandbox. Most are made without it first, which proves that they work."""

import os
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Dict, Iterator, Tuple

import escapes
import pytest
from escapes import CONNECTS, ORDERS, READS, REFUSED, SECRET, WRITES, World, make_template
from sandboxes import Shell, eventually, program

KINDS: Dict[str, Dict[str, str]] = {
    "read": READS,
    "write": WRITES,
    "order": ORDERS,
    "connect": CONNECTS,
    "refused": REFUSED,
}
ATTEMPTS = [(kind, name) for kind, attempts in KINDS.items() for name in attempts]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program()
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def world(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with World(tmp_path / "world", template) as world:
        for name, value in world.variables().items():
            if name not in ("O", "P", "H"):
                monkeypatch.setenv(name, value)
        yield world


def succeeded(kind: str, world: World, output: str, before: Tuple[object, object]) -> bool:
    """Whether an attempt got out."""
    got_out = {
        "read": SECRET in output,
        "write": world.state() != before[0],
        "order": world.orders() != before[1],
        "connect": bool(world.connections),
        "refused": "escaped" in output,
    }
    return got_out[kind]


async def test_links_that_are_swapped_in_lead_nowhere(world: World) -> None:
    """While commands start, something else swaps what is protected for links that lead out."""
    before = world.state()
    names = [world.project / name for name in (".claude", ".git/hooks", ".mcp.json")]
    end = threading.Event()

    def swap() -> None:
        while not end.is_set():
            for name in names:
                # What was missing when a command began is set aside when it ends.
                with suppress(FileNotFoundError):
                    name.rename(name.with_name("kept"))
                    name.symlink_to(world.home / ".ssh")
                    name.unlink()
                    name.with_name("kept").rename(name)

    thread = threading.Thread(target=swap)
    thread.start()
    shell = Shell(world.project)
    try:
        for _ in range(40):
            text = await shell.text(
                "cat .claude/* .git/hooks/* .mcp.json; touch {.claude,.git/hooks,.mcp.json}/x"
            )
            assert SECRET not in text
    finally:
        end.set()
        thread.join()
        shell.close()
    assert world.state() == before


def test_there_are_a_hundred_attempts() -> None:
    assert len(ATTEMPTS) >= 100


@pytest.mark.parametrize(("kind", "name"), ATTEMPTS)
async def test_no_attempt_gets_out(
    kind: str, name: str, world: World, template: Path, tmp_path: Path
) -> None:
    command = KINDS[kind][name]
    if kind != "refused":
        with World(tmp_path / "control", template) as control:
            before = control.state(), control.orders()
            said = control.run(command)
            if kind == "connect":
                # The thread that accepts connections has its turn a little later.
                assert eventually(lambda: bool(control.connections)), said
            assert succeeded(kind, control, said, before), f"the attempt itself does not work: {said}"
    before = world.state(), world.orders()
    shell = Shell(world.project)
    output = await shell.text(world.given(command), timeout=20_000)
    shell.close()
    if kind == "connect":
        time.sleep(0.1)
    for each in KINDS:
        assert not succeeded(each, world, output, before), (each, output)
    if kind == "refused":
        assert "refused" in output
    assert world.is_alive()
    assert escapes.processes_with("claude-force-x") == []


async def test_a_link_where_a_python_of_the_project_was_leads_nowhere(world: World) -> None:
    """A virtual environment of the project may name a Python in the project, which commands can move."""
    python = world.project / ".venv" / ".ssh"
    (python / "bin").mkdir(parents=True)
    (python / "lib" / "python3.12").mkdir(parents=True)
    (python / "lib" / "python3.12" / "os.py").touch()
    (python / "bin" / "python3").symlink_to("/bin/true")
    (world.project / ".venv" / "pyvenv.cfg").write_text(f"home = {python}/bin\n")
    shell = Shell(world.project)
    try:
        home = os.path.relpath(world.home, world.project)
        await shell.run(f"mv .venv old && ln -s {home} .venv")
        text = await shell.text("cat .venv/.ssh/* $HOME/.ssh/*")
    finally:
        shell.close()
    assert SECRET not in text


async def test_no_command_runs_where_the_project_became_a_link(world: World) -> None:
    """A folder above the project can be moved by commands if it lies in one that they may write to."""
    above = world.project.parent / "above"
    project = above / "in" / ".ssh"
    project.mkdir(parents=True)
    shell = Shell(project, extra_folders=[above])
    try:
        await shell.run(f"cd {above} && mv in old && ln -s {os.path.relpath(world.home, above)} in")
        text = await shell.text("cat * .ssh/*")
    finally:
        shell.close()
    assert SECRET not in text
    assert "replaced by a link" in text


@pytest.mark.parametrize("version", ["2", "4", "split"])
async def test_git_status_obeys_no_repository_that_commands_made(world: World, version: str) -> None:
    """A folder that the index calls a submodule is a repository whose configuration names programs."""
    how = "--split-index" if version == "split" else f"--index-version {version}"
    order = world.project.parent / "ordered"
    shell = Shell(world.project)
    try:
        text = await shell.text(
            "git init -q made/sub && cd made/sub && touch new"
            " && git -c user.name=a -c user.email=b commit -q --allow-empty -m x"
            f" && git config core.fsmonitor 'touch {order}; false' && hash=$(git rev-parse HEAD) && cd ../.."
            f" && git update-index {how} && git update-index --add --cacheinfo 160000,$hash,made/sub"
        )
    finally:
        shell.close()
    assert "made/sub/.git was renamed" in text
    subprocess.run(["git", "-c", "safe.directory=*", "status"], cwd=world.project, check=True)
    assert not order.exists()


async def test_hooks_are_not_replaced_together_with_their_folder(world: World) -> None:
    hooks = world.project / ".husky" / "_"
    hooks.mkdir(parents=True)
    with (world.project / ".git" / "config").open("a", encoding="utf-8") as config:
        config.write("[core]\n\thooksPath = .husky/_\n")
    shell = Shell(world.project)
    try:
        await shell.run("mv .husky old; mkdir -p .husky/_; touch .husky/_/pre-commit")
    finally:
        shell.close()
    assert not (hooks / "pre-commit").exists()
