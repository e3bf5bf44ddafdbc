"""What a model is told about where its tools work."""

from claude_force.tools.environment import environment_text


def test_names_folder_repository_and_platform():
    assert environment_text("/p", ("Read",), "linux", True, ("/x",)) == (
        "Your tools work in this environment:\n<env>\nWorking directory: /p\nIs directory a git repo: Yes\n"
        "Additional working directory: /x\nPlatform: linux\n</env>"
    )


def test_says_what_commands_see():
    text = environment_text("/p", ("Bash",), "linux", False)
    assert "Is directory a git repo: No" in text
    assert text.endswith("There is no network.")
    assert environment_text("/p", ("Bash",), "linux", False, has_network=True).endswith("can be reached.")
