"""Which folders a sandbox shows for the programs on PATH."""

import os
from pathlib import Path
from typing import Tuple

import pytest

from claude_force.tools.toolchains import Toolchains, add_pythons, find_toolchains


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


def python_of(venv: Path, home: Path) -> Tuple[str, ...]:
    return add_pythons(Toolchains((), ()), [venv], home).folders


def make(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).mkdir(parents=True)
    return str(folder / names[0])


def test_system_folders_are_not_added(home: Path) -> None:
    found = find_toolchains(
        (
            "/usr/bin",
            "/bin",
        ),
        home,
    )
    assert found.path == ("/usr/bin", "/bin")
    assert found.folders == ()


def test_manager_is_shown_whole(home: Path) -> None:
    shims = make(home / ".pyenv", "shims", "versions")
    assert find_toolchains(
        (
            shims,
            "/usr/bin",
        ),
        home,
    ) == ((shims, "/usr/bin"), (str(home / ".pyenv"),))


def test_cargo_shows_no_credentials(home: Path) -> None:
    programs = make(home / ".cargo", "bin", "registry", "lib")
    make(home / ".rustup", "toolchains")
    assert find_toolchains((programs,), home).folders == (programs, str(home / ".rustup"))


def test_installation_is_shown_with_its_libraries(home: Path) -> None:
    programs = make(home / "node-20", "bin", "lib")
    assert find_toolchains((programs,), home).folders == (str(home / "node-20"),)


@pytest.mark.parametrize("name", [".local", "", "dotfiles"])
def test_shared_folder_shows_only_its_programs(home: Path, name: str) -> None:
    programs = make(home / name, "bin", "lib", "share")
    if name == "dotfiles":
        make(home / name, ".git")
    assert find_toolchains((programs,), home).folders == (programs,)


def test_venv_comes_with_its_python(home: Path) -> None:
    base = make(home / "python", "bin", "lib")
    programs = make(home / "venv", "bin", "lib")
    (home / "venv" / "pyvenv.cfg").write_text(f"home = {base}\nversion = 3.12\n")
    assert find_toolchains((programs,), home).folders == (str(home / "python"), str(home / "venv"))


def test_project_trusts_no_venv_of_its_own(home: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    make(home, ".ssh")
    programs = make(project / ".venv", "bin", "lib")
    (project / ".venv" / "pyvenv.cfg").write_text(f"home = {home / '.ssh'}\n")
    assert find_toolchains((programs,), home, (project,)) == ((programs,), ())


def test_python_of_an_untrusted_venv_is_shown_if_it_is_one(home: Path, tmp_path: Path) -> None:
    python = home / ".local" / "share" / "uv" / "python" / "cpython-3.12"
    make(python, "bin", "lib/python3.12")
    (python / "lib" / "python3.12" / "os.py").touch()
    (python / "bin" / "python3").touch(0o755)
    venv = tmp_path / "project" / ".venv"
    venv.mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text(f"home = {python / 'bin'}\n")
    assert python_of(venv, home) == (str(python),)
    for secret in (home, home / ".ssh", home / ".local" / "bin"):
        make(secret, "keys")
        (venv / "pyvenv.cfg").write_text(f"home = {secret}\n")
        assert python_of(venv, home) == ()


def test_fifo_in_the_place_of_a_venv_is_not_waited_for(home: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pyvenv.cfg")
    assert python_of(tmp_path, home) == ()


def test_home_is_never_shown(home: Path, tmp_path: Path) -> None:
    (home / "pyvenv.cfg").write_text(f"home = {home}\n")
    found = find_toolchains(
        (
            str(home),
            str(tmp_path),
            str(home / "bin"),
            "/",
            "bin",
            ".",
        ),
        home,
    )
    assert found == ((), ())


def test_links_lead_to_the_installation(home: Path) -> None:
    programs = make(home / "java-21", "bin", "lib")
    (home / "java").symlink_to(home / "java-21")
    found = find_toolchains((str(home / "java" / "bin"),), home)
    assert found.path == (str(home / "java" / "bin"),)
    assert str(Path(programs).parent) in found.folders


def test_folder_without_access_is_left_out(home: Path) -> None:
    assert find_toolchains((str(home / "nothing"),), home) == ((), ())
