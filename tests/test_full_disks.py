"""Results files on full disks, and ones that are moved: nothing is sent that can't be written."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fleet import until, write_project

from claude_force.bulk.results_file import OutputDisturbedError, ResultsFile
from claude_force.bulk.task_file import TaskRow
from claude_force.testing import MessagesServer
from claude_force.types import AgentResult

ROWS = 300


@pytest.fixture
def server():
    with MessagesServer(time_to_first_token=0.05) as running:
        yield running


@pytest.fixture
def project(tmp_path):
    write_project(tmp_path)
    lines = (json.dumps({"agent": "python-expert", "task": f"Task {number}"}) for number in range(ROWS))
    (tmp_path / "tasks.jsonl").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def disk(tmp_path):
    """Mounts a file system of so many KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(kib):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)], capture_output=True
        )
        if done.returncode:
            pytest.skip("only root can mount a small disk")
        mounted.append(folder)
        return folder

    yield mount
    for one in mounted:
        subprocess.run(["umount", "-l", str(one)], check=True)


def start(project, server, output, *options, form=("--json",)):
    arguments = ["run", "many", "tasks.jsonl", "-o", str(output), "--max-concurrent", "4", *form, *options]
    return subprocess.Popen(
        [sys.executable, "-m", "claude_force", *arguments],
        cwd=project,
        env={**os.environ, **server.environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, json.loads(out), err


def results(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.mark.timeout(180)
class TestFullDisk:
    def test_full_disk_sends_nothing(self, project, server, disk):
        folder = disk(64)
        (folder / "hog").write_bytes(b"x" * 60 * 1024)
        for _ in range(3):
            code, report, _ = ended(start(project, server, folder / "out.jsonl", "--budget", "0.30"))
            assert (code, report["cost"], report["ran_now"]) == (1, 0.0, 0)
            assert "there is no room for an answer" in report["error"]
        assert server.requests == []
        assert sorted(path.name for path in folder.iterdir()) == ["hog", "out.jsonl"]

    @pytest.mark.parametrize("kib", [64, 100, 160])
    def test_writes_every_answer(self, project, server, disk, kib):
        output = disk(kib) / "out.jsonl"
        code, report, _ = ended(start(project, server, output))
        written = results(output)
        assert (code, report["lost"]) == (1, 0)
        assert len(server.requests) == len(written) == report["ran_now"] < ROWS
        assert report["cost"] == pytest.approx(sum(one["cost"] or 0 for one in written))

    def test_resumes_with_disk_space(self, project, server, disk):
        folder = disk(400)
        (folder / "hog").write_bytes(b"x" * 300 * 1024)
        code, first, _ = ended(start(project, server, folder / "out.jsonl"))
        assert (code, first["lost"]) == (1, 0)
        (folder / "hog").unlink()
        code, second, err = ended(start(project, server, folder / "out.jsonl"))
        assert first["ran_now"] + second["ran_now"] == second["succeeded"], err
        assert len(server.requests) == second["succeeded"]

    def test_disk_filled_by_others_ends_run(self, project, disk):
        folder = disk(2000)
        with MessagesServer(time_to_first_token=0.3) as server:
            process = start(project, server, folder / "out.jsonl")
            until(lambda: len(server.requests) >= 12)
            # Whatever is given back is taken at once.
            with (folder / "hog").open("wb", buffering=0) as hog:
                while process.poll() is None:
                    with contextlib.suppress(OSError):
                        hog.write(b"x" * 4096)
                    time.sleep(0.0005)
            code, report, _ = ended(process)
            assert (code, report["lost"]) == (1, 0)
            assert len(results(folder / "out.jsonl")) == len(server.requests) < ROWS


@pytest.mark.timeout(180)
class TestOutputThatIsTakenAway:
    @pytest.mark.parametrize("way", ["removed", "replaced"])
    def test_moved_output_loses_no_answer(self, project, server, way):
        output = project / "out.jsonl"
        process = start(project, server, output)
        until(lambda: output.exists() and output.read_text().count("\n") >= 5)
        if way == "removed":
            output.unlink()
        else:
            (project / "other").write_text("not yours\n")
            (project / "other").replace(output)
        code, report, _ = ended(process)
        assert code == 1
        assert "was removed or replaced while the run went on" in report["error"]
        (saved,) = project.glob("out.jsonl.saved-*")
        assert saved.name in report["error"]
        assert len(results(saved)) == len(server.requests) < ROWS
        if way == "replaced":
            assert output.read_text() == "not yours\n"
        saved.replace(output)
        code, report, _ = ended(start(project, server, output))
        assert (code, report["succeeded"]) == (0, ROWS)
        assert len(server.requests) == ROWS

    @pytest.mark.parametrize("seconds", [0.0, 0.15])
    def test_is_told_soon_or_at_the_end(self, tmp_path, seconds):
        path, result = tmp_path / "out.jsonl", AgentResult("a", True, cost=0.5)
        with ResultsFile(path) as output:
            output.write(TaskRow(0, "a", "task"), "key", result)
            path.unlink()
            time.sleep(seconds)
            with pytest.raises(OutputDisturbedError):
                output.write(TaskRow(1, "a", "task"), "key", result)
                assert not seconds
                # What a run asks when its last row has ended.
                output.check()
        (saved,) = tmp_path.glob("out.jsonl.saved-*")
        assert saved.read_text().count("\n") == 2

    @pytest.mark.parametrize(("size", "goes_on"), [(0, True), (100, True), (None, False)])
    def test_that_is_changed_is_an_error(self, project, server, size, goes_on):
        output = project / "out.jsonl"
        process = start(project, server, output)
        until(lambda: output.exists() and output.read_text().count("\n") >= 5)
        if size is None:
            with output.open("a") as file:
                file.write("not yours")
        else:
            os.truncate(output, size)
        code, report, _ = ended(process)
        assert code == 1
        assert "was changed by another program while the run went on" in report["error"]
        assert len(server.requests) < ROWS
        lines = output.read_text().splitlines()
        assert lines.count("not yours") == (size is None)
        whole = [json.loads(line) for line in lines if line != "not yours"]
        assert len({row["index"] for row in whole}) == len(whole) > 0
        code, _, err = ended(start(project, server, output)) if goes_on else (0, None, "")
        assert (code, err.count("no result")) == (0, 0)
        assert len(server.requests) == (ROWS if goes_on else len(whole))

    def test_says_what_goes_on(self, project, server):
        output = project / "out.jsonl"
        process = start(project, server, output, form=())
        until(lambda: output.exists() and output.read_text().count("\n") >= 5)
        output.unlink()
        _, err = process.communicate(timeout=120)
        assert f"to {output}, and the same command goes on" in err
        assert "where this one ended" not in err

    def test_two_runs_on_one_output(self, project, server):
        first = start(project, server, "out.jsonl")
        until(lambda: server.requests)
        second = start(project, server, "out.jsonl")
        assert "Another run is writing" in second.communicate(timeout=60)[0]
        assert second.returncode == 2
        code, report, _ = ended(first)
        assert (code, report["succeeded"], len(server.requests)) == (0, ROWS, ROWS)

    def test_leaves_no_extra_files(self, project, server):
        code, _, _ = ended(start(project, server, "out.jsonl", "--limit", "5"))
        assert (code, sorted(path.name for path in project.glob("out*"))) == (0, ["out.jsonl"])
