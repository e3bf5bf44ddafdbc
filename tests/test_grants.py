"""What a run grants, what an agent is offered under it, and what settings files take away."""

import json
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_force import settings as environment
from claude_force.agent_types import AgentSettings
from claude_force.errors import ConfigurationError, FileAccessError, InputError, InvalidOptionError
from claude_force.tools.default_grant import default_grant
from claude_force.tools.grant import LEVELS, NO_GRANT, parse_grant, ungranted_notice
from claude_force.tools.offers import offer_tools, offered_names
from claude_force.tools.permission_rules import NO_RULES, PermissionRules, compile_rules
from claude_force.tools.permission_settings import LARGEST_FILE, read_permission_rules
from claude_force.tools.tool_names import AVAILABLE

ALL = AVAILABLE


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's home folder, empty."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


class TestGrant:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            *(
                (None, "none"),
                ("none", "none"),
                ("read", "Read,Grep,Glob"),
                ("edit", "Read,Grep,Glob,Edit,Write"),
            ),
            *(
                ("bash", "Read,Grep,Glob,Edit,Write,Bash"),
                ("bash,network", "Read,Grep,Glob,Edit,Write,Bash,network"),
            ),
            ("Read, Grep,Bash(git diff:*)", "Read,Grep,Bash(git diff:*)"),
            (["read", "Bash(git log, -p)"], "Read,Grep,Glob,Bash(git log, -p)"),
            (("Read", "Read"), "Read"),
            ("Edit(docs/**),read", "Edit(docs/**),Read,Grep,Glob"),
        ],
    )
    def test_parses(self, value, expected):
        grant = parse_grant(value)
        assert str(grant) == expected
        assert bool(grant) is (expected != "none")
        assert parse_grant(grant) is grant
        assert parse_grant(str(grant)) == grant == pickle.loads(pickle.dumps(grant))

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            *(
                ("reed", "Did you mean read"),
                ("raed,edit", "Did you mean read"),
                ("Raed", "Did you mean Read"),
            ),
            *(("READ", "Did you mean read or Read?"), ("BASH(x)", "Did you mean bash or Bash?")),
            *(
                ("", "names nothing"),
                ([], "names nothing"),
                ("none,read", "can't be combined"),
                (5, "is not a grant"),
            ),
            *((["read", 5.5], "Levels are"), ({"read": 1}, "is not a grant"), ("Bash(", "is not a rule")),
            *(
                ("Frobnicate", "is not a tool"),
                ("MultiEdit", "Grant Edit"),
                ("WebSearch", "not available yet"),
            ),
            *(("mcp__s__t", "not available yet"), ("Task", "not available yet"), ("*", "is not a tool")),
            *(("network", "is for commands"), ("Read(a/../b)", "has a .."), ("Read([a)", "without a ]")),
            *((["Read"] * 300, "too many"), ("Read(" + "x" * 3000 + ")", "longer than")),
        ],
    )
    def test_refuses_with_advice(self, value, words):
        with pytest.raises(InvalidOptionError) as caught:
            parse_grant(value)
        assert words in str(caught.value)
        assert str(caught.value).startswith("tools: ")
        assert caught.value.for_shell().startswith("--tools: ")
        assert caught.value.fatal_for == "run"

    @given(st.one_of(st.text(max_size=40), st.lists(st.text(max_size=15), max_size=5)))
    def test_any_text_is_a_grant_or_an_error(self, value):
        try:
            grant = parse_grant(value)
        except InvalidOptionError:
            return
        assert {rule.tool for rule in grant.rules} <= set(AVAILABLE)
        assert parse_grant(str(grant)) == grant

    def test_notice_names_the_lowest_level(self):
        notice = ungranted_notice("a", ("Read", "Edit", "WebSearch"))
        text = "a declares tools (Read, Edit, WebSearch) and runs without them; to grant them, "
        assert notice == f'{text}pass tools="edit"'
        assert notice.shell.endswith("add --tools edit")


class TestDefault:
    def write(self, text, mode=0o600):
        folder = environment.user_folder()
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "claude-force.toml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(mode)
        return file

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            *(('tools = "read"', "Read,Grep,Glob"), ('tools = ["Read", "Bash(ls:*)"]', "Read,Bash(ls:*)")),
            *(("", "none"), ("model = 'opus'", "none"), ('\ufefftools = "none"', "none")),
        ],
    )
    def test_reads_the_users_file(self, home, text, expected):
        self.write(text)
        assert str(default_grant()) == expected

    def test_without_a_file_grants_nothing(self, home):
        assert default_grant() is NO_GRANT

    def test_follows_a_link_of_the_user(self, home, tmp_path):
        elsewhere = tmp_path / "dotfiles.toml"
        self.write('tools = "read"').rename(elsewhere)
        (home / ".claude" / "claude-force.toml").symlink_to(elsewhere)
        assert str(default_grant()) == "Read,Grep,Glob"

    @pytest.mark.parametrize(
        "text", ["tools = ", "tools = 5", 'tools = "raed"', b"\xff", "[" * 5000, "x" * 70_000]
    )
    def test_refuses_what_it_can_not_read(self, home, text):
        self.write(text)
        with pytest.raises(InputError):
            default_grant()

    @pytest.mark.skipif(os.name != "posix", reason="modes")
    @pytest.mark.parametrize("mode", [0o620, 0o602])
    def test_refuses_a_file_that_others_can_write(self, home, mode):
        self.write('tools = "read"', mode)
        with pytest.raises(ConfigurationError, match="chmod 600"):
            default_grant()

    def test_a_project_grants_nothing(self, home, tmp_path, monkeypatch):
        (tmp_path / "p" / ".claude").mkdir(parents=True)
        (tmp_path / "p" / ".claude" / "claude-force.toml").write_text('tools = "bash"')
        monkeypatch.chdir(tmp_path / "p")
        assert not default_grant()


def offered(settings, grant="bash", rules=NO_RULES):
    return offered_names(offer_tools(settings, parse_grant(grant), rules))


def reasons(settings, grant="bash", rules=NO_RULES):
    return {one.name: one.reason for one in offer_tools(settings, parse_grant(grant), rules)}


class TestOffers:
    @pytest.mark.parametrize(
        ("tools", "expected"),
        [
            *(
                (None, ALL),
                (("*",), ALL),
                (("Read", "*"), ALL),
                ((), ()),
                (("Read", "Grep", "Glob"), ALL[:3]),
            ),
            *((("Bash", "Read"), ("Read", "Bash")), (("Frobnicate",), ()), (("read", "Bash"), ("Bash",))),
            *(
                (("Read", "Bash(git:*)"), ("Read", "Bash")),
                (("Bash(",), ("Bash",)),
                (("Read", "Read"), ("Read",)),
            ),
            (
                ("Read", "MultiEdit", "LS", "NotebookEdit", "TodoWrite", "WebFetch", "Task", "KillShell"),
                ("Read",),
            ),
        ],
    )
    def test_offers_what_the_file_names(self, tools, expected):
        assert offered(AgentSettings(tools=tools)) == expected

    @pytest.mark.parametrize(
        ("disallowed", "expected"),
        [
            *(
                (("Bash", "Edit", "Agent"), ("Read", "Grep", "Glob", "Write")),
                (("Bash(rm:*)",), ALL[:5]),
                (("*",), ()),
            ),
            *((("bash",), ALL), (("Bash(rm",), ALL[:5])),
        ],
    )
    def test_without_what_it_disallows(self, disallowed, expected):
        assert offered(AgentSettings(disallowed_tools=disallowed)) == expected

    @pytest.mark.parametrize(
        ("grant", "expected"),
        [
            *(("none", ()), ("read", ALL[:3]), ("edit", ALL[:5]), ("Read,Bash(ls:*)", ("Read", "Bash"))),
            *(("Read(src/**)", ALL[:3]), ("Edit(src/**)", ("Edit", "Write")), ("Write(x)", ("Write",))),
        ],
    )
    def test_cut_to_the_grant(self, grant, expected):
        assert offered(AgentSettings(), grant) == expected

    def test_without_what_settings_deny(self):
        deny = compile_rules(["Bash", "Edit(*)", "Read(x)", "WebFetch"], "settings.json", "/p", "/h", "/p")
        rules = PermissionRules(deny)
        assert offered(AgentSettings(), "bash", rules) == ("Read", "Grep", "Glob", "Write")
        assert reasons(AgentSettings(), "bash", rules)["Bash"] == "settings.json denies Bash"

    @pytest.mark.parametrize(
        ("mode", "expected"), [("plan", ALL[:3]), ("acceptEdits", ALL), ("bypassPermissions", ALL)]
    )
    def test_mode_only_narrows(self, mode, expected):
        assert offered(AgentSettings(permission_mode=mode)) == expected

    def test_says_why_the_others_are_left_out(self):
        tools = ("Read", "bash", "Wriet", "MultiEdit", "WebSearch", "mcp__s__t", "Edit", "Grep")
        found = reasons(AgentSettings(tools=tools, disallowed_tools=("Grep",)), "read")
        assert found == {
            "Read": "",
            "Grep": "disallowedTools of its file has Grep",
            "Edit": 'the run does not grant it; tools="edit" would',
            "bash": "names are case-sensitive: write Bash",
            "Wriet": "no tool has this name; did you mean Write?",
            "MultiEdit": "Claude Code has no such tool any more; Edit does its work",
            "WebSearch": "not available yet",
            "mcp__s__t": "not available yet",
        }
        assert found["Edit"].shell == "the run does not grant it; --tools edit would"

    @given(
        st.one_of(
            st.none(),
            st.lists(st.sampled_from([*AVAILABLE, "read", "Task", "*", "Bash(x:*)", "y"])).map(tuple),
        ),
        st.lists(st.sampled_from([*AVAILABLE, "Bash(x:*)", "y"])).map(tuple),
        st.sampled_from(["default", "plan", None]),
        st.sampled_from([*LEVELS, "none", "Read,Bash(x:*)", "Edit(a)"]),
        st.lists(st.sampled_from([*AVAILABLE, "Bash(x:*)", "*"]), max_size=2),
    )
    def test_nothing_beyond_grant_and_file(self, tools, disallowed, mode, grant, deny):
        settings = AgentSettings(tools=tools, disallowed_tools=disallowed, permission_mode=mode)
        rules = PermissionRules(compile_rules(deny, "s", "/p", "/h", "/p"))
        names = set(offered(settings, grant, rules))
        assert names <= {name for name in AVAILABLE if parse_grant(grant).grants(name)}
        assert tools is None or "*" in tools or names <= {one.partition("(")[0] for one in tools}
        assert not names & {one.partition("(")[0] for one in disallowed}
        assert not names & set(deny)
        assert "*" not in deny or not names
        assert mode != "plan" or names <= set(AVAILABLE[:3])


@pytest.fixture
def project(tmp_path, home):
    (tmp_path / "project" / ".claude").mkdir(parents=True)
    (tmp_path / "project" / ".git").mkdir()
    return tmp_path / "project"


def write_settings(folder, name="settings.json", **permissions):
    (folder / ".claude").mkdir(parents=True, exist_ok=True)
    (folder / ".claude" / name).write_text(json.dumps({"permissions": permissions, "other": 1}))


class TestSettings:
    def test_reads_deny_and_ask_of_three_files(self, project, home):
        write_settings(project, deny=["Read(./a)"], ask=["Bash(git push:*)"], allow=["Write"])
        write_settings(project, "settings.local.json", deny=["Bash"], defaultMode="bypassPermissions")
        write_settings(home, deny=["WebFetch"], additionalDirectories=["/"])
        found = read_permission_rules(project)
        assert sorted({(str(one.rule), one.source) for one in found.deny}) == [
            ("Bash", ".claude/settings.local.json"),
            ("Read(./a)", ".claude/settings.json"),
            ("WebFetch", str(home / ".claude" / "settings.json")),
        ]
        assert [str(one.rule) for one in found.ask] == ["Bash(git push:*)"]

    def test_reads_a_folder_in_the_project_too(self, project):
        write_settings(project / "sub", deny=["Read(/x)"])
        found = read_permission_rules(project, [project / "sub", project])
        assert [one.matcher.matches(str(project / "sub" / "x")) for one in found.deny] == [True]

    def test_nothing_is_denied_without_files(self, project):
        assert read_permission_rules(project) == PermissionRules()

    @pytest.mark.parametrize(
        "text",
        [
            *("{", "[]", "5", '{"permissions": []}', '{"permissions": {"deny": "Bash"}}', "[" * 100_000),
            *('{"permissions": {"deny": [5]}}', '{"permissions": {"deny": ["Bash(rm"]}}', "\ud800"),
            *('{"permissions": {"ask": ["Read([a)"]}}', '{"permissions": {"deny": ["x", {}]}}'),
            '{"permissions": {"deny": [' + ",".join(['"Bash"'] * 6000) + "]}}",
            " " * (LARGEST_FILE + 1),
        ],
    )
    @pytest.mark.parametrize("name", ["settings.json", "settings.local.json"])
    def test_refuses_what_it_can_not_read(self, project, name, text):
        (project / ".claude" / name).write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(InputError) as caught:
            read_permission_rules(project)
        assert name in str(caught.value)

    def test_refuses_a_broken_file_of_the_user(self, project, home):
        write_settings(home)
        (home / ".claude" / "settings.json").write_text("{")
        with pytest.raises(ConfigurationError):
            read_permission_rules(project)

    @pytest.mark.skipif(os.name != "posix", reason="links and FIFOs")
    def test_refuses_a_link_out_of_the_project(self, project, tmp_path):
        (tmp_path / "outside.json").write_text('{"permissions": {"deny": ["Bash"]}}')
        (project / ".claude" / "settings.json").symlink_to(tmp_path / "outside.json")
        with pytest.raises(FileAccessError):
            read_permission_rules(project)

    @pytest.mark.skipif(os.name != "posix", reason="links and FIFOs")
    def test_refuses_a_fifo(self, project):
        os.mkfifo(project / ".claude" / "settings.json")
        with pytest.raises(FileAccessError):
            read_permission_rules(project)

    def test_an_empty_file_denies_nothing(self, project):
        (project / ".claude" / "settings.json").write_text("")
        assert read_permission_rules(project) == PermissionRules()
