"""Every example of the README runs as it is written, in one project, in the order of the page."""

import pytest
from pages import ROOT, Forge, check, examples_of, walk

README = ROOT / "README.md"
EXAMPLES = examples_of(README)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """How each example ended, after walking the page from top to bottom."""
    with Forge() as forge:
        return walk(README, tmp_path_factory.mktemp("readme"), forge)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs_as_it_is_written(walked, number):
    check(walked[number])


def test_the_page_has_an_example_for_each_thing_that_people_do():
    languages = [example.language for example in EXAMPLES]
    assert languages.count("python") >= 3
    assert languages.count("sh") >= 3
