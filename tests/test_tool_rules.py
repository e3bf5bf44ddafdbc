"""Rules of permissions: their syntax, patterns of paths beside git's, patterns of commands."""

import shutil
import subprocess
import time

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from claude_force.tools.command_rules import compile_command, find_denied, is_allowed
from claude_force.tools.path_patterns import compile_pattern
from claude_force.tools.rules import Rule, RuleError, parse_rule
from claude_force.tools.shell_commands import ShellSyntaxError, split_commands
from claude_force.tools.tool_names import covers

GIT = shutil.which("git")


class TestSyntax:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Read", Rule("Read")),
            (" Bash(git diff:*) ", Rule("Bash", "git diff:*")),
            *(("Bash()", Rule("Bash")), ("Bash(*)", Rule("Bash")), ("Bash(:*)", Rule("Bash"))),
            ("Bash(echo (a) \\))", Rule("Bash", "echo (a) \\)")),
            ("Bash(a\nb)", Rule("Bash", "a\nb")),
            *(("Task(x)", Rule("Agent", "x")), ("KillShell", Rule("TaskStop"))),
            ("mcp__s__*", Rule("mcp__s__*")),
            ("mcp__my-server__do.it", Rule("mcp__my-server__do.it")),
            ("WebFetch(domain:example.com)", Rule("WebFetch", "domain:example.com")),
            ("*", Rule("*")),
        ],
    )
    def test_reads_a_rule(self, text, expected):
        assert parse_rule(text) == expected

    @pytest.mark.parametrize(
        "text",
        ["", "Bash(git", "Bash git", "(x)", "Re*d", "mcp__*__x", "Read)", "1", "x" * 3000, "Bash(a) b"],
    )
    def test_refuses_what_is_no_rule(self, text):
        with pytest.raises(RuleError):
            parse_rule(text)

    @given(st.text(max_size=30))
    def test_a_rule_reads_as_itself(self, text):
        try:
            rule = parse_rule(text)
        except RuleError:
            return
        assert parse_rule(str(rule)) == rule

    @pytest.mark.parametrize(
        ("pattern", "name", "expected"),
        [
            *(("Read", "Read", True), ("read", "Read", False), ("*", "Bash", True), ("Task", "Agent", True)),
            *(
                ("mcp__s", "mcp__s__t", True),
                ("mcp__s__*", "mcp__s__t", True),
                ("mcp__s__t", "mcp__s__t", True),
            ),
            *(("mcp__s", "mcp__st__t", False), ("mcp__s__t", "mcp__s__tt", False)),
            ("mcp__s__t", "mcp__s__t__u", False),
        ],
    )
    def test_names_tools(self, pattern, name, expected):
        assert covers(pattern, name) is expected


def matches(pattern, path, **options):
    return compile_pattern(pattern, "/p", "/home/me", **options).matches(path)


class TestPaths:
    @pytest.mark.parametrize(
        ("pattern", "path", "expected"),
        [
            *(
                ("[z-a]", "/p/b", False),
                ("[!z-a]", "/p/b", True),
                ("[]a]", "/p/]", True),
                ("[a-]", "/p/-", True),
            ),
            *(("[^a]", "/p/^", True), ("[\\\\]", "/p/\\", True), ("a[b]c*[d]", "/p/abcxd", True)),
            *(("./secret/**", "/p/secret/a/b", True), ("./secret/**", "/p/secret", False)),
            *(
                ("secret", "/p/x/secret/a", True),
                ("secret/", "/p/secret/a", True),
                ("/secret", "/p/x/secret", False),
            ),
            *(("*.env", "/p/a/b.env", True), (".env.*", "/p/.env.local", True), (".env", "/p/.envx", False)),
            *(("//etc/**", "/etc/passwd", True), ("//etc/**", "/p/etc/x", False), ("//**", "/x", True)),
            *(("~/.ssh/**", "/home/me/.ssh/id", True), ("~", "/home/me/x", True), ("~/x", "/p/x", False)),
            *(
                ("../other/**", "/other/x", True),
                ("**", "/p/x", True),
                ("**", "/q/x", False),
                (".", "/p/x", True),
            ),
            *(("src/*/a.py", "/p/src/x/a.py", True), ("src/*/a.py", "/p/src/x/y/a.py", False)),
            *(("src/**/a.py", "/p/src/a.py", True), ("src/**/a.py", "/p/src/x/y/a.py", True)),
            *(
                ("[a-c]?", "/p/bz", True),
                ("[!a-c]?", "/p/bz", False),
                ("a[*]", "/p/a*", True),
                ("\\*", "/p/x", False),
            ),
        ],
    )
    def test_matches(self, pattern, path, expected):
        assert matches(pattern, path) is expected

    @pytest.mark.parametrize(
        ("pattern", "name", "expected"),
        [
            *(("[z-a]", "b", False), ("[!z-a]", "b", True), ("[]a]", "]", True), ("[a-]", "-", True)),
            *(
                ("[^a]", "^", True),
                ("[\\]]", "]", True),
                ("a[b]c*[d]", "abcxd", True),
                ("*[a]*", "xay", True),
            ),
            *(("a*a", "a", False), ("a?*?b", "axyb", True), ("a?*?b", "axb", False), ("[.]", "x", False)),
        ],
    )
    def test_matches_names(self, pattern, name, expected):
        assert matches(pattern, f"/p/{name}") is expected

    def test_a_slash_begins_at_the_folder_of_the_settings(self):
        assert matches("/x", "/p/sub/x", base="/p/sub")
        assert not matches("/x", "/p/x", base="/p/sub")

    def test_a_dot_holds_a_grant_to_the_root(self):
        assert matches("./x", "/p/sub/x")
        assert not matches("./x", "/p/sub/x", strict=True)
        assert matches("./x", "/p/x", strict=True)

    @pytest.mark.parametrize("path", ["/P/SECRET/k.txt", "/p/secret/K.TXT"])
    def test_denies_other_spellings_where_they_are_the_same_name(self, path):
        assert matches("./Secret/**", path, fold=True)
        assert not matches("./Secret/**", path, fold=False)
        assert not matches("./Secret/**", path, fold=True, strict=True)
        assert matches("caf\u00e9", "/p/CAFE\u0301", fold=True)

    @pytest.mark.parametrize("pattern", ["!x", "a/../b", "[a", "x[[:alpha:]]"])
    def test_refuses(self, pattern):
        with pytest.raises(RuleError):
            compile_pattern(pattern, "/p", "/home/me")

    def test_holds_all_in_a_folder(self):
        pattern = compile_pattern("src/**", "/p", "/home/me")
        assert pattern.holds_all_in("/p/src")
        assert not pattern.holds_all_in("/p")
        assert not compile_pattern("src/*.py", "/p", "/home/me").holds_all_in("/p/src")

    @pytest.mark.parametrize(
        "pattern", ["*a" * 16 + "b", "**/a/" * 8 + "b", "?*" * 8 + "b", "*" + "a" * 2000 + "b"]
    )
    def test_is_fast(self, pattern):
        compiled = compile_pattern(pattern, "/p", "/home/me")
        begun = time.perf_counter()
        for _ in range(100):
            compiled.matches("/p/" + "a" * 4000)
            compiled.matches("/p" + "/a" * 64)
        assert time.perf_counter() - begun < 1

    @pytest.mark.parametrize("pattern", ["a/" * 30, "*a" * 17, "[a]" * 17])
    def test_refuses_what_would_be_slow(self, pattern):
        with pytest.raises(RuleError, match="has more than"):
            compile_pattern(pattern, "/p", "/home/me")

    @pytest.mark.skipif(GIT is None, reason="there is no git")
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        pattern=st.lists(
            st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]", "/", "**", "**/", "/**", ".", "\\*"]),
            min_size=1,
            max_size=6,
        ).map("".join),
        paths=st.lists(
            st.lists(st.sampled_from(["a", "b", "ab", ".a", "aab", "a*"]), min_size=1, max_size=4).map(
                "/".join
            ),
            min_size=1,
            max_size=20,
        ),
    )
    @example(pattern="a/**", paths=["a", "a/b"])
    @example(pattern="**/b", paths=["b", "a/b/c"])
    def test_agrees_with_git(self, tmp_path, pattern, paths):
        assume("//" not in pattern and not pattern.endswith("/") and "***" not in pattern)
        # For git, ** in a name is something between * and **.
        assume(all(part == "**" or "**" not in part for part in pattern.split("/")))
        assume(not set(pattern.split("/")) & {".", ".."})
        if not (tmp_path / ".git").exists():
            subprocess.run([GIT, "init", "-q", str(tmp_path)], check=True)
        (tmp_path / ".gitignore").write_text(pattern + "\n")
        asked = subprocess.run(
            [GIT, "check-ignore", "--no-index", "--stdin"],
            cwd=tmp_path,
            input="\n".join(paths),
            capture_output=True,
            text=True,
            check=False,
        )
        ignored = set(asked.stdout.split("\n")) - {""}
        assert {path for path in paths if matches(pattern, f"/p/{path}")} == ignored


def allows(rules, line):
    patterns = [compile_command(rule) for rule in rules]
    return all(is_allowed(one, patterns) for one in split_commands(line))


class TestCommands:
    @pytest.mark.parametrize(
        ("rule", "line", "expected"),
        [
            *(
                ("git diff:*", "git diff", True),
                ("git diff:*", "git  diff -p", True),
                ("git diff:*", "git diffx", False),
            ),
            *(("ls *", "ls", True), ("ls *", "ls -l", True), ("ls *", "lsof", False), ("ls*", "lsof", True)),
            *(("npm test", "npm test", True), ("npm test", "npm test x", False)),
            *(("git * main", "git push main", True), ("git * main", "git push main x", False)),
            *(("git * log:*", "git -C x log -p", True), ("git * log:*", "git -C x log", True)),
            *(("echo \\*", "echo *", True), ("echo \\*", "echo x", False)),
            *(("git diff:*", "git diff; rm x", False), ("git diff:*", "git diff && git diff -p", True)),
            *(("git diff:*", "git diff $(rm x)", False), ("git diff:*", "git 'diff'", False)),
            *(("git diff:*", "timeout 5 git diff", True), ("git diff:*", "nice -n 5 nohup git diff", True)),
            *(
                ("git diff:*", "timeout -s KILL 5 git diff", True),
                ("git diff:*", "timeout $x git diff", False),
            ),
            *(("git diff:*", "LANG=C git diff", True), ("git diff:*", "GIT_EXTERNAL_DIFF=x git diff", False)),
            *(("git diff:*", "PATH=. ; git diff", False), ("git diff:*", "env git diff", False)),
            *(("git diff:*", "xargs git diff", False), ("git diff:*", "sh -c 'git diff'", False)),
            ("A=1 make:*", "A=1 make all", True),
        ],
    )
    def test_allows(self, rule, line, expected):
        assert allows([rule], line) is expected

    @pytest.mark.parametrize(
        ("rule", "line"),
        [
            *(
                ("rm:*", "rm x"),
                ("rm:*", "ls; rm x"),
                ("rm:*", "echo $(rm x)"),
                ("rm:*", "r\\m x"),
                ("rm:*", "'rm' x"),
            ),
            *(
                ("rm:*", "/bin/rm x"),
                ("rm:*", "A=1 rm x"),
                ("rm:*", "timeout 5 rm x"),
                ("rm:*", "ls | xargs rm"),
            ),
            *(("rm:*", "find . -exec rm {} +"), ("rm:*", "sudo -u me /bin/rm x"), ("rm:*", "env A=1 rm x")),
            *(("rm:*", "bash -c 'rm x'"), ("rm:*", "sudo sh -ec 'ls; rm x'"), ("rm:*", "eval rm x")),
            *(("git push:*", 'git "push" x'), ("rm:*", "if true; then rm x; fi"), ("rm:*", "rm")),
            ("curl:*", "cat <(curl x)"),
        ],
    )
    def test_denies(self, rule, line):
        assert find_denied(line, [compile_command(rule)])

    @pytest.mark.parametrize("line", ["ls", "echo rm", "git rm x", "grep 'rm x' f", "rmdir x"])
    def test_does_not_deny_others(self, line):
        assert not find_denied(line, [compile_command("rm:*")])

    @pytest.mark.parametrize(
        "line", ["$x y", "f() { rm x; }", "bash -c $x", 'eval "$x"', "r{m,x} y", "case x in x) rm y;; esac"]
    )
    def test_does_not_guess(self, line):
        with pytest.raises(ShellSyntaxError):
            find_denied(line, [compile_command("rm:*")])

    @pytest.mark.parametrize(
        "line", ["a;" * 300, "xargs " + "sh " * 200, "env " + "-c x " * 100, "sh -c '" + "a;" * 300 + "'"]
    )
    def test_does_not_take_long(self, line):
        patterns = [compile_command(f"*{'x' * number} *y") for number in range(500)]
        begun = time.perf_counter()
        with pytest.raises(ShellSyntaxError):
            find_denied(line, patterns)
        assert time.perf_counter() - begun < 1

    @given(
        st.lists(st.sampled_from(["a", "b", "ab", " "]), max_size=6).map("".join),
        st.lists(st.sampled_from(["a", "b", "*", " "]), min_size=1, max_size=6).map("".join),
    )
    def test_wildcards_match_any_text(self, text, rule):
        try:
            pattern = compile_command(rule)
        except RuleError:
            return
        words, text = " ".join(rule.split()), " ".join(text.split())
        expected = _plainly(words, text) or (words.endswith(" *") and _plainly(words[:-2], text))
        assert pattern.matches(text) is expected


def _plainly(pattern, text):
    """The obvious, exponential way."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(_plainly(pattern[1:], text[place:]) for place in range(len(text) + 1))
    return text[:1] == pattern[0] and _plainly(pattern[1:], text[1:])
