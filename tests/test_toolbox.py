"""The toolbox: which calls are run, what is checked before, and the texts that the model gets."""

import json
import logging
from dataclasses import dataclass, field
from typing import Any, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_force.agent_types import AgentSettings
from claude_force.conversation import ToolResult, ToolUse
from claude_force.tools.grant import parse_grant
from claude_force.tools.input_validation import InvalidInputError, validate_input
from claude_force.tools.offers import offer_tools, offered_names
from claude_force.tools.permission_rules import NO_RULES
from claude_force.tools.permissions import Permissions
from claude_force.tools.protocol import ToolError
from claude_force.tools.toolbox import MOST_CHARACTERS, Toolbox
from claude_force.tools.workspace import Workspace

SCHEMA = {
    "type": "object",
    "properties": {
        "file_path": {"type": "string"},
        "limit": {"type": "number"},
        "all": {"type": "boolean"},
        "mode": {"type": "string", "enum": ["content", "files_with_matches", "count"]},
        "edits": {"type": "array"},
        "page": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["file_path"],
    "additionalProperties": False,
}


def error(text):
    return ToolResult(f"<tool_use_error>{text}</tool_use_error>", True)


def invalid(issues, plural=""):
    return error(f"InputValidationError: Read failed due to the following issue{plural}:\n{issues}")


@dataclass
class FakeTool:
    """Answers with what it is told to answer, or raises it."""

    name: str
    answer: Any = "done"
    description: str = "d"
    input_schema: Mapping[str, Any] = field(default_factory=lambda: SCHEMA)
    calls: list = field(default_factory=list)
    closed: int = 0

    def is_read_only(self, arguments):
        return self.name == "Read"

    async def run(self, arguments):
        self.calls.append(arguments)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if isinstance(self.answer, ToolResult) else ToolResult(self.answer)

    async def close(self):
        self.closed += 1


def use(name="Read", wrong_input="", **arguments):
    return ToolUse("toolu_1", name, arguments, wrong_input)


@pytest.fixture
def toolbox(tmp_path):
    def make(grant="bash", tools=("Read", "Write"), answer="done", fakes=None):
        workspace = Workspace(tmp_path, writable=True)
        parsed = parse_grant(grant)
        offers = offer_tools(AgentSettings(tools=tools), parsed)
        offered = offered_names(offers)
        permissions = Permissions(parsed, NO_RULES, str(workspace.root), "/home/me", offered)
        made = {name: FakeTool(name, answer) for name in offered} if fakes is None else fakes
        return Toolbox(list(made.values()), permissions, offers, workspace)

    return make


class TestDefinitions:
    def test_are_json_of_what_is_offered(self, toolbox):
        one = toolbox(tools=("Write", "Read", "Frobnicate"))
        assert one.definitions == toolbox().definitions
        found = json.loads(one.definitions)
        assert [tool["name"] for tool in found] == ["Read", "Write"]
        assert found[0] == {"name": "Read", "description": "d", "input_schema": SCHEMA}


class TestRun:
    async def test_runs_an_allowed_call(self, toolbox):
        read = FakeTool("Read")
        one = toolbox(fakes={"Read": read})
        assert await one.run(use(file_path="a", limit="5", all="true")) == ToolResult("done")
        assert read.calls == [{"file_path": "a", "limit": 5, "all": True}]

    @pytest.mark.parametrize(
        ("name", "tools", "text"),
        [
            ("Frobnicate", ("Read",), "Frobnicate"),
            ("mcp__s__t", ("Read",), "mcp__s__t"),
            ("read", ("Read",), "read. Tool names are case-sensitive: call Read instead."),
            ("Bash", ("Read",), "Bash. Bash is not among the tools available here. Use only: Read."),
            ("Grep", ("Read",), "Grep. Grep is disabled for this session."),
            (
                "Grep",
                ("Bash",),
                "Grep. Grep is not available in this session — search file contents with `grep` via the Bash "
                "tool instead.",
            ),
        ],
    )
    async def test_answers_for_an_unknown_tool(self, toolbox, name, tools, text):
        one = toolbox(tools=tools)
        assert await one.run(use(name)) == error(f"Error: No such tool available: {text}")
        assert one.is_read_only(use(name))

    async def test_denies_what_the_run_does_not_grant(self, toolbox, tmp_path):
        one = toolbox("read", ("Read", "Write", "Bash"))
        text = f"Claude requested permissions to write to {tmp_path / 'x'}, but you haven't granted it yet."
        assert await one.run(use("Write", file_path="x")) == ToolResult(text, True, True)
        found = await one.run(use("Bash", command="git --version"))
        assert found == ToolResult("This command requires approval", True, True)

    async def test_denies_what_its_rules_do_not_grant(self, toolbox, tmp_path):
        one = toolbox("Read(a)")
        assert (await one.run(use(file_path="a"))).content == "done"
        denied = await one.run(use(file_path="b"))
        assert denied.is_denied and str(tmp_path / "b") in denied.content
        assert one.is_read_only(use(file_path="b"))

    async def test_gives_the_text_of_an_error(self, toolbox):
        one = toolbox(answer=ToolError("File does not exist."))
        assert await one.run(use(file_path="a")) == ToolResult("File does not exist.", True)

    async def test_counts_what_the_workspace_denies(self, toolbox):
        text = "Claude requested permissions to read from /x, but you haven't granted it yet."
        one = toolbox(answer=ToolError(text))
        assert await one.run(use(file_path="a")) == ToolResult(text, True, True)

    async def test_logs_a_bug_and_goes_on(self, toolbox, caplog):
        one = toolbox(answer=ZeroDivisionError("secret detail"))
        with caplog.at_level(logging.ERROR):
            assert await one.run(use(file_path="a")) == error("Error calling tool (Read): ZeroDivisionError")
        assert "the tool Read failed" in caplog.text

    async def test_takes_out_what_can_not_be_sent(self, toolbox):
        one = toolbox(answer="a\ud800b\x00\x1b[31m\u20ac")
        assert (await one.run(use(file_path="a"))).content == "a\ufffdb\x00\x1b[31m\u20ac"
        blocks = ({"type": "text", "text": "\udcff"}, {"type": "image", "source": {}})
        one = toolbox(answer=ToolResult(blocks))
        assert (await one.run(use(file_path="a"))).content == ({"type": "text", "text": "\ufffd"}, blocks[1])

    async def test_bounds_output(self, toolbox):
        text = "h" * MOST_CHARACTERS + "m" + "t" * 400_000
        found = (await toolbox(answer=text).run(use(file_path="a"))).content
        assert len(found) < MOST_CHARACTERS
        assert found.startswith("h" * 600_000 + "\n\n[... 500,001 characters left out ...]\n\nttt")
        assert (
            await toolbox(answer="x" * MOST_CHARACTERS).run(use(file_path="a"))
        ).content == "x" * MOST_CHARACTERS

    async def test_knows_what_is_read_only(self, toolbox):
        one = toolbox()
        assert one.is_read_only(use(file_path="a"))
        assert not one.is_read_only(use("Write", file_path="a"))
        assert one.is_read_only(use("Write"))

    async def test_closes_once(self, toolbox):
        read = FakeTool("Read")
        one = toolbox(fakes={"Read": read})
        await one.close()
        await one.close()
        assert read.closed == 1


class TestValidation:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({}, "The required parameter `file_path` is missing"),
            (
                {"file_path": 5},
                "The parameter `file_path` type is expected as `string` but provided as `number`",
            ),
            (
                {"file_path": None},
                "The parameter `file_path` type is expected as `string` but provided as `null`",
            ),
            ({"file_path": "a", "extra": 1}, "An unexpected parameter `extra` was provided"),
            (
                {"file_path": "a", "all": "yes"},
                "The parameter `all` type is expected as `boolean` but provided as `string`",
            ),
            (
                {"file_path": "a", "limit": True},
                "The parameter `limit` type is expected as `number` but provided as `boolean`",
            ),
            (
                {"file_path": "a", "page": 1.5},
                "The parameter `page` type is expected as `integer` but provided as `number`",
            ),
            (
                {"file_path": "a", "edits": {}},
                "The parameter `edits` type is expected as `array` but provided as `object`",
            ),
        ],
    )
    async def test_one_issue(self, toolbox, given, expected):
        assert await toolbox().run(ToolUse("1", "Read", given)) == invalid(expected)

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (
                {"path": "a"},
                "The required parameter `file_path` is missing\nAn unexpected parameter `path` was provided",
            ),
            ([1], "The required parameter `file_path` is missing\nAn unexpected parameter `0` was provided"),
        ],
    )
    async def test_several_issues(self, toolbox, given, expected):
        assert await toolbox().run(ToolUse("1", "Read", given)) == invalid(expected, "s")

    @pytest.mark.parametrize("given", [None, 5, True, {}])
    async def test_what_is_no_object(self, toolbox, given):
        assert await toolbox().run(ToolUse("1", "Read", given)) == invalid(
            "The required parameter `file_path` is missing"
        )

    async def test_what_is_no_json(self, toolbox):
        found = await toolbox().run(use(wrong_input='{"file_path": "a'))
        assert found.content.startswith(
            "<tool_use_error>InputValidationError: Read was called with input that could not be parsed as "
        )

    async def test_an_option_that_there_is_not(self, toolbox):
        found = await toolbox().run(use(file_path="a", mode="frob"))
        assert found == error(
            'InputValidationError: [\n  {\n    "code": "invalid_value",\n    "values": [\n      "content",\n'
            '      "files_with_matches",\n      "count"\n    ],\n    "path": [\n      "mode"\n    ],\n'
            '    "message": "Invalid option: expected one of '
            '\\"content\\"|\\"files_with_matches\\"|\\"count\\""\n'
            "  }\n]"
        )

    @pytest.mark.parametrize(("page", "word"), [(0, "Too small"), ("10", "Too big")])
    async def test_bounds(self, toolbox, page, word):
        assert word in (await toolbox().run(use(file_path="a", page=page))).content

    @pytest.mark.parametrize(
        ("written", "read"), [("1", 1), ("-2", -2), ("1.5", 1.5), ("2.0", 2), ("007", 7), (3, 3), (2.5, 2.5)]
    )
    def test_digits_become_numbers(self, written, read):
        assert validate_input(use(file_path="1", limit=written), SCHEMA) == {"file_path": "1", "limit": read}

    @pytest.mark.parametrize("written", ["", "x", "1e3", " 1", "1_0", "٣", "1" * 5000, "--1", "1."])
    def test_other_texts_do_not(self, written):
        with pytest.raises(InvalidInputError):
            validate_input(use(file_path="a", limit=written), SCHEMA)

    def test_lists_so_many_issues(self):
        with pytest.raises(InvalidInputError) as caught:
            validate_input(use(**{f"x{number}": 1 for number in range(1000)}), SCHEMA)
        assert str(caught.value).count("\n") == 21
        assert "and 981 more" in str(caught.value)

    json_values = st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )

    @given(
        st.one_of(
            json_values,
            st.dictionaries(st.sampled_from([*SCHEMA["properties"], "x"]), json_values, max_size=4),
        )
    )
    def test_arguments_match_the_schema_or_are_refused(self, given):
        try:
            found = validate_input(ToolUse("1", "Read", given), SCHEMA)
        except InvalidInputError as caught:
            json.dumps(str(caught))
            return
        assert set(found) <= set(SCHEMA["properties"])
        assert isinstance(found["file_path"], str)
        assert all(isinstance(found[name], bool) for name in ("all",) if name in found)
