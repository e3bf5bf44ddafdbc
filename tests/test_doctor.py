"""`claude-force doctor`: each fault that it can find, with advice, and no report where nothing is wrong."""

import errno
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib import metadata

import pytest

from claude_force.cli.main import main
from claude_force.testing import RateLimit, faults


@pytest.fixture
def healthy(workplace):
    """A project in which nothing is wrong."""
    config = workplace / ".claude" / "claude.json"
    content = json.loads(config.read_text())
    del content["workflows"]["broken"]
    config.write_text(json.dumps(content))
    reviewer = workplace / ".claude" / "agents" / "code-reviewer.md"
    reviewer.write_text("---\nname: code-reviewer\n---\nYou review code.\n")
    return workplace


@pytest.fixture
def checks(healthy, capsys):
    """Runs the command and returns its findings by name, each with the exit code."""

    def run(*options):
        code = main(["doctor", "--json", *options])
        fields = json.loads(capsys.readouterr().out)
        assert fields["success"] is (code == 0)
        assert fields["problems"] == sum(one["state"] == "problem" for one in fields["checks"])
        return {one["name"]: (one["state"], one["text"], one["advice"]) for one in fields["checks"]}, code

    return run


def without_file_space(*arguments):
    """Runs a command that can't write a byte to a file."""
    import resource

    return subprocess.run(
        [sys.executable, "-m", "claude_force", *arguments],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        capture_output=True,
        text=True,
        timeout=60,
    )


def agent(project, name, text):
    (project / ".claude" / "agents" / f"{name}.md").write_text(text)


def test_healthy_project_is_ok(healthy, capsys):
    assert main(["doctor"]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("0 problems, 0 warnings\n")
    assert captured.err == ""
    assert "2 agents and 2 workflows" in captured.out
    assert "from ANTHROPIC_API_KEY" in captured.out


class TestHome:
    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
    def test_read_only_folder_is_a_problem(self, checks, clean_environment):
        clean_environment.chmod(0o500)
        try:
            state, text, advice = checks("--offline")[0]["cache"]
        finally:
            clean_environment.chmod(0o700)
        assert (state, text) == ("problem", "it can't be used: every answer is paid for")
        assert f"{clean_environment} can't be written" in advice

    def test_closed_folder_is_a_problem(self, checks, clean_environment, monkeypatch):
        look = os.stat

        def closed(path, *given, **more):
            if str(path).startswith(str(clean_environment)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return look(path, *given, **more)

        # For root no folder is closed.
        monkeypatch.setattr(os, "stat", closed)
        monkeypatch.setattr(os, "access", lambda *_: False)
        assert checks("--offline")[0]["cache"][0] == "problem"

    def test_file_in_place_of_folder(self, checks, clean_environment):
        (clean_environment / ".claude").write_text("")
        assert checks("--offline")[0]["cache"][0] == "problem"

    @pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are POSIX's")
    def test_full_disk_is_a_problem(self, healthy, clean_environment):
        (clean_environment / ".claude" / "cache").mkdir(parents=True)
        done = without_file_space("doctor", "--offline")
        assert "cache        it can't be used: every answer is paid for\n" in done.stdout
        assert "File too large" in done.stdout
        done = without_file_space("cache", "stats")
        assert done.returncode == 2
        assert "The cache can't be opened: File too large." in done.stderr


class TestEndpoint:
    def test_probe_is_free(self, checks, messages_server):
        found, code = checks()
        assert code == 0
        assert found["endpoint"][0] == "ok"
        assert messages_server.base_url in found["endpoint"][1]
        assert [one.path for one in messages_server.requests] == ["/v1/messages/count_tokens"]

    def test_probes_given_model(self, checks, messages_server):
        checks("--model", "opus")
        assert messages_server.requests[0].body["model"] == "claude-opus-5-5"

    def test_send_reads_rate_limits(self, checks, another_server):
        server = another_server(rate_limit=RateLimit(50, 40_000))
        found, code = checks("--send")
        assert code == 0
        assert [one.path for one in server.requests][-1] == "/v1/messages"
        assert "50 requests" in found["limits"][1]
        assert "40,000 input tokens" in found["limits"][1]

    def test_refused_key_is_a_problem(self, checks, another_server):
        another_server(faults=[faults.status(401)])
        found, code = checks()
        assert code == 1
        assert found["endpoint"][0] == "problem"
        assert "Set ANTHROPIC_API_KEY" in found["endpoint"][2]

    def test_closed_port_is_a_problem(self, checks, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
        found, code = checks()
        assert (found["endpoint"][0], code) == ("problem", 1)
        assert "ANTHROPIC_BASE_URL" in found["endpoint"][2]

    def test_missing_count_is_a_warning(self, checks, another_server):
        another_server(faults=[faults.status(404, message="no such path")])
        found, code = checks()
        assert (found["endpoint"][0], code) == ("warning", 0)
        assert "--send" in found["endpoint"][2]

    def test_failed_count_is_a_warning(self, checks, another_server):
        another_server(faults=[faults.status(500, message="CountTokens processing error")])
        found, code = checks("--send")
        assert (found["endpoint"][0], found["request"][0], code) == ("warning", "ok", 0)
        assert "CountTokens processing error" in found["endpoint"][1]

    def test_failed_request_is_a_problem(self, checks, another_server):
        another_server(faults=[faults.status(500), faults.status(500)])
        found, code = checks("--send")
        assert (found["endpoint"][0], found["request"][0], code) == ("problem", "problem", 1)

    def test_blocked_endpoint_is_not_asked(self, checks, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://paid.invalid")
        found, code = checks()
        assert (code, found["endpoint"][0]) == (0, "warning")
        assert "https://paid.invalid was not asked" in found["endpoint"][1]

    def test_sends_nothing_without_key(self, checks, messages_server, monkeypatch):
        monkeypatch.delenv("ANTHROPIC_API_KEY")
        found, code = checks()
        assert (found["credentials"][0], code) == ("problem", 1)
        assert "endpoint" not in found
        assert messages_server.requests == []

    def test_offline_loads_no_sdk(self, healthy, messages_server):
        source = (
            "import sys\nfrom claude_force.cli.main import main\ncode = main(['doctor', '--offline'])\n"
            "heavy = {'anthropic', 'asyncio', 'aiohttp', 'pydantic', 'rich'}\n"
            "print(sorted(heavy & set(sys.modules)), code)"
        )
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines()[-1] == "[] 0", done.stdout + done.stderr
        assert messages_server.requests == []


class TestMachine:
    def test_untested_python_is_a_warning(self, checks, monkeypatch):
        monkeypatch.setattr(sys, "version_info", (3, 99, 0, "final", 0))
        found, code = checks("--offline")
        assert (code, found["python"][0]) == (0, "warning")
        assert "the newest tested is 3.13" in found["python"][2]

    @pytest.mark.parametrize("missing", ["anthropic", "aiohttp"])
    def test_missing_package_is_named(self, checks, monkeypatch, missing):
        version = metadata.version

        def without(name):
            if name == missing:
                raise metadata.PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(metadata, "version", without)
        found, code = checks("--offline")
        assert (code, found["sdk"]) == (
            1,
            ("problem", f"{missing} is not installed", f"Run: pip install {missing}"),
        )


class TestFiles:
    @pytest.mark.parametrize(
        ("text", "fault", "mend"),
        [
            ("---\nname: bad\n", "no closing '---'", "Add it after the last field."),
            ("---\nname: bad\n---\n", "no instructions", "Write them below the front matter."),
            ("---\nname: code-reviewer\n---\nYou are.\n", "taken by", "Rename one."),
        ],
    )
    def test_names_fault_and_advice(self, checks, healthy, text, fault, mend):
        agent(healthy, "wrong", text)
        found, code = checks("--offline")
        state, said, advice = found["agent"]
        assert (state, code, advice) == ("problem", 1, mend)
        assert "agents/wrong.md" in said
        assert fault in said

    def test_loaded_with_fault_is_a_warning(self, checks, healthy):
        agent(healthy, "loose", "---\nname: loose\ndescription: Use: always\n---\nYou are loose.\n")
        found, code = checks("--offline")
        assert (found["agent"][0], code) == ("warning", 0)
        assert "quotes" in found["agent"][2]
        assert "3 agents" in found["project"][1]

    def test_of_notes_are_no_problem(self, checks, healthy):
        agent(healthy, "README", "How we write agents.\n")
        found, code = checks("--offline")
        assert (found["agent"][0], code) == ("warning", 0)

    def test_broken_claude_json_is_a_problem(self, checks, healthy):
        (healthy / ".claude" / "claude.json").write_text("{")
        found, code = checks("--offline")
        assert (found["project"][0], code) == ("problem", 1)
        assert "not valid JSON" in found["project"][1]
        assert found["cache"][0] == "ok"

    def test_unknown_agent_in_workflow(self, checks, healthy):
        (healthy / ".claude" / "claude.json").write_text('{"workflows": {"w": ["code-reviewer", "ghost"]}}')
        found, code = checks("--offline")
        assert (found["workflow"][0], code) == ("problem", 1)
        assert found["workflow"][1].startswith("w: step '2': Agent 'ghost' not found")

    def test_retired_model_names_successor(self, checks, healthy):
        agent(healthy, "old", "---\nname: old\nmodel: claude-3-opus-20240229\n---\nYou are old.\n")
        found, code = checks("--offline")
        assert (found["model"][0], code) == ("problem", 1)
        assert "it is the model of old" in found["model"][1]
        assert "claude-opus-5-5" in found["model"][2]

    def test_no_agents_suggests_init(self, tmp_path_factory, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
        assert main(["doctor", "--offline"]) == 0
        assert "claude-force init" in capsys.readouterr().out


class TestCache:
    @pytest.fixture
    def folder(self, healthy, clean_environment, capsys):
        assert main(["run", "agent", "python-expert", "--task", "x"]) == 0
        capsys.readouterr()
        return clean_environment / ".claude" / "cache"

    def test_its_signatures_are_checked(self, checks, folder):
        found, code = checks("--offline")
        assert code == 0
        assert found["cache"][1].startswith("1 answer")
        assert "all 1 that were checked are valid" in found["signatures"][1]

    def test_forged_entry_is_a_problem(self, checks, folder):
        with closing(sqlite3.connect(str(folder / "answers-1.db"))) as db:
            (sealed,) = db.execute("SELECT sealed FROM answer").fetchone()
            db.execute("UPDATE answer SET sealed = ?", (sealed[:-1] + b"!",))
            db.commit()
        for _ in range(2):
            found, code = checks("--offline")
            assert (found["signatures"][0], code) == ("problem", 1)
            assert "cache verify --remove" in found["signatures"][2]

    def test_readable_secret_is_a_problem(self, checks, folder):
        (folder / "secret").chmod(0o644)
        found, code = checks("--offline")
        assert (found["cache"][0], code) == ("problem", 1)
        assert "chmod 600" in found["cache"][2]

    def test_other_secret_is_a_warning(self, checks, folder, monkeypatch):
        monkeypatch.setenv("CLAUDE_CACHE_SECRET", "another secret of my own")
        found, code = checks("--offline")
        assert (found["signatures"][0], code) == ("warning", 0)

    def test_makes_no_cache(self, checks, clean_environment):
        found, _ = checks("--offline")
        assert "no answers yet" in found["cache"][1]
        assert not (clean_environment / ".claude").exists()


def test_unwritable_ledger_is_a_warning(checks, healthy):
    (healthy / ".claude" / "metrics").write_text("a file in the place of the folder")
    found, code = checks("--offline")
    assert (found["metrics"][0], code) == ("warning", 0)


def test_no_secret_is_shown(healthy, capsys, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-hunter2hunter2")
    monkeypatch.setenv("CLAUDE_CACHE_SECRET", "hunter2 of the cache")
    main(["doctor", "--send"])
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://me:hunter2hunter2@127.0.0.1:9")
    main(["doctor", "--send", "-v"])
    captured = capsys.readouterr()
    assert "127.0.0.1:9" in captured.out
    assert "hunter2" not in captured.out + captured.err
