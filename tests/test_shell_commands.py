"""Splitting command lines: every command that bash runs is found, or the line is refused."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from claude_force.tools.shell_commands import MOST_CHARACTERS, ShellSyntaxError, split_commands

BASH = shutil.which("bash")


def commands(text):
    return [" ".join(word.raw for word in one.words) for one in split_commands(text)]


class TestSplit:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("git diff", ["git diff"]),
            ("git diff; touch x", ["git diff", "touch x"]),
            ("a && b || c", ["a", "b", "c"]),
            ("a | b |& c & d\ne", ["a", "b", "c", "d", "e"]),
            ("(a; b) > out", ["a", "b", ""]),
            ("{ a; b; }", ["a", "b"]),
            ("! a", ["a"]),
            ("if a; then b; elif c; then d; else e; fi", ["a", "b", "c", "d", "e"]),
            ("while a; do b; done < f", ["a", "b"]),
            ("for x in 1 2; do a $x; done", ["for x in 1 2", "a $x"]),
            ("a $(b $(c))", ["c", "b $(c)", "a $(b $(c))"]),
            ('a "$(b)"', ["b", 'a "$(b)"']),
            ("a `b c`", ["b c", "a `b c`"]),
            ("a <(b) >(c)", ["b", "c", "a <(b) >(c)"]),
            ("a 'b; c' \"d & e\" f\\;g", ["a 'b; c' \"d & e\" f\\;g"]),
            ("a # b; c\nd", ["a", "d"]),
            ("a#b", ["a#b"]),
            ("a <<E | b\nc; $x\nE\nd", ["a", "b", "d"]),
            ("a <<'E'\n$(c) `d`\nE", ["a"]),
            ("a <<-E\n\tc\n\tE\nb", ["a", "b"]),
            ("a <<< 'b; c'", ["a"]),
            ("[[ a < b && -n $(c) ]] && d", ["c", "[[ a b -n $(c) ]]", "d"]),
            ("a $((1 + (2 * x))) ${x:-y} ${#x} $1 $", ["a $((1 + (2 * x))) ${x:-y} ${#x} $1 $"]),
            ("a \\\n  b", ["a b"]),
            ("", []),
            ("  # nothing", []),
        ],
    )
    def test_finds_each_command(self, text, expected):
        assert commands(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            *(
                "a 'b",
                'a "b',
                "a `b",
                "a $(b",
                "(a",
                "a)",
                "a <(b",
                "a \\",
                "a <",
                "a <<E\nb",
                "[[ a",
                "a ${x",
            ),
            *("f() { a; }", "f () a", "function f { a; }", "x=(a b)", "case x in a) b;; esac", "((x = 1))"),
            *("for ((;;)); do a; done", "a ${x:=y}", "a ${x@P}", "a ${x:-$(b)}", "a $[1]", "a $((x[1]))"),
            *(
                "a <<E\n$(b)\nE",
                "a <<E\n`b`\nE",
                "a <<E\\\nF\nEF",
                'a "$\\\n(b)"',
                "a\0b",
                "coproc a",
                "(a) b",
            ),
            "$(" * 30 + ")" * 30,
            "a" * (MOST_CHARACTERS + 1),
        ],
    )
    def test_refuses_what_it_does_not_understand(self, text):
        with pytest.raises(ShellSyntaxError):
            split_commands(text)

    @pytest.mark.parametrize(
        ("text", "assignments", "outputs"),
        [
            ("A=1 B='x y' c", ["A=1", "B='x y'"], []),
            ("a > x 2>> y <z 2>&1 >&- &> w >| v <> u", [], ["x", "y", "w", "v", "u"]),
            ("> x", [], ["x"]),
            ("A=1", ["A=1"], []),
            ("a >&x", [], ["x"]),
        ],
    )
    def test_reads_assignments_and_outputs(self, text, assignments, outputs):
        (one,) = split_commands(text)
        assert [word.raw for word in one.assignments] == assignments
        assert [word.raw for word in one.outputs] == outputs

    @pytest.mark.parametrize(
        ("word", "value", "is_literal"),
        [
            *(("a'b c'\"d\"\\e", "ab cde", True), ("$x", "$x", False), ("*.py", "*.py", False)),
            *(("~/x", "~/x", False), ("a~", "a~", True), ("{a,b}", "{a,b}", False), ("'*'", "*", True)),
            *(('"a\\$b\\n"', "a$b\\n", True), ("$'\\x72m'", "$'\\x72m'", False)),
        ],
    )
    def test_takes_quotes_away(self, word, value, is_literal):
        (one,) = split_commands(f"x {word}")
        assert one.words[1] == (word, value, is_literal)

    def test_marks_nested_commands(self):
        found = {one.words[0].value: one.is_nested for one in split_commands("(a); b $(c); d `e` <(f)")}
        assert found == {"a": False, "b": False, "c": True, "d": False, "e": True, "f": True}

    @pytest.mark.parametrize("text", ["(" * 20_000, "$((" * 6_000, "a" + " <<E" * 4_000, '"' + "$x" * 9_000])
    def test_ends_soon(self, text):
        with pytest.raises(ShellSyntaxError):
            split_commands(text)


# A shell whose every command but its own words is recorded instead of run.
_PRELUDE = """
trap wait EXIT
command_not_found_handle() { printf '%s\\0' "$1" >> "$LOG"; return 0; }
"""
PIECES = (
    *(
        "a",
        "b",
        "c",
        "a ",
        "b ",
        "c ",
        " ",
        " ",
        "\n",
        ";",
        "&",
        "&&",
        "||",
        "|",
        "(",
        ")",
        "{ ",
        "; }",
        "$(",
        "`",
    ),
    *(
        "'",
        '"',
        "\\",
        "\\\n",
        "<<E\n",
        "<<'E'\n",
        "E\n",
        "<",
        ">",
        "<(",
        "#",
        " #",
        "$x",
        "${x",
        "}",
        "${x:-",
        "x=1 ",
    ),
    *(
        "if ",
        "; then ",
        "; fi",
        "while ",
        "; do ",
        "; done",
        "! ",
        "[[ ",
        " ]]",
        "$((",
        "))",
        "1",
        "2>&1",
        "&>",
    ),
    *("<<<", "for x in ", "~", "*", "$'", '$"', "<<-E\n", "\t", "time ", "in ", "&\\\n", "$\\\n"),
)


@pytest.mark.skipif(BASH is None, reason="there is no bash")
class TestBesideBash:
    """What bash really runs."""

    @settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join))
    @example(text="a <<E\n$x\nE\nb")
    @example(text='a "$(b)" `c`')
    @example(text="a <(b) | c")
    def test_finds_all_that_bash_runs(self, tmp_path, text):
        try:
            names = [one.words[0] for one in split_commands(text) if one.words]
        except ShellSyntaxError:
            return
        if all(name.is_literal for name in names):
            assert set(run_in_bash(tmp_path, text)) <= {name.value for name in names}

    @pytest.mark.parametrize("text", ["a; b", "a $(b)", "a <<E\nx\nE\nb", "(a) | b", "if a; then b; fi"])
    def test_records_what_is_run(self, tmp_path, text):
        assert set(run_in_bash(tmp_path, text)) == {"a", "b"}


def run_in_bash(folder, text):
    """The names of the commands that bash runs for a command line, none of which exists."""
    # Of its own: what an earlier line left in the background may still write.
    own = Path(tempfile.mkdtemp(dir=folder))
    log, start, work = own / "log", own / "start.sh", own / "work"
    start.write_text(_PRELUDE)
    work.mkdir()
    log.write_text("")
    environment = {"PATH": "/nowhere", "LOG": str(log), "BASH_ENV": str(start), "HOME": str(work), "x": "c"}
    with subprocess.Popen(
        [BASH, "-c", text],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as shell:
        try:
            shell.wait(0.5)
        except subprocess.TimeoutExpired:  # A loop without an end.
            os.killpg(shell.pid, 9)
    return log.read_text().split("\0")[:-1]
