"""The README's walk-through works as it is pasted: in a fresh clone, with an empty home, block by block."""

import shutil
import subprocess

import pytest
from extras import require_prices
from pages import ROOT, Forge, Project, blocks_of, check, examples_of

from claude_force.testing import MessagesServer

README = ROOT / "README.md"
EXAMPLES = examples_of(README)


def clone(folder):
    """The files under version control, as a clone has them."""
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=str(ROOT), text=True).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(ROOT / name), str(target))


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """How each block ended, after pasting the page from top to bottom."""
    if not (ROOT / ".git").exists():
        pytest.skip("this folder is not under version control")
    home = tmp_path_factory.mktemp("readme")
    with Forge() as forge, MessagesServer() as server:
        project = Project(home, server, forge, README.name)
        clone(project.folder)
        return [project.run(block) for block in EXAMPLES]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs_as_it_is_written(walked, number):
    if "--budget" in EXAMPLES[number].text:
        require_prices("claude-haiku-5-5")
    check(walked[number])


def test_every_example_runs():
    assert {block.language for block in blocks_of(README)} == {"sh", "console"}


def test_readme_covers_main_tasks():
    text = "\n".join(block.text for block in EXAMPLES)
    for command in (
        "run agent",
        "run many",
        "run workflow",
        "cache explain",
        "metrics",
        "report",
        "doctor",
        "info",
    ):
        assert f"claude-force {command}" in text
    assert text.count("python ") >= 3


def test_each_answer_is_asked_for_once(walked):
    again = next(done for done in walked if "from the cache" in done.block.text)
    assert again.error.count("from the cache (") == 1
