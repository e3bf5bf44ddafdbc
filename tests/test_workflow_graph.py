"""The runner over simulated calls, in virtual time, compared with a model."""

import asyncio
import time
from dataclasses import dataclass, replace

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as some
from virtual_time import LoopClock, run_virtually

from claude_force.errors import (
    BadReplyError,
    CancelledCallError,
    DeadlineExceededError,
    InvalidTaskError,
    RequestRefusedError,
    ServerError,
)
from claude_force.types import AgentResult
from claude_force.workflow import Step, Workflow
from claude_force.workflow.models import Condition, ForEach
from claude_force.workflow.runner import RunConfig, WorkflowRunner
from claude_force.workflow.step_calls import StepAnswer

OK, TRANSIENT, REFUSED = "ok", "transient", "refused"


class Simulated:
    """Answers a part after its time. `ways` has for each step the seconds of each part, and the fate of each
    of a part's calls; an answer tells the task that it was given."""

    def __init__(self, ways):
        self._ways = ways
        self.began, self.ended, self.calls = {}, {}, {}
        self.in_flight = self.most_in_flight = 0

    async def run(self, part):
        place = (part.step.id, part.number)
        way = self._ways[part.step.id]
        fate = way.fates[min(self.calls.get(place, 0), len(way.fates) - 1)]
        self.calls[place] = self.calls.get(place, 0) + 1
        self.began.setdefault(place, LoopClock().now())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(way.seconds[part.number % len(way.seconds)])
        finally:
            self.in_flight -= 1
        self.ended[place] = LoopClock().now()
        return StepAnswer(result_of(part, fate, way.word))


def result_of(part, fate, word="yes"):
    if fate == OK:
        return AgentResult(part.step.agent, True, f"{word}:{part.step.id}[{part.task}]")
    error = ServerError("it broke") if fate == TRANSIENT else RequestRefusedError("no")
    return AgentResult(part.step.agent, False, errors=[str(error)], error=error)


@dataclass(frozen=True)
class Way:
    seconds: tuple = (1,)
    fates: tuple = (OK,)
    word: str = "yes"


def setting(tmp_path=None, **more):
    ways = {"task": "T", "inputs": {}, "root": tmp_path, "max_calls": 1_000, "now": LoopClock().now, **more}
    return RunConfig(**ways)


def graph(*steps, **more):
    return Workflow("w", tuple(steps), **more)


def carried_out(workflow, ways, tmp_path=None, **more):
    """Returns the results by step, the simulated server, and the seconds that the run took."""
    server = Simulated({step.id: ways.get(step.id, Way()) for step in workflow.steps})

    async def work():
        runner = WorkflowRunner(workflow, setting(tmp_path, **more), server.run)
        return await runner.run(), runner.elapsed

    results, elapsed = run_virtually(work())
    return {one.id: one for one in results}, server, elapsed


async def ran(workflow, setting, run):
    """Runs a runner made in the event loop, whose clock it uses."""
    return await WorkflowRunner(workflow, setting, run).run()


@some.composite
def graphs(draw, most=8, fates=False, lists=False, conditions=False, distinct=False):
    """Draws a workflow and the behaviour of each step. `distinct`: no two steps end at the same time."""
    steps, ways = [], {}
    for number in range(draw(some.integers(1, most))):
        before = [step.id for step in steps]
        needs = draw(some.lists(some.sampled_from(before), unique=True, max_size=4)) if before else []
        step = Step(
            f"s{number}", "x", "|".join(["${task}", *(f"${{steps.{one}}}" for one in needs)]), tuple(needs)
        )
        way = Way(
            (4**number,) if distinct else tuple(draw(some.lists(some.integers(1, 6), min_size=1, max_size=3)))
        )
        if fates:
            step = replace(step, retries=draw(some.integers(0, 2)), optional=draw(some.booleans()))
            way = replace(
                way,
                fates=tuple(
                    draw(some.lists(some.sampled_from([OK, OK, TRANSIENT, REFUSED]), min_size=1, max_size=3))
                ),
            )
        if conditions and needs and draw(some.booleans()):
            test = draw(some.sampled_from(["contains", "not_contains"]))
            step = replace(step, when=(Condition(f"steps.{draw(some.sampled_from(needs))}", test, "yes:"),))
        if lists and draw(some.booleans()):
            step = replace(step, foreach=ForEach("list", tuple("abc"[: draw(some.integers(0, 3))])))
        ways[step.id] = replace(way, word=draw(some.sampled_from(["yes", "no"])))
        steps.append(step)
    # What is written first need not run first.
    return graph(*draw(some.permutations(steps))), ways


class Model:
    """The expected results of a graph, by plain recursion over its dependencies."""

    def __init__(self, workflow, ways, fail_fast=False):
        self._fail_fast = fail_fast
        self.status, self.calls, self.end, self.output = {}, {}, {}, {}
        self._optional = {step.id: step.optional for step in workflow.steps}
        for step in sorted(workflow.steps, key=lambda one: int(one.id[1:])):
            self._step(step, ways[step.id])

    def _step(self, step, way):
        ready = max((self.end[one] for one in step.dependencies), default=0)
        fate, calls = self._tries(step, way)
        if self._is_skipped(step, ready):
            self._becomes(step, "skipped", 0, ready, "")
        else:
            parts = 1 if step.foreach is None else len(step.foreach.value)
            times = [way.seconds[number % len(way.seconds)] * calls for number in range(parts)]
            status = "succeeded" if fate == OK or not parts else "failed"
            self._becomes(
                step, status, calls * parts, ready + max(times, default=0), self._says(step, way, status)
            )

    def _is_skipped(self, step, ready):
        if any(self.status[one] != "succeeded" and not self._optional[one] for one in step.dependencies):
            return True
        failed = [one for one in self.status if self.status[one] == "failed" and not self._optional[one]]
        if self._fail_fast and any(self.end[one] <= ready for one in failed):
            return True
        return any(
            ("yes:" in self.output[one.source[len("steps.") :]]) != (one.test == "contains")
            for one in step.when
        )

    def _tries(self, step, way):
        calls = 0
        while True:
            fate = way.fates[min(calls, len(way.fates) - 1)]
            calls += 1
            if fate != TRANSIENT or calls > step.retries:
                return fate, calls

    def _says(self, step, way, status):
        if status == "failed":
            return ""
        answer = f"{way.word}:{step.id}[{'|'.join(['T', *(self.output[one] for one in step.dependencies)])}]"
        if step.foreach is None:
            return answer
        return "\n\n".join(f'<answer item="{item}">\n{answer}\n</answer>' for item in step.foreach.value)

    def _becomes(self, step, status, calls, end, output):
        self.status[step.id], self.calls[step.id] = status, calls
        self.end[step.id], self.output[step.id] = end, output


class TestTime:
    @given(graphs(lists=True))
    def test_starts_when_dependencies_end(self, drawn):
        workflow, ways = drawn
        results, server, _ = carried_out(workflow, ways)
        for step in workflow.steps:
            result = results[step.id]
            assert result.began == max((results[one].ended for one in step.dependencies), default=0)
            for number in range(len(result.results)):
                assert server.began[step.id, number] == result.began
            ends = [server.ended[step.id, number] for number in range(len(result.results))]
            assert result.ended == max(ends, default=result.began)

    @given(graphs(lists=True))
    def test_elapsed_is_the_critical_path(self, drawn):
        workflow, ways = drawn
        _, _, elapsed = carried_out(workflow, ways)
        assert elapsed == max(Model(workflow, ways).end.values())

    @given(graphs(lists=True), some.integers(1, 3))
    def test_uses_all_slots_and_no_more(self, drawn, room):
        workflow, ways = drawn
        results, server, elapsed = carried_out(workflow, ways, max_calls=room)
        assert server.most_in_flight <= room
        assert all(one.success for one in results.values())
        for step in workflow.steps:
            assert all(results[step.id].began >= results[one].ended for one in step.dependencies)
        work = sum(server.ended[place] - server.began[place] for place in server.began)
        # The bound that holds for every schedule that leaves no room idle while there is work.
        assert work / room <= elapsed <= work / room + max(Model(workflow, ways).end.values())

    @given(graphs())
    def test_results_are_in_topological_order(self, drawn):
        workflow, _ = drawn
        positions = {}

        async def run(part):
            positions[part.step.id] = part.position
            return StepAnswer(result_of(part, OK))

        results = run_virtually(ran(workflow, setting(), run))
        order = [one.id for one in results]
        assert sorted(order) == sorted(step.id for step in workflow.steps)
        assert all(
            order.index(one) < order.index(step.id) for step in workflow.steps for one in step.dependencies
        )
        assert positions == {identity: number for number, identity in enumerate(order, start=1)}


class TestModel:
    @given(graphs(fates=True, lists=True, conditions=True))
    def test_matches_recursive_model(self, drawn):
        workflow, ways = drawn
        results, _, elapsed = carried_out(workflow, ways)
        model = Model(workflow, ways)
        assert {one.id: one.status for one in results.values()} == model.status
        assert {one.id: len(one.tries) for one in results.values()} == model.calls
        assert {one.id: one.output for one in results.values()} == model.output
        assert elapsed == max(model.end.values())

    @given(graphs(fates=True, conditions=True, distinct=True))
    def test_fail_fast_starts_no_further_step(self, drawn):
        workflow, ways = drawn
        results, _, _ = carried_out(workflow, ways, fail_fast=True)
        assert {one.id: one.status for one in results.values()} == Model(
            workflow, ways, fail_fast=True
        ).status

    @given(graphs(fates=True, conditions=True))
    def test_only_unsuccessful_steps_have_reason(self, drawn):
        workflow, ways = drawn
        results, _, _ = carried_out(workflow, ways)
        for one in results.values():
            assert (one.reason is None) == one.success
            assert (one.began is None) == (one.status == "skipped")


class TestSkipping:
    def reasons(self, *steps, fates=(REFUSED,), word="yes", **more):
        results, _, _ = carried_out(graph(*steps), {"a": Way(fates=fates, word=word)}, **more)
        return {one.id: one.reason for one in results.values()}

    def test_skips_indirect_dependents(self):
        steps = [
            Step("a", "x"),
            Step("b", "x", None, ("a",)),
            Step("c", "x", None, ("b", "a")),
            Step("d", "x"),
        ]
        reasons = self.reasons(*steps)
        assert reasons["a"].startswith("no. Correct the request")
        assert reasons["b"] == "it waits for 'a', which failed"
        assert reasons["c"] == "it waits for 'b', which was skipped; it waits for 'a', which failed"
        assert reasons["d"] is None

    def test_optional_step_may_fail(self):
        steps = [Step("a", "x", optional=True), Step("b", "x", "<${steps.a}>", ("a",))]
        results, _, _ = carried_out(graph(*steps), {"a": Way(fates=(REFUSED,))})
        assert results["b"].output == "yes:b[<>]"

    def test_names_failed_condition(self):
        steps = [
            Step("a", "x"),
            Step("b", "x", None, ("a",), when=(Condition("steps.a", "contains", "yes"),)),
        ]
        assert self.reasons(*steps, fates=(OK,), word="no")["b"] == "it runs only when steps.a contains 'yes'"

    @pytest.mark.parametrize(("language", "status"), [("French", "succeeded"), ("german", "skipped")])
    def test_condition_on_an_input(self, language, status):
        step = Step("a", "x", when=(Condition("inputs.language", "equals", "FRENCH"),))
        results, _, _ = carried_out(
            graph(step, inputs={"language": "German"}), {}, inputs={"language": language}
        )
        assert results["a"].status == status

    def test_fail_fast_names_first_failure(self):
        steps = [Step("a", "x"), Step("slow", "x"), Step("late", "x", None, ("slow",))]
        results, _, _ = carried_out(
            graph(*steps), {"a": Way(fates=(REFUSED,)), "slow": Way((5,))}, fail_fast=True
        )
        assert results["slow"].success
        assert results["late"].reason == "'a' failed, and this workflow ends at the first failure"

    def test_names_first_failed_part(self):
        step = Step("a", "x", "${item}", foreach=ForEach("list", ("one", "two", "three")))

        async def run(part):
            return StepAnswer(result_of(part, REFUSED if part.number else OK))

        (result,) = run_virtually(ran(graph(step), setting(), run))
        assert result.reason.startswith("2 of 3 parts failed, the first of them two: no. ")
        assert result.output == '<answer item="one">\nyes:a[one]\n</answer>'


class TestRetries:
    @pytest.mark.parametrize(
        ("error", "again"),
        [
            (ServerError("x"), True),
            (BadReplyError("x"), True),
            (DeadlineExceededError("x"), True),
            (RequestRefusedError("x"), False),
            (InvalidTaskError("x"), False),
        ],
    )
    def test_retries_temporary_failures(self, error, again):
        tries = []

        async def run(part):
            tries.append(AgentResult("x", False, errors=[str(error)], error=error))
            return StepAnswer(tries[-1])

        (result,) = run_virtually(ran(graph(Step("a", "x", retries=2)), setting(), run))
        assert len(tries) == (3 if again else 1)
        assert result.tries == tuple(tries)
        assert result.results == (tries[-1],)

    def test_remote_cancel_starts_nothing_more(self):
        asked = []

        async def run(part):
            asked.append((part.step.id, part.number))
            await asyncio.sleep(1)
            error = CancelledCallError("The run was cancelled")
            return StepAnswer(AgentResult("x", False, errors=[str(error)], error=error, cost=0.5))

        steps = (
            Step("many", "x", foreach=ForEach("list", tuple("abcde")), retries=3, optional=True),
            Step("after", "x", dependencies=("many",)),
        )
        many, after = run_virtually(ran(graph(*steps), setting(max_calls=2), run))
        assert asked == [("many", 0), ("many", 1)]
        assert all(isinstance(one.error, CancelledCallError) for one in many.results)
        assert many.cost == 1.0 and len(many.results) == 5
        assert (after.status, after.reason) == ("skipped", "the run was cancelled where its calls are made")

    def test_invalid_task_fails_its_part(self):
        async def run(part):
            if part.number == 1:
                raise InvalidTaskError("Task is empty")
            return StepAnswer(result_of(part, OK))

        step = Step("a", "x", "${item}", foreach=ForEach("list", ("one", "two", "three")))
        (result,) = run_virtually(ran(graph(step), setting(), run))
        assert [one.success for one in result.results] == [True, False, True]
        assert result.results[1].metadata["workflow_name"] == "w"
        assert result.results[1].metadata["workflow_position"] == 1


class TestForEach:
    def over(self, source, tmp_path, task="${item}", answer=None, **more):
        """Returns the result of a step with this `foreach`; `answer` is that of the step before it."""
        asked = []

        async def run(part):
            if part.step.id == "before":
                return StepAnswer(AgentResult("x", True, answer))
            asked.append(part)
            return StepAnswer(result_of(part, OK))

        steps = [Step("before", "x"), Step("each", "x", task, ("before",), foreach=source)]
        results = run_virtually(ran(graph(*steps), setting(tmp_path, **more), run))
        return results[1], [part.task for part in sorted(asked, key=lambda one: one.number)]

    def test_files_of_patterns_sorted(self, tmp_path):
        (tmp_path / "src" / "deep").mkdir(parents=True)
        for name in ("b.py", "src/a.py", "src/deep/c.py", "d.md"):
            (tmp_path / name).write_text(f"text of {name}", encoding="utf-8")
        source = ForEach("files", ("**/*.py", "src/*.py"))
        result, tasks = self.over(source, tmp_path, "${item}: ${item.text}")
        assert tasks == [f"{name}: text of {name}" for name in ("b.py", "src/a.py", "src/deep/c.py")]
        assert result.labels == ("b.py", "src/a.py", "src/deep/c.py")

    def test_folder_named_like_a_pattern(self, tmp_path):
        root = tmp_path / "a[b]*"
        root.mkdir()
        (root / "x.py").touch()
        assert self.over(ForEach("files", "*.py"), root)[1] == ["x.py"]

    def test_strips_byte_order_mark(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9\r\n")
        assert self.over(ForEach("files", "*.txt"), tmp_path, "${item.text}")[1] == ["café\r\n"]

    def test_binary_file_fails_its_part(self, tmp_path):
        (tmp_path / "a.bin").write_bytes(b"\xff\xfe\x00")
        (tmp_path / "b.bin").write_bytes(b"text")
        result, tasks = self.over(ForEach("files", "*.bin"), tmp_path, "${item.text}")
        assert tasks == ["text"]
        assert (
            result.reason
            == "1 of 2 parts failed, the first of them a.bin: a.bin can't be read: it is not UTF-8."
        )

    def test_unmatched_pattern_fails_step(self, tmp_path):
        result, tasks = self.over(ForEach("files", ("*.py", "*.md")), tmp_path)
        assert (result.status, result.reason) == ("failed", f"No file below {tmp_path} matches *.py, *.md.")
        assert tasks == []

    @pytest.mark.parametrize("kind", ["files", "lines"])
    @pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "link/secret", "a\0b"])
    def test_reads_nothing_outside_project(self, tmp_path, kind, name):
        root = tmp_path / "project"
        (root / "a").mkdir(parents=True)
        (tmp_path / "secret").write_text("secret", encoding="utf-8")
        (root / "link").symlink_to(tmp_path)
        result, tasks = self.over(ForEach(kind, name), root)
        assert tasks == []
        shown = name.replace("\0", "\\x00")
        assert result.reason.startswith(f"{shown} is not inside the project {root}")

    def test_link_out_fails_its_part(self, tmp_path):
        root = tmp_path / "project"
        root.mkdir()
        (root / "a.py").touch()
        (tmp_path / "secret.py").touch()
        (root / "b.py").symlink_to(tmp_path / "secret.py")
        result, tasks = self.over(ForEach("files", "*.py"), root)
        assert tasks == ["a.py"]
        assert "b.py is a link that leads outside" in result.reason

    def test_lines_of_a_file(self, tmp_path):
        (tmp_path / "a.txt").write_bytes("one\r\n\n  \n two \u2028 still\x0ctwo\nthree".encode())
        _, tasks = self.over(ForEach("lines", "a.txt"), tmp_path)
        assert tasks == ["one", " two \u2028 still\x0ctwo", "three"]

    def test_missing_file_of_lines_fails_step(self, tmp_path):
        result, _ = self.over(ForEach("lines", "a.txt"), tmp_path)
        assert result.reason == "a.txt can't be read: No such file or directory. Check the name."

    @pytest.mark.parametrize(
        "answer",
        [
            '["a", "b"]',
            '  ["a",\n"b"]\n',
            'Here it is:\n```json\n["a", "b"]\n```\nThat is all.',
            '```\n["a", "b"]\n```',
            'The list is ["a", "b"], as you asked.',
        ],
    )
    def test_list_of_an_answer(self, tmp_path, answer):
        result, tasks = self.over(ForEach("step", "before"), tmp_path, answer=answer)
        assert tasks == ["a", "b"]
        assert result.labels == ("a", "b")

    @pytest.mark.parametrize("answer", ["none", '{"a": 1}', "[1, 2", "] [", "[" * 100_000, "see [1] and [2]"])
    def test_answer_without_list_fails_step(self, tmp_path, answer):
        result, tasks = self.over(ForEach("step", "before"), tmp_path, answer=answer)
        assert tasks == []
        assert result.reason.startswith("The answer of step 'before' is not a JSON list: ")
        assert len(result.reason) < 300

    def test_parses_empty_lines_fast(self, tmp_path):
        began = time.process_time()
        assert self.over(ForEach("step", "before"), tmp_path, answer="```" + "\n" * 50_000)[1] == []
        assert time.process_time() - began < 1.0

    def test_empty_list_succeeds(self, tmp_path):
        result, tasks = self.over(ForEach("step", "before"), tmp_path, answer="[]")
        assert (result.status, result.output, tasks) == ("succeeded", "", [])

    def test_joins_lists_of_all_parts(self, tmp_path):
        async def run(part):
            if part.step.id == "first":
                return StepAnswer(AgentResult("x", True, f'["{part.task}1", "{part.task}2"]'))
            return StepAnswer(result_of(part, OK))

        steps = [
            Step("first", "x", "${item}", foreach=ForEach("list", ("a", "b"))),
            Step("each", "x", "${item}", ("first",), foreach=ForEach("step", "first")),
        ]
        results = run_virtually(ran(graph(*steps), setting(tmp_path), run))
        assert results[1].labels == ("a1", "a2", "b1", "b2")

    def test_list_of_input_or_workflow(self, tmp_path):
        values = ["text", 3, None, {"name": "x", "list": [1]}, ["é"]]
        as_text = ["text", "3", "null", '{"name": "x", "list": [1]}', '["é"]']
        assert self.over(ForEach("list", tuple(values)), tmp_path)[1] == as_text
        assert self.over(ForEach("input", "all"), tmp_path, inputs={"all": values})[1] == as_text

    def test_long_list_needs_few_tasks(self):
        tasks, ended = [], []

        async def run(part):
            tasks.append(len(asyncio.all_tasks()))
            await asyncio.sleep(1)
            ended.append(LoopClock().now())
            return StepAnswer(result_of(part, OK))

        step = Step("a", "x", "${item}", foreach=ForEach("list", tuple(map(str, range(2_000)))))
        (result,) = run_virtually(ran(graph(step), setting(max_calls=8), run))
        assert [one.output for one in result.results] == [f"yes:a[{number}]" for number in range(2_000)]
        assert ended[-1] == 250
        # Beside them the step and the run.
        assert max(tasks) == 8 + 2

    def test_long_list_shares_slots(self):
        long = Step("long", "x", "${item}", foreach=ForEach("list", tuple(map(str, range(100)))))
        steps = long, Step("first", "x"), Step("second", "x", dependencies=("first",))
        _, server, elapsed = carried_out(graph(*steps), {}, max_calls=4)
        assert server.ended[("second", 0)] <= 4
        assert elapsed == 26

    def test_the_fields_of_an_object(self, tmp_path):
        values = ({"name": "x", "lines": [1, 2]}, {"name": "y"})
        result, tasks = self.over(ForEach("list", values), tmp_path, "${item.name}: ${item.lines}")
        assert tasks == ["x: [1, 2]"]
        assert result.labels == ("1", "2")
        assert "The task has ${item.lines}, and its item has item, item.name only." in result.reason

    def test_long_items_have_short_labels(self, tmp_path):
        result, _ = self.over(ForEach("list", ("x\n" * 200, "")), tmp_path)
        assert len(result.labels[0]) == 80
        assert result.labels[1] == "2"

    def test_item_text_is_not_a_template(self, tmp_path):
        assert self.over(ForEach("list", ("${task} $${x}",)), tmp_path)[1] == ["${task} $${x}"]


class TestTold:
    def test_reports_steps_and_calls(self):
        events, ended = [], []
        steps = [Step("a", "x", foreach=ForEach("list", ("1", "2"))), Step("b", "x", None, ("a",))]
        ways = {"a": Way((1, 2), (REFUSED,))}
        results, _, _ = carried_out(graph(*steps), ways, on_step=events.append, on_call=ended.append)
        assert [(one.step, one.status, one.done, one.parts, one.failed) for one in events] == [
            ("a", "running", 0, 2, 0),
            ("a", "running", 1, 2, 1),
            ("a", "running", 2, 2, 2),
            ("a", "failed", 2, 2, 2),
            ("b", "skipped", 0, 0, 0),
        ]
        assert [one.result for one in events if one.result] == [results["a"], results["b"]]
        assert ended == list(results["a"].results)


class TestEnd:
    @given(graphs(lists=True), some.integers(0, 12), some.integers(1, 3))
    def test_cancel_leaves_no_task(self, drawn, seconds, room):
        workflow, ways = drawn
        server = Simulated(ways)

        async def work():
            running = asyncio.ensure_future(
                WorkflowRunner(workflow, setting(max_calls=room), server.run).run()
            )
            await asyncio.sleep(seconds + 0.5)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            return asyncio.all_tasks() - {asyncio.current_task()}

        assert run_virtually(work()) == set()
        assert server.in_flight == 0

    @given(graphs(lists=True), some.integers(0, 7))
    def test_defect_leaves_no_task(self, drawn, number):
        workflow, ways = drawn
        server = Simulated(ways)

        async def run(part):
            if part.step.id == f"s{number}":
                raise RuntimeError("a defect")
            return await server.run(part)

        async def work():
            failure = None
            try:
                await WorkflowRunner(workflow, setting(), run).run()
            except RuntimeError as error:
                failure = error
            return failure, asyncio.all_tasks() - {asyncio.current_task()}

        failure, left = run_virtually(work())
        asked = any(
            one.id == f"s{number}" and (one.foreach is None or one.foreach.value) for one in workflow.steps
        )
        assert (failure is not None) == asked
        assert left == set()
        assert server.in_flight == 0

    async def test_waits_for_shielded_cleanup(self):
        started, cleaned_up = [], []

        async def run(part):
            started.append(part.step.id)
            try:
                await asyncio.sleep(100)
            finally:
                # In real time: before anyio 4.6 a shield in a cancelled group keeps the loop busy.
                with anyio.CancelScope(shield=True):
                    await asyncio.sleep(0.05)
                cleaned_up.append(part.step.id)

        workflow = graph(Step("a", "x"), Step("b", "x"))
        running = asyncio.ensure_future(WorkflowRunner(workflow, setting(), run).run())
        while len(started) < 2:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert sorted(cleaned_up) == ["a", "b"]
