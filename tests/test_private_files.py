"""What the package writes never goes through a link, and changes no mode of what the package did not make."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fleet import write_project

from claude_force import ResponseCache
from claude_force.cli.main import main
from claude_force.errors import CacheError
from claude_force.performance_tracker import PerformanceTracker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and FIFOs of POSIX")

RUN = ["run", "agent", "python-expert", "--task", "x", "--cache", "off"]
OWN = "alias ll='ls -l'\n"


@pytest.fixture
def bashrc(clean_environment):
    """A file outside of the project, with a mode that nothing of the package's has."""
    path = clean_environment / ".bashrc"
    path.write_text(OWN, encoding="utf-8")
    path.chmod(0o644)
    return path


def is_untouched(path):
    return (path.read_text(encoding="utf-8"), stat.S_IMODE(path.stat().st_mode)) == (OWN, 0o644)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


class TestLedger:
    @pytest.mark.parametrize("name", ["executions.jsonl", "lock"])
    def test_a_link_in_its_place_is_not_followed(self, workplace, bashrc, capsys, name):
        (workplace / ".claude" / "metrics").mkdir()
        (workplace / ".claude" / "metrics" / name).symlink_to(bashrc)
        assert main(RUN) == 0
        said = capsys.readouterr().err
        assert said.count("executions are not recorded") == 1
        assert f"metrics/{name} is a symbolic link" in said
        assert is_untouched(bashrc)

    def test_nor_is_a_dangling_one(self, workplace, clean_environment, capsys):
        (workplace / ".claude" / "metrics").mkdir()
        (workplace / ".claude" / "metrics" / "executions.jsonl").symlink_to(clean_environment / ".profile")
        assert main(RUN) == 0
        assert not (clean_environment / ".profile").exists()

    @pytest.mark.parametrize("part", [".claude", ".claude/metrics"])
    def test_nor_a_folder_on_the_way(self, workplace, clean_environment, capsys, part):
        outside = clean_environment / "outside"
        if part == ".claude":
            (workplace / ".claude").rename(outside)
        else:
            outside.mkdir(mode=0o755)
        before = sorted(outside.rglob("*")), mode(outside)
        (workplace / part).symlink_to(outside)
        main(RUN)
        assert (sorted(outside.rglob("*")), mode(outside)) == before

    def test_a_hard_link_is_refused(self, workplace, bashrc, capsys):
        (workplace / ".claude" / "metrics").mkdir()
        try:
            os.link(bashrc, workplace / ".claude" / "metrics" / "executions.jsonl")
        except OSError:
            pytest.skip("the home lies on another disk")
        assert main(RUN) == 0
        assert "hard link" in capsys.readouterr().err
        assert is_untouched(bashrc)

    @pytest.mark.parametrize("name", ["executions.jsonl", "lock"])
    def test_a_fifo_is_refused_and_nothing_waits(self, workplace, capsys, name):
        (workplace / ".claude" / "metrics").mkdir()
        os.mkfifo(workplace / ".claude" / "metrics" / name)
        assert main(RUN) == 0
        assert "is not a file but a FIFO" in capsys.readouterr().err

    def test_a_refused_run_writes_as_little(self, workplace, bashrc, capsys):
        (workplace / ".claude" / "metrics").mkdir()
        (workplace / ".claude" / "metrics" / "executions.jsonl").symlink_to(bashrc)
        assert main([*RUN, "--max-tokens", "-1"]) != 0
        assert is_untouched(bashrc)

    def test_the_mode_of_a_folder_that_was_there_stays(self, workplace, capsys):
        folder = workplace / ".claude" / "metrics"
        folder.mkdir()
        folder.chmod(0o755)
        (folder / "executions.jsonl").touch()
        (folder / "executions.jsonl").chmod(0o644)
        assert main(RUN) == 0
        assert (mode(folder), mode(folder / "executions.jsonl")) == (0o755, 0o644)
        assert (folder / "executions.jsonl").stat().st_size

    @pytest.mark.parametrize("name", ["executions.jsonl", "executions-000001.jsonl"])
    @pytest.mark.parametrize("kind", ["link", "fifo"])
    def test_it_is_not_read_through_a_link_or_a_fifo(self, workplace, bashrc, capsys, name, kind):
        (workplace / ".claude" / "metrics").mkdir()
        path = workplace / ".claude" / "metrics" / name
        if kind == "link":
            path.symlink_to(bashrc)
        else:
            os.mkfifo(path)
        for verb in (["metrics", "summary"], ["metrics", "export"], ["report", "-o", "page.html"]):
            assert main(verb) != 0
            assert name in capsys.readouterr().err

    def test_an_endless_file_in_its_place_ends(self, workplace, capsys):
        folder = workplace / ".claude" / "metrics"
        folder.mkdir()
        with (folder / "executions-000001.jsonl").open("wb") as file:
            file.truncate(1 << 40)
        assert main(["metrics", "summary", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["skipped_lines"] == 1

    def test_a_link_that_leads_to_the_project_is_the_users_own(self, tmp_path, monkeypatch):
        write_project(tmp_path / "real")
        (tmp_path / "mine").symlink_to(tmp_path / "real")
        with_link = tmp_path / "mine" / ".claude" / "metrics"
        tracker = PerformanceTracker(with_link)
        monkeypatch.chdir(tmp_path / "real")
        tracker.record(executed())
        tracker.close()
        assert (tmp_path / "real" / ".claude" / "metrics" / "executions.jsonl").stat().st_size


def executed():
    from test_performance_tracker import executed

    return executed()


class TestHome:
    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
    def test_the_users_folder_is_made_for_its_owner_alone(self, workplace, clean_environment, capsys, umask):
        before = os.umask(umask)
        try:
            assert main([*RUN[:-1], "use"]) == 0
        finally:
            os.umask(before)
        made = [clean_environment / ".claude", clean_environment / ".claude" / "cache"]
        assert [mode(path) for path in made] == [0o700, 0o700]

    def test_also_where_init_or_the_ledger_makes_it(self, clean_environment, monkeypatch, capsys):
        monkeypatch.chdir(clean_environment)
        before = os.umask(0o000)
        try:
            assert main(["init"]) == 0
            PerformanceTracker(clean_environment / ".claude" / "metrics").close()
        finally:
            os.umask(before)
        assert mode(clean_environment / ".claude") == 0o700

    def test_its_mode_stays_where_it_was_there(self, workplace, clean_environment, capsys):
        (clean_environment / ".claude").mkdir(mode=0o755)
        assert main(RUN) == 0
        assert mode(clean_environment / ".claude") == 0o755


class TestOutputs:
    def many(self, output):
        Path("tasks.jsonl").write_text('{"agent": "python-expert", "task": "x"}\n', encoding="utf-8")
        return main(["run", "many", "tasks.jsonl", "-o", str(output), "--cache", "off"])

    @pytest.mark.parametrize("way", ["out.jsonl", "dangling.jsonl", "folder/out.jsonl"])
    def test_a_bulk_run_follows_no_link_of_the_project(
        self, workplace, bashrc, capsys, messages_server, clean_environment, way
    ):
        (workplace / "out.jsonl").symlink_to(bashrc)
        (workplace / "dangling.jsonl").symlink_to(clean_environment / "new")
        (workplace / "folder").symlink_to(clean_environment)
        before = sorted(clean_environment.iterdir())
        assert self.many(way) == 2
        assert f"{workplace / way.partition('/')[0]} is a symbolic link" in capsys.readouterr().err
        assert is_untouched(bashrc)
        assert sorted(clean_environment.iterdir()) == before
        assert not messages_server.requests

    def test_nor_does_its_temporary_file(self, workplace, bashrc, another_server, capsys):
        from claude_force.testing import faults

        (workplace / "out.jsonl.tmp").symlink_to(bashrc)
        another_server(faults=[faults.status(400)])
        assert self.many("out.jsonl") == 3
        main(["run", "many", "tasks.jsonl", "-o", "out.jsonl", "--cache", "off", "--retry-failed"])
        assert "out.jsonl.tmp is a symbolic link" in capsys.readouterr().err
        assert is_untouched(bashrc)

    def test_a_fifo_as_the_output_is_refused(self, workplace, capsys):
        os.mkfifo(workplace / "out.jsonl")
        assert self.many("out.jsonl") == 2
        assert "is not a file but a FIFO" in capsys.readouterr().err

    def test_an_endless_file_as_the_output_is_refused(self, workplace, capsys):
        with (workplace / "out.jsonl").open("wb") as file:
            file.truncate(1 << 40)
        assert self.many("out.jsonl") == 2
        assert "line 1 is not a result" in capsys.readouterr().err

    @pytest.mark.parametrize("verb", ["report", "export"])
    def test_reports_and_exports_follow_none(self, workplace, bashrc, capsys, clean_environment, verb):
        assert main(RUN) == 0
        (workplace / "page").symlink_to(bashrc)
        (workplace / "folder").symlink_to(clean_environment)
        words = ["report"] if verb == "report" else ["metrics", "export"]
        for way in ("page", "folder/new"):
            assert main([*words, "-o", way]) == 2
            assert "is a symbolic link" in capsys.readouterr().err
        assert is_untouched(bashrc)
        assert not (clean_environment / "new").exists()

    @pytest.mark.parametrize("verb", ["agent", "workflow"])
    def test_the_file_of_an_answer_is_reached_by_none(
        self, workplace, bashrc, capsys, clean_environment, messages_server, verb
    ):
        (workplace / "answer.md").symlink_to(bashrc)
        (workplace / "folder").symlink_to(clean_environment)
        os.mkfifo(workplace / "fifo")
        words = ["python-expert"] if verb == "agent" else ["review"]
        for way in ("answer.md", "folder/new", "fifo"):
            assert main(["run", verb, *words, "--task", "x", "-o", way]) == 2
            assert str(workplace) in capsys.readouterr().err
        assert is_untouched(bashrc)
        assert not (clean_environment / "new").exists()
        assert not messages_server.requests
        assert main(["run", verb, *words, "--task", "x", "-o", "/dev/null"]) == 0
        assert main(["run", verb, *words, "--task", "x", "-o", "fresh"]) == 0
        assert (workplace / "fresh").stat().st_size

    def test_the_draft_of_a_report_follows_none(self, workplace, bashrc, capsys):
        assert main(RUN) == 0
        (workplace / f".page.html.{os.getpid()}").symlink_to(bashrc)
        assert main(["report", "-o", "page.html"]) == 2
        assert is_untouched(bashrc)

    def test_a_link_outside_of_the_project_is_the_users(self, workplace, tmp_path_factory, capsys):
        outside = tmp_path_factory.mktemp("outside")
        (outside / "link").symlink_to(outside / "real")
        assert self.many(outside / "link") == 0
        assert (outside / "link").is_symlink()
        assert (outside / "real").stat().st_size

    @pytest.mark.parametrize("part", [".claude", ".claude/agents", ".claude/claude.json"])
    def test_init_follows_none(self, tmp_path, monkeypatch, clean_environment, capsys, part):
        monkeypatch.chdir(tmp_path)
        place, outside = tmp_path / part, clean_environment / "outside"
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(outside)
        if part != ".claude/claude.json":
            outside.mkdir()
        main(["init"])
        assert not outside.exists() or not list(outside.iterdir())


class TestCache:
    def test_a_folder_of_the_project_that_is_a_link_is_refused(self, workplace, clean_environment):
        target = clean_environment / ".claude" / "precious"
        target.mkdir(parents=True)
        target.chmod(0o755)
        (workplace / "kept").symlink_to(target)
        for folder in ("kept", "kept/inner"):
            with pytest.raises(CacheError, match="is a symbolic link"):
                ResponseCache(cache_dir=folder)
        assert mode(target) == 0o755
        assert not list(target.iterdir())

    @pytest.mark.parametrize("name", ["secret", "lock", "generation", "leases", "answers-1.db"])
    @pytest.mark.parametrize("kind", ["link", "fifo"])
    def test_none_of_its_files_is_followed(self, workplace, bashrc, name, kind):
        folder = workplace / "kept"
        folder.mkdir(mode=0o700)
        if kind == "link":
            (folder / name).symlink_to(bashrc)
        else:
            os.mkfifo(folder / name)
        try:
            with ResponseCache(cache_dir=folder) as cache:
                cache.set("agent", "task", "model", "answer")
                cache.acquire_lease("agent", "task", "model")
        except (CacheError, OSError) as error:
            assert name in str(error)
        assert is_untouched(bashrc)

    @pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
    def test_nor_those_that_sqlite_puts_beside_it(self, workplace, bashrc, suffix):
        folder = workplace / "kept"
        folder.mkdir(mode=0o700)
        (folder / f"answers-1.db{suffix}").symlink_to(bashrc)
        with ResponseCache(cache_dir=folder) as cache:
            cache.set("agent", "task", "model", "answer")
        assert is_untouched(bashrc)


class TestPrograms:
    def test_no_module_of_the_project_is_imported_by_a_helper(self, workplace, capfd):
        for name in ("json", "claude_force", "pickle"):
            (workplace / f"{name}.py").write_text("open('PWNED', 'w')\n", encoding="utf-8")
        folder = workplace / ".claude" / "metrics"
        folder.mkdir()
        for number in range(4):
            with (folder / f"executions-{number:06d}.jsonl").open("wb") as file:
                file.truncate(200_000_000)
        program = "import os, sys; sys.path.remove(''); from claude_force.cli.main import main; main()"
        path = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        for words in (["metrics", "summary"], ["demo", "--calls", "1"]):
            subprocess.run([sys.executable, "-c", program, *words], env=path, check=False, timeout=60)
        assert not (workplace / "PWNED").exists()
