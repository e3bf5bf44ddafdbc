"""Whether a tool call may run, and what the model is told where it may not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_force.agent_types import AgentSettings
from claude_force.tools.grant import parse_grant
from claude_force.tools.offers import offer_tools, offered_names
from claude_force.tools.permission_rules import PermissionRules, compile_rules
from claude_force.tools.permissions import Permissions
from claude_force.tools.shell_commands import ShellSyntaxError, split_commands

P = "/p"
DENIED = "<tool_use_error>File is in a directory that is denied by your permission settings.</tool_use_error>"
NESTED = "A nested command in this command can't be checked before it runs"


def permissions(grant, deny=(), ask=(), tools=None):
    rules = PermissionRules(
        *(compile_rules(texts, "settings.json", P, "/home/me", P) for texts in (deny, ask))
    )
    parsed = parse_grant(grant)
    offered = offered_names(offer_tools(AgentSettings(tools=tools), parsed, rules))
    return Permissions(parsed, rules, P, "/home/me", offered)


def denial(grant, tool, path, **options):
    return permissions(grant, **options).denial(
        tool, {"file_path" if tool in "Read Edit Write" else "path": path}, P
    )


def command(grant, line, **options):
    return permissions(grant, **options).denial("Bash", {"command": line}, P)


def ungranted(doing, path):
    return f"Claude requested permissions to {doing} {path}, but you haven't granted it yet."


class TestPaths:
    @pytest.mark.parametrize(
        ("grant", "tool", "path", "expected"),
        [
            *(("read", "Read", "a.txt", ""), ("edit", "Write", "/p/a", ""), ("Edit", "Edit", "a", "")),
            *(
                ("Read(src/**)", "Read", "src/a", ""),
                ("Read(src/**)", "Read", "src/../b", ungranted("read from", "/p/b")),
            ),
            *(
                ("Read(src/**)", "Grep", "src", ""),
                ("Read(src/**)", "Glob", ".", ungranted("read from", "/p")),
            ),
            *(
                ("Read(*.md)", "Grep", "a.md", ""),
                ("Read(*.md)", "Grep", "src", ungranted("read from", "/p/src")),
            ),
            *(
                ("Edit(docs/**)", "Write", "docs/a", ""),
                ("Edit(docs/**)", "Edit", "a", ungranted("write to", "/p/a")),
            ),
            *(
                ("Write(./a)", "Write", "a", ""),
                ("Write(./a)", "Write", "x/a", ungranted("write to", "/p/x/a")),
            ),
        ],
    )
    def test_grant(self, grant, tool, path, expected):
        assert denial(grant, tool, path) == expected

    @pytest.mark.parametrize(
        ("rule", "tool", "path", "expected"),
        [
            *(
                ("Read(./secret/**)", "Read", "secret/k.txt", DENIED),
                ("Read(./secret/**)", "Read", "a.txt", ""),
            ),
            *(
                ("Read(./secret/**)", "Grep", "secret/k.txt", DENIED),
                ("Read(./secret/**)", "Glob", "secret/x", DENIED),
            ),
            *(
                ("Read(./secret/**)", "Edit", "secret/k.txt", DENIED),
                ("Read(./secret/**)", "Write", "secret/k", ""),
            ),
            *(("Edit(*.lock)", "Edit", "x/a.lock", DENIED), ("Edit(*.lock)", "Write", "a.lock", DENIED)),
            *(("Edit(*.lock)", "Read", "a.lock", ""), ("Read(//p/a)", "Read", "/q/../p/a", DENIED)),
            *(
                ("Write(a)", "Edit", "a", DENIED),
                ("Grep(a)", "Read", "a", DENIED),
                ("Read(x)", "Read", "/p/" + "y" * 5000, DENIED),
            ),
        ],
    )
    def test_deny_wins_over_the_grant(self, rule, tool, path, expected):
        assert denial("bash", tool, path, deny=[rule]) == expected

    def test_ask_is_denied(self):
        assert denial("bash", "Read", "a", ask=["Read(a)"]) == ungranted("read from", "/p/a")
        assert denial("bash", "Write", "b", ask=["Write"]) == ungranted("write to", "/p/b")
        assert denial("bash", "Read", "a", ask=["Read(a)"], deny=["Read(a)"]) == DENIED

    def test_a_path_starts_at_the_working_folder(self):
        one = permissions("read", deny=["Read(/src/x)"])
        assert one.denial("Read", {"file_path": "x"}, "/p/src") == DENIED
        assert one.denial("Grep", {}, "/p/src/x") == DENIED

    def test_a_tool_that_is_not_granted(self):
        one = permissions("read")
        assert one.refusal("Write", {"file_path": "x.txt"}, P) == ungranted("write to", "/p/x.txt")
        assert one.refusal("Grep", {}, P) == ungranted("read from", "/p")
        assert one.refusal("Edit", {"file_path": ["odd"]}, P) == ungranted("write to", "/p")

    @pytest.mark.parametrize(
        ("grant", "path", "expected"),
        [
            *(("edit", "/p/.git/config", False), ("Edit(**)", "/p/.git/config", False)),
            *(("Edit(.git/**)", "/p/.git/config", True), ("edit,Edit(.mcp.json)", "/p/.mcp.json", True)),
            *(
                ("Edit(/.claude/agents/**)", "/p/.claude/agents/a.md", True),
                ("Edit(.git/**)", "/p/.claude/x", False),
            ),
            ("Edit(docs/**)", "/p/docs/.git/config", False),
            ("Edit(.github/**)", "/p/.github/.git/config", False),
            ("Edit(.github/**)", "/p/.github/workflows/x.yml", True),
        ],
    )
    def test_sensitive_files_need_a_rule_that_names_them(self, grant, path, expected):
        assert permissions(grant).allows_sensitive(path) is expected

    @pytest.mark.parametrize(
        ("grant", "deny", "path", "read", "write"),
        [
            *(("edit", [], "/p/a", False, False), ("read", [], "/p/a", False, True)),
            *(("edit", ["Read(a)"], "/p/x/a", True, False), ("edit", ["Edit(a)"], "/p/a", False, True)),
            *(("Read(src/**)", [], "/p/src", False, True), ("Read(src/**)", [], "/p/b", True, True)),
            *(("Read(src/**)", [], "/p", True, True), ("Edit(docs/**)", [], "/p/docs/a", False, False)),
            ("read", [], "/p/" + "y" * 5000, True, True),
        ],
    )
    def test_what_the_workspace_asks(self, grant, deny, path, read, write):
        one = permissions(grant, deny=deny)
        assert (one.denies_read(path), one.denies_write(path)) == (read, write)


class TestCommands:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            *(
                ("touch y.txt", ""),
                ("touch z.txt; echo hi", ""),
                ("cd src && touch a", ""),
                ("touch a 2>/dev/null", ""),
            ),
            ("touch q.txt && rm q.txt", "rm in '/p/q.txt' needs approval. This run does not grant it."),
            ("rm -rf y.txt", "rm in '/p/y.txt' needs approval. This run does not grant it."),
            *(("touch $(echo k.txt)", NESTED), ("touch `echo k`", NESTED), ("touch <(echo k)", NESTED)),
            ("git --version", "This command requires approval"),
            *(
                ("cat a.txt", "This command requires approval"),
                ("printf -v x y", "This command requires approval"),
            ),
            (
                "touch a > z.txt",
                "Output redirection to '/p/z.txt' needs approval. This run does not grant it.",
            ),
            (
                "echo hi > z.txt",
                "Output redirection to '/p/z.txt' needs approval. This run does not grant it.",
            ),
            ("PATH=. touch x", "touch in '/p/x' needs approval. This run does not grant it."),
            ("case x in x) touch x;; esac", "This command requires approval: it has a case"),
            ("echo 'x", "This command requires approval: a quote is not closed"),
        ],
    )
    def test_with_a_rule(self, line, expected):
        assert command("Bash(touch:*)", line) == expected

    @pytest.mark.parametrize(
        ("line", "is_allowed"),
        [
            *(
                ("cat a.txt | wc -l", True),
                ("ls && grep x y", True),
                ("sort -o x y", False),
                ("rg --pre x y", False),
            ),
            *(("cat a > docs/b", True), ("cat a > b", False), ("cd docs; cat a > docs/b", False)),
            *(("cat a > $x", False), ("cat a >> docs/../b", False), ("A=1 cat a", False)),
        ],
    )
    def test_reading_needs_no_rule_where_read_is_granted(self, line, is_allowed):
        assert (command("Read,Edit(docs/**),Bash(touch:*)", line) == "") is is_allowed

    def test_reading_needs_a_rule_where_settings_deny_some(self):
        assert command("read,Bash(touch:*)", "cat a", deny=["Read(secret)"])
        assert command("read,Bash(touch:*)", "cat a", tools=("Bash",))

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            *(("ls; x", ""), ("f() { x; }", ""), ("rmdir x", "")),
            ("ls; rm x", "Permission to use Bash with command ls; rm x has been denied."),
            (
                "git push",
                "Permission to use Bash with command git push needs approval, which nobody can give in this "
                "run.",
            ),
        ],
    )
    def test_all_but_what_settings_deny(self, line, expected):
        settings = {"deny": ["Bash(rm:*)"], "ask": ["Bash(git push:*)"]} if "f()" not in line else {}
        assert command("bash", line, **settings) == expected

    def test_denies_what_can_not_be_checked(self):
        found = command("bash", "$x y", deny=["Bash(rm:*)"])
        assert "can't be checked against the rules of the settings" in found

    def test_ask_for_the_whole_tool(self):
        assert command("bash", "ls", ask=["Bash"]) == (
            "Claude requested permissions to use Bash, but you haven't granted it yet."
        )

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            *(("git --version", "This command requires approval"), ("ls", "This command requires approval")),
            ("touch y.txt", "touch in '/p/y.txt' needs approval. This run does not grant it."),
            (
                "echo hi > z.txt",
                "Output redirection to '/p/z.txt' needs approval. This run does not grant it.",
            ),
        ],
    )
    def test_without_a_grant(self, line, expected):
        assert permissions("read").refusal("Bash", {"command": line}, P) == expected

    @given(
        st.lists(
            st.sampled_from(
                ["git diff", "rm x", "; ", " && ", " | ", "$(", ")", "`", "> y ", "(", "'", '"', "\n", "A=1 "]
            ),
            min_size=1,
            max_size=8,
        ).map("".join)
    )
    def test_a_rule_allows_no_other_command(self, line):
        if command("Bash(git diff:*)", line):
            return
        assert all(one.words[0].value == "git" and not one.outputs for one in split_commands(line))

    @given(st.text(alphabet="arm ;&|$()<>'\"`\\\n#{}=x", max_size=20))
    def test_deny_is_as_strict_as_the_split(self, line):
        try:
            has_rm = any(one.words and one.words[0].value == "rm" for one in split_commands(line))
        except ShellSyntaxError:
            has_rm = True
        if has_rm:
            assert command("bash", line, deny=["Bash(rm:*)"])
