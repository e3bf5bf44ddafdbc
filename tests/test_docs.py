"""Every example of every page in docs/ runs as it is written, each page in a project of its own."""

import re
import subprocess
import sys
from functools import lru_cache

import pytest
from extras import missing
from pages import ROOT, Forge, blocks_of, check, examples_of, walk

import claude_force

DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
# Walked by tests of their own, which have a database.
ELSEWHERE = ("scaling.md",)
WALKED = [page for page in PAGES if page not in ELSEWHERE]
EXAMPLES = [(page, number) for page in WALKED for number in range(len(examples_of(DOCS / page)))]
OF_OTEL = ("observability.md",)
# What a block may be in beside those that run: something to look at.
SHOWN = ("console", "dockerfile", "ini", "jsonc", "sql", "text", "yaml")
# From the sources, by `make docs`.
WRITTEN = ("commands.md", "reference.md")
LONGEST_LINE = 120


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """How each example of a page ended. A page is walked when the first of its tests asks."""
    with Forge() as forge:

        @lru_cache(maxsize=None)
        def ended(page):
            return walk(DOCS / page, tmp_path_factory.mktemp(page[:-3]), forge)

        yield ended


@pytest.mark.parametrize(("page", "number"), EXAMPLES)
def test_an_example_runs_as_it_is_written(walked, page, number):
    if page in OF_OTEL and missing("otel"):
        pytest.skip(missing("otel"))
    check(walked(page)[number])


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_exempt(page):
    run = {block.language for block in examples_of(DOCS / page)}
    assert {block.language for block in blocks_of(DOCS / page)} - run <= set(SHOWN)
    assert (DOCS / page).read_text(encoding="utf-8").count("\n```") == 2 * len(blocks_of(DOCS / page))


@pytest.mark.parametrize("page", [*PAGES, "../README.md", "../CHANGELOG.md"])
def test_links_lead_to_headings(page):
    path = (DOCS / page).resolve()
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), f"{target}#{anchor}"


def anchors_of(page):
    """The anchors that a page's headings get on the usual hosts of code."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, "../README.md", "../CHANGELOG.md"])
def test_a_line_of_text_fits_an_editor(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    if "<!-- Written by" not in text:
        by_hand = text.partition("<!-- written by ")[0]
        words = re.sub(r"^```.*?^```", "", by_hand, flags=re.S | re.M).splitlines()
        assert [line for line in words if len(line) > LONGEST_LINE and not line.startswith("|")] == []


def test_the_index_leads_to_every_page():
    linked = set(re.findall(r"\]\(([\w-]+\.md)", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert linked == set(PAGES) - {"index.md"}


def test_architecture_names_every_room():
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (ROOT / "claude_force").glob("*/__init__.py")}
    assert {room for room in rooms if f"`{room}/`" not in page} == set()
    named = re.findall(r"`(\w+/\w+\.py)`", page)
    assert [
        name for name in named if not any((top / name).is_file() for top in (ROOT, ROOT / "claude_force"))
    ] == []


def test_each_dependency_has_reason():
    needed = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("optional-dependencies]")[2]
    named = re.findall(r"^([\w-]+)", needed, re.M)
    named += re.findall(r'^  "([\w-]+)', extras.partition("\n[")[0], re.M)
    reasons = (DOCS / "dependencies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w, -]+) \|", reasons, re.M)
    assert set(named) - set(", ".join(rows).split(", ")) == {"claude-force"}


def test_guide_covers_every_option():
    rows = re.findall(r"^\| `(-[^`]*)`", (DOCS / "commands.md").read_text(encoding="utf-8"), re.M)
    guides = [DOCS / page for page in PAGES if page not in WRITTEN] + [ROOT / "README.md"]
    reported = set("".join(one.read_text(encoding="utf-8") for one in guides).replace("`", " ").split())
    untold = {row for row in rows if reported.isdisjoint(row.replace(",", "").split())}
    assert untold == {"-h, --help", "--version"}


@pytest.mark.parametrize("name", [name for name in claude_force.__all__ if name != "__version__"])
def test_a_public_name_is_in_the_reference(name):
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert f"### {name}\n" in page or f", also as `{name}`" in page


@pytest.mark.skipif(bool(missing("durable") or missing("otel")), reason="it tells of the extras too")
def test_reference_matches_sources():
    command = [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
