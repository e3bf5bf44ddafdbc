"""docs/scaling.md: its examples run with a real Postgres, and its claims on roles and services are tested."""

import configparser
import json
import shlex
import shutil
import subprocess

import pytest
from extras import missing

if missing("durable"):
    pytest.skip(missing("durable"), allow_module_level=True)

import psycopg
import yaml
from durable import WorkerProcess
from pages import ROOT, Forge, blocks_of, check, examples_of, walk

from claude_force.cli.main import main
from claude_force.cli.parser import parse

PAGE = ROOT / "docs" / "scaling.md"
OWNER, USER = "claude_owner", "claude_runs_user"


def shown(language):
    return [block.text for block in blocks_of(PAGE) if block.language == language]


@pytest.fixture(scope="module")
def walked(postgres, tmp_path_factory):
    """How each example ended."""
    url = postgres.new_database()
    with Forge() as forge:
        yield walk(PAGE, tmp_path_factory.mktemp("scaling"), forge, CLAUDE_FORCE_DATABASE_URL=url)
    postgres.drop(url)


@pytest.mark.parametrize("number", range(len(examples_of(PAGE))))
def test_an_example_runs_as_it_is_written(walked, number):
    check(walked[number])


class TestRoles:
    @pytest.fixture
    def urls(self, postgres, monkeypatch):
        """Of the owner and of those who run things, after the statements of the page."""
        name = postgres.new_database().rpartition("/")[2]
        postgres.drop(postgres.dsn(name))
        by_admin, by_owner = (text.replace("DATABASE claude ", f"DATABASE {name} ") for text in shown("sql"))
        for statement in by_admin.split(";\n"):
            if statement.strip():
                postgres.sql("postgres", statement)
        base = postgres.dsn(name).rpartition("@")[2]
        owner, user = f"postgresql://{OWNER}:OWNER_PASSWORD@{base}", f"postgresql://{USER}:PASSWORD@{base}"
        monkeypatch.setenv("CLAUDE_FORCE_DATABASE_URL", owner)
        assert main(["runs", "list", "--durable"]) == 0
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute(by_owner)
        yield owner, user
        postgres.drop(postgres.dsn(name))
        for role in (OWNER, USER):
            postgres.sql("postgres", f"DROP ROLE {role}")

    def test_runner_role_is_sufficient(self, urls, workplace, messages_server, tmp_path, capsys):
        _, user = urls
        tasks = [json.dumps({"agent": "python-expert", "task": f"Task {number}"}) for number in range(10)]
        (workplace / "tasks.jsonl").write_text("\n".join(tasks))
        words = ["run", "many", "tasks.jsonl", "-o", "out.jsonl", "--database", user, "--json"]
        limits = ["--rpm", "6000", "--budget", "1", "--price", "claude-sonnet-5-5=3,15"]
        first = WorkerProcess(user, "w1", tmp_path)
        try:
            assert main([*words, *limits]) == 0, first.text()
            run = json.loads(capsys.readouterr().out)["run_id"]
            assert main(["runs", "cancel", run, "--database", user]) == 0
            first.kill()
            first = WorkerProcess(user, "w1", tmp_path)
            assert main([*words, "--no-resume", "--cache", "off"]) == 0, first.text()
            assert first.stop() == 0
        finally:
            first.kill()
        assert "denied" not in first.text() and "must be owner" not in first.text()

    def test_runner_role_cannot_change_schema(self, urls):
        for statement in (
            "DROP TABLE claude_force.cf_calls",
            "ALTER TABLE claude_force.cf_calls ADD COLUMN more text",
            "CREATE TABLE claude_force.more (id int)",
            "CREATE TABLE public.more (id int)",
            "CREATE SCHEMA more",
            "CREATE ROLE more",
        ):
            with psycopg.connect(urls[1], autocommit=True) as connection:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)


class TestService:
    @pytest.fixture
    def unit(self):
        (text,) = shown("ini")
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.optionxform = str
        parser.read_string(text)
        return parser

    def test_unit_command_parses(self, unit):
        program, *words = shlex.split(unit["Service"]["ExecStart"])
        assert program.endswith("/claude-force")
        args = parse(words)
        assert args.verb == "worker"
        assert args.grace < int(unit["Service"]["TimeoutStopSec"])

    @pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
    def test_systemd_finds_no_fault_in_the_unit(self, tmp_path):
        (text,) = shown("ini")
        path = tmp_path / "claude-force-worker@.service"
        path.write_text(text.replace("/opt/claude-force/bin/claude-force", "/bin/true"))
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        reported = [line for line in (done.stdout + done.stderr).splitlines() if path.name in line]
        assert not reported

    def test_container_command_parses(self):
        (text,) = shown("dockerfile")
        found = dict(line.split(" ", 1) for line in text.splitlines())
        assert list(found) == ["FROM", "COPY", "RUN", "USER", "STOPSIGNAL", "ENTRYPOINT", "CMD"]
        program, *words = json.loads(found["ENTRYPOINT"]) + json.loads(found["CMD"])
        assert (program, parse(words).verb) == ("claude-force", "worker")

    def test_manifest_command_parses(self):
        (text,) = shown("yaml")
        found = {one["kind"]: one for one in yaml.safe_load_all(text)}
        assert set(found) == {"StatefulSet", "Service", "Secret"}
        spec = found["StatefulSet"]["spec"]
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        args = parse(["worker", *container["args"]])
        assert args.grace < pod["terminationGracePeriodSeconds"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
        assert found["Service"]["spec"]["selector"] == spec["selector"]["matchLabels"]
        assert spec["serviceName"] == found["Service"]["metadata"]["name"]
        assert container["envFrom"][0]["secretRef"]["name"] == found["Secret"]["metadata"]["name"]
        assert {"CLAUDE_FORCE_DATABASE_URL", "CLAUDE_CACHE_SECRET"} <= set(found["Secret"]["stringData"])
