"""Workflows of claude.json are parsed and validated: all faults are reported at once."""

import json
import re
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from claude_force.agents.names import suggest
from claude_force.errors import AgentNotFoundError, InvalidWorkflowError
from claude_force.workflow import Step, Workflow
from claude_force.workflow import models as template
from claude_force.workflow.graph import cycles, dependents, levels
from claude_force.workflow.models import Condition, ForEach
from claude_force.workflow.parser import read_workflow
from claude_force.workflow.step_calls import default_template, render
from claude_force.workflow.validation import check, faults

AGENTS = ("python-expert", "code-reviewer")


def check_agent(name):
    if name not in AGENTS:
        raise AgentNotFoundError(
            f"Agent '{name}' not found. Did you mean: {', '.join(suggest(name, AGENTS))}?"
        )


def step(identity, *needs, **more):
    return {"id": identity, "agent": "python-expert", "dependencies": list(needs), **more}


def faults_of(*steps, inputs=None, **more):
    """Returns the faults of the parser and of the validation."""
    try:
        check(read_workflow("w", {"steps": list(steps), **more}), check_agent, inputs or {})
    except InvalidWorkflowError as error:
        return list(error.faults)
    return []


class TestFormInPython:
    @pytest.mark.parametrize(
        ("given", "fault"),
        [
            ({"id": 1}, "step 1: id is 1; use letters"),
            ({"id": "a:b"}, "step 'a:b': id is 'a:b'; use letters"),
            ({"agent": None}, "step 'a': agent is None"),
            ({"task": ""}, "step 'a': task is ''; give a text"),
            ({"dependencies": "scan"}, "step 'a': dependencies is 'scan'; write a list of step ids"),
            ({"dependencies": None}, "step 'a': dependencies is None; leave it out"),
            ({"retries": -1}, "step 'a': retries is -1; give a whole number from 0 to 100"),
            ({"retries": None}, "step 'a': retries is None; leave it out"),
            ({"max_tokens": 0}, "step 'a': max_tokens is 0; give a whole number from 1 up"),
            ({"optional": "no"}, "step 'a': optional is 'no'; write true or false"),
            ({"when": Condition("inputs.x", "contains", "y")}, "step 'a': when is Condition("),
            ({"when": (Condition("inputs.x", "is", "y"),)}, "step 'a': when is (Condition("),
            ({"when": (Condition("item", "contains", "y"),)}, "step 'a': when is (Condition("),
            ({"foreach": ["x"]}, "step 'a': foreach is ['x']; give a ForEach over files"),
            ({"foreach": ForEach("folder", "x")}, "step 'a': foreach is ForEach("),
            ({"foreach": ForEach("list", "xyz")}, "step 'a': foreach is ForEach("),
        ],
    )
    def test_checks_types_of_step(self, given, fault):
        made = Step(**{"id": "a", "agent": "python-expert", **given})
        (reported,) = self.faults(Workflow("w", (made,)))
        assert reported.startswith(fault)

    @pytest.mark.parametrize(
        ("workflow", "fault"),
        [
            (Workflow(5, (Step("a", "python-expert"),)), "its name is not a text"),
            (Workflow("w", Step("a", "python-expert")), "its steps are Step("),
            (Workflow("w", ({"id": "a"},)), "step 1 is {'id': 'a'}; give a Step"),
            (Workflow("w", (Step("a", "python-expert"),), inputs=None), "its inputs are None"),
        ],
    )
    def test_checks_types_of_workflow(self, workflow, fault):
        (reported,) = self.faults(workflow)
        assert reported.startswith(fault)

    @pytest.mark.parametrize("inputs", [[1], {1: 2}])
    def test_inputs_are_names_with_values(self, inputs):
        (reported,) = self.faults(Workflow("w", (Step("a", "python-expert"),)), inputs)
        assert reported.startswith("the inputs of this run are ")

    def faults(self, workflow, inputs=()):
        with pytest.raises(InvalidWorkflowError) as refused:
            check(workflow, check_agent, inputs or {})
        return refused.value.faults


class TestForm:
    def test_parses_all_keys(self):
        written = {
            "description": "Two steps",
            "inputs": {"language": "French", "files": None},
            "fail_fast": True,
            "steps": [
                {"id": "a", "agent": "python-expert", "title": "First"},
                {
                    "id": "b",
                    "agent": "code-reviewer",
                    "task": "${steps.a}",
                    "dependencies": ["a", "a"],
                    "model": "haiku",
                    "max_tokens": 100,
                    "when": {"step": "a", "not_contains": "no"},
                    "foreach": {"files": ["*.py", "*.md"]},
                    "retries": 2,
                    "optional": True,
                },
            ],
        }
        assert read_workflow("w", written) == Workflow(
            "w",
            (
                Step("a", "python-expert"),
                Step(
                    "b",
                    "code-reviewer",
                    "${steps.a}",
                    ("a",),
                    "haiku",
                    100,
                    (Condition("steps.a", "not_contains", "no"),),
                    ForEach("files", ("*.py", "*.md")),
                    2,
                    True,
                ),
            ),
            "Two steps",
            {"language": "French", "files": None},
            True,
        )

    @pytest.mark.parametrize(
        "written", [None, 3, "x", {}, {"steps": []}, {"steps": {"id": "a"}}, {"steps": None}]
    )
    def test_missing_steps_show_the_format(self, written):
        with pytest.raises(InvalidWorkflowError, match=r"it has no steps: write \[\"an-agent\""):
            read_workflow("w", written)

    def test_a_list_without_agents_says_so(self):
        with pytest.raises(InvalidWorkflowError, match="it has no agents: add at least one"):
            read_workflow("w", [])

    @pytest.mark.parametrize(
        ("key", "value", "advice"),
        [
            ("agent", 3, "give an agent's name"),
            ("agent", "", "give an agent's name"),
            ("task", " ", "give a text, or leave it out"),
            ("model", 5, "give a text, or leave it out"),
            ("model", "a, b", "give one id or alias of a model"),
            ("dependencies", "a", 'write a list of step ids, such as ["scan"]'),
            ("dependencies", [1], 'write a list of step ids, such as ["scan"]'),
            ("max_tokens", 0, "give a whole number from 1 up"),
            ("max_tokens", True, "give a whole number from 1 up"),
            ("max_tokens", 1.5, "give a whole number from 1 up"),
            ("retries", -1, "give a whole number from 0 to 100"),
            ("optional", "false", "write true or false"),
            ("when", "a", 'write {"step": ID, "contains": TEXT}'),
            ("when", {"step": "a"}, 'write {"step": ID, "contains": TEXT}'),
            ("when", {"step": "a", "input": "b"}, 'write {"step": ID, "contains": TEXT}'),
            ("when", {"step": "a", "contains": 1}, 'write {"step": ID, "contains": TEXT}'),
            (
                "when",
                [{"step": "a", "like": "b"}],
                "the tests are contains, not_contains, equals, not_equals",
            ),
            ("foreach", "*.py", 'write a list, {"files": PATTERN}'),
            ("foreach", {"folder": "x"}, 'write a list, {"files": PATTERN}'),
            ("foreach", {"files": "a", "lines": "b"}, 'write a list, {"files": PATTERN}'),
            ("foreach", {"files": []}, '"files" takes a text'),
            ("foreach", {"files": ["a", ""]}, '"files" takes a text'),
            ("foreach", {"lines": ["a"]}, '"lines" takes a text'),
            ("foreach", {"step": 3}, '"step" takes a text'),
        ],
    )
    def test_wrong_value_names_the_right_one(self, key, value, advice):
        (fault,) = faults_of(step("a", **{key: value}))
        assert fault.startswith(f"step 'a': \"{key}\" is {value!r}"[:60])
        assert advice in fault

    @pytest.mark.parametrize("identity", [None, 3, "", "a b", "a\n", "é"])
    def test_names_step_without_id_by_number(self, identity):
        faults = faults_of(step("a"), step(identity))
        assert faults == [f"step 2: \"id\" is {identity!r}; use letters, digits, '_' and '-', at least one"]

    def test_shows_step_that_is_not_an_object(self):
        assert faults_of("scan") == ['step 1 is \'scan\'; write {"id": ..., "agent": ...}']

    @pytest.mark.parametrize(
        ("slip", "meant"),
        [
            ("dependancies", "dependencies"),
            ("retry", "retries"),
            ("for_each", "foreach"),
            ("maxtokens", "max_tokens"),
        ],
    )
    def test_suggests_key(self, slip, meant):
        assert faults_of(step("a", **{slip: 1})) == [
            f'step \'a\': it has no key "{slip}"; did you mean "{meant}"?'
        ]

    @pytest.mark.parametrize("key", ["name", "title", "description", "comment", "notes", "x-owner"])
    def test_ignores_other_keys(self, key):
        assert faults_of(step("a", **{key: "mine"})) == []

    @pytest.mark.parametrize("inputs", [["language"], "language", 1])
    def test_inputs_must_be_an_object(self, inputs):
        with pytest.raises(InvalidWorkflowError) as caught:
            read_workflow("w", {"steps": [step("a")], "inputs": inputs})
        (fault,) = caught.value.faults
        assert fault.startswith('"inputs" is not an object')

    @pytest.mark.parametrize("value", ["false", 1, []])
    def test_fail_fast_must_be_boolean(self, value):
        assert faults_of(step("a"), fail_fast=value) == [
            '"fail_fast" is ' + f"{value!r}; write true or false"
        ]

    def test_reports_all_parse_faults(self):
        with pytest.raises(InvalidWorkflowError) as caught:
            written = {"steps": [3, {"id": "a"}, step("b", retries="x", task=0)]}
            check(read_workflow("w", written), check_agent, {})
        assert str(caught.value).startswith("Workflow 'w' can't be run.\n- step 1 is 3")
        assert len(caught.value.faults) == 4

    def test_parse_faults_hide_no_others(self):
        found = faults_of(
            step("a", "b", retries=-1, task="${steps.nowhere}"),
            step("b", "a"),
            step("c", "missing"),
            {"id": "d", "agent": "nobody", "optional": "yes"},
        )
        assert [fault.partition(";")[0] for fault in found] == [
            "step 'a': \"retries\" is -1",
            "step 'd': \"optional\" is 'yes'",
            "these steps wait for each other: a -> b -> a",
            "step 'c': there is no step 'missing' that it could wait for",
            found[-1],
        ]
        assert found[-1].startswith("step 'd': Agent 'nobody' not found")


HOSTILE = {
    "unknown agents": [step(f"s{n}", agent=f"reviewer-nubmer-{n:05d}") for n in range(2_000)],
    "unknown steps": [step(f"s{n}", *(f"z{n}x{m}" for m in range(20))) for n in range(2_000)],
    "slips": [step(f"s{n}", **{f"dependencis{m}": 1 for m in range(20)}) for n in range(2_000)],
    "slips of one step": [step("a", **{f"dependencis{m}": 1 for m in range(40_000)})],
    "names in a task": [step("a", task="".join(f"${{inputs.nubmer{n}}}" for n in range(20_000)))],
    "cycles": [step(f"s{n}", f"s{n}", *(f"s{m}" for m in range(n - 50, n) if m >= 0)) for n in range(2_000)],
    "steps": [step("a")] * 40_000,
    "a chain": ["nobody"] * 40_000,
}


class TestHostileFiles:
    @pytest.mark.parametrize("kind", HOSTILE)
    def test_reports_first_faults_fast(self, kind):
        agents = [f"reviewer-number-{n:05d}-of-the-team" for n in range(3_000)]

        def unknown(name):
            raise AgentNotFoundError(f"Agent '{name}' not found. {suggest(name, agents)}")

        written = HOSTILE[kind] if kind == "a chain" else {"steps": HOSTILE[kind]}
        began = time.process_time()
        found = faults("w", written, unknown)
        assert time.process_time() - began < 3.0
        assert 1 <= len(found) <= 21
        assert kind in ("steps", "a chain") or found[-1] == "and there are more faults like these"

    def test_limits_retries(self):
        (fault,) = faults_of(step("a", retries=10**9))
        assert fault.endswith("give a whole number from 0 to 100")


class TestGraph:
    def test_shows_cycle_as_path(self):
        (fault,) = faults_of(step("a", "c"), step("b", "a"), step("c", "b"))
        path = fault.partition(": ")[2].partition(";")[0].split(" -> ")
        needs = {"a": "c", "b": "a", "c": "b"}
        assert path[0] == path[-1]
        assert len(path) == 4
        assert all(needs[one] == following for one, following in zip(path, path[1:]))
        assert fault.endswith("take one of the dependencies out")

    def test_self_dependency_is_a_cycle(self):
        assert faults_of(step("a", "a"))[0].startswith("these steps wait for each other: a -> a;")

    def test_reports_all_cycles(self):
        faults = faults_of(step("a", "b"), step("b", "a"), step("c", "d"), step("d", "c"), step("e"))
        assert sum("wait for each other: " in fault for fault in faults) == 2

    def test_step_behind_cycle_is_unreachable(self):
        faults = faults_of(step("a", "b"), step("b", "a"), step("c", "b"), step("d", "c"), step("e"))
        assert faults[1:] == [
            "step 'c' is never reached: it waits for steps that wait for each other",
            "step 'd' is never reached: it waits for steps that wait for each other",
        ]

    def test_counts_repeated_ids(self):
        assert faults_of(step("a"), step("b"), step("a"), step("a")) == [
            "3 steps have the id 'a': give each its own"
        ]

    def test_suggests_dependency(self):
        assert faults_of(step("scan"), step("b", "scna")) == [
            "step 'b': there is no step 'scna' that it could wait for (did you mean scan?)"
        ]

    def test_suggests_agent(self):
        assert faults_of({"id": "a", "agent": "python-expart"}) == [
            "step 'a': Agent 'python-expart' not found. Did you mean: python-expert?"
        ]

    @pytest.mark.parametrize(
        ("more", "where"),
        [
            ({"task": "${steps.scan}"}, "its task"),
            ({"when": {"step": "scan", "contains": "x"}}, '"when"'),
            ({"foreach": {"step": "scan"}}, '"foreach"'),
        ],
    )
    def test_uses_answers_of_dependencies_only(self, more, where):
        assert faults_of(step("scan"), step("b", **more)) == [
            f"step 'b': {where} names the step 'scan': add it to its dependencies"
        ]
        assert faults_of(step("scna"), step("b", **more)) == [
            f"step 'b': {where} names the step 'scan', which is not there (did you mean scna?)"
        ]
        assert faults_of(step("scan"), step("b", "scan", **more)) == []

    @pytest.mark.parametrize(
        ("more", "where"),
        [
            ({"task": "${inputs.files}"}, "its task"),
            ({"when": {"input": "files", "contains": "x"}}, '"when"'),
            ({"foreach": {"input": "files"}}, '"foreach"'),
        ],
    )
    def test_suggests_input(self, more, where):
        assert faults_of(step("a", **more), inputs={"file": ["x"]}) == [
            "no step uses the input 'file'",
            f"step 'a': {where} names the input 'files', which is not given (did you mean file?)",
        ]
        assert faults_of(step("a", **more), inputs={"files": ["x"]}) == []

    def test_input_without_default_is_required(self):
        wanted = {"inputs": {"language": None}}
        workflow = read_workflow("w", {"steps": [step("a", task="${inputs.language}")], **wanted})
        for inputs in ({}, {"language": None}):
            with pytest.raises(InvalidWorkflowError) as caught:
                check(workflow, check_agent, inputs)
            assert caught.value.faults == ("input 'language' is not given and has no default",)
        check(workflow, check_agent, {"language": "French"})

    def test_suggests_input_with_default(self):
        written = {"steps": [step("a", task="${inputs.language}")], "inputs": {"language": "French"}}
        with pytest.raises(
            InvalidWorkflowError, match=r"no step uses the input 'langage' \(did you mean language\?\)"
        ):
            check(read_workflow("w", written), check_agent, {"langage": "German"})

    @pytest.mark.parametrize("value", [{1, 2}, b"x", object(), [{"a": b"x"}], {("a", "b"): 1}])
    def test_inputs_must_be_json(self, value):
        (fault,) = faults_of(step("a", task="${inputs.x}"), inputs={"x": value})
        assert fault.startswith("input 'x' is not a text, number, list or object of JSON")

    def test_foreach_input_must_be_a_list(self):
        assert faults_of(step("a", foreach={"input": "x"}), inputs={"x": "a,b"}) == [
            "step 'a': \"foreach\" is over the input 'x', which is not a list"
        ]

    def test_item_needs_foreach(self):
        assert faults_of(step("a", task="Look at ${item.path}")) == [
            "step 'a': its task names an item, and it has no \"foreach\""
        ]

    def test_suggests_template_name(self):
        assert faults_of(step("a", task="${tusk} and ${HOME}")) == [
            "step 'a': its task has ${tusk}, which is not a known name (did you mean task?); "
            "write $${ for ${",
            "step 'a': its task has ${HOME}, which is not a known name; write $${ for ${",
        ]

    def test_reports_all_graph_faults(self):
        with pytest.raises(InvalidWorkflowError) as caught:
            check(
                read_workflow(
                    "w",
                    {
                        "inputs": {"x": None},
                        "steps": [
                            step("a", "b"),
                            step("b", "a"),
                            step("c", "b", "nowhere", task="${steps.a} ${inputs.y} ${z}"),
                            {"id": "d", "agent": "nobody"},
                            step("d"),
                        ],
                    },
                ),
                check_agent,
                {},
            )
        text = str(caught.value)
        assert "a -> b -> a" in text or "b -> a -> b" in text
        for part in ("2 steps have the id 'd'", "'c' is never reached", "input 'x' is not given"):
            assert part in text
        for part in ("Agent 'nobody'", "no step 'nowhere'", "the step 'a': add it", "the input 'y'", "${z}"):
            assert part in text

    def test_workflow_needs_steps(self):
        with pytest.raises(InvalidWorkflowError, match="it has no steps"):
            check(Workflow("w", ()), check_agent, {})

    def test_checks_2000_steps(self):
        many = [step("s0"), *(step(f"s{n}", f"s{n - 1}") for n in range(1, 2_000))]
        assert faults_of(*many) == []
        many[0] = step("s0", "s1999")
        (fault,) = faults_of(*many)
        assert fault.count(" -> ") == 2_000


GRAPHS = some.dictionaries(
    some.sampled_from("abcdef"), some.lists(some.sampled_from("abcdef"), unique=True, max_size=3), max_size=6
)


class TestOrder:
    @given(GRAPHS)
    def test_finds_all_cycles(self, graph):
        found = cycles(graph)
        for path in found:
            assert path[0] == path[-1]
            assert all(after in graph[one] for one, after in zip(path, path[1:]))
        on_paths = [one for path in found for one in path[:-1]]
        assert len(on_paths) == len(set(on_paths))
        left = {
            one: [need for need in its if need in graph and need not in on_paths]
            for one, its in graph.items()
            if one not in on_paths
        }
        assert sorted(one for group in levels(left) for one in group) == sorted(left)

    @given(GRAPHS, some.sets(some.sampled_from("abcdef")))
    def test_finds_all_dependents(self, graph, of):
        def reaches(one, seen=()):
            return any(
                need in of or (need not in seen and need in graph and reaches(need, (*seen, need)))
                for need in graph[one]
            )

        assert dependents(graph, of) == {one for one in graph if reaches(one)}

    @given(GRAPHS)
    def test_levels_are_minimal(self, graph):
        graph = {one: [need for need in its if need in graph and need < one] for one, its in graph.items()}
        at = {one: number for number, group in enumerate(levels(graph)) for one in group}
        assert at == {one: max((at[need] + 1 for need in its), default=0) for one, its in graph.items()}


class TestChain:
    def texts(self, workflow):
        """Returns the task of each agent, where each answers `ANSWER n` in turn."""
        values = {"task": "T ${steps.1} $${x}"}
        values.update({f"steps.{one.id}": f"ANSWER {one.id} ${{task}}" for one in workflow.steps})
        return [render(one.task, values) for one in workflow.steps]

    def test_a_list_of_agents_is_a_chain(self):
        workflow = read_workflow("w", ["python-expert", "code-reviewer", "python-expert"])
        assert workflow.needs == {"1": (), "2": ("1",), "3": ("2",)}
        assert [one.agent for one in workflow.steps] == ["python-expert", "code-reviewer", "python-expert"]
        check(workflow, check_agent, {})

    def test_chain_passes_task_and_answer(self):
        assert self.texts(read_workflow("w", ["python-expert", "code-reviewer", "python-expert"])) == [
            "T ${steps.1} $${x}",
            "T ${steps.1} $${x}"
            '\n\n<previous_answer agent="python-expert">\nANSWER 1 ${task}\n</previous_answer>',
            "T ${steps.1} $${x}"
            '\n\n<previous_answer agent="code-reviewer">\nANSWER 2 ${task}\n</previous_answer>',
        ]

    def test_chain_without_answers(self):
        workflow = read_workflow("w", ["python-expert", "code-reviewer"], pass_output=False)
        assert self.texts(workflow) == ["T ${steps.1} $${x}"] * 2


class TestUsualTemplate:
    def usual(self, last, pass_output=True):
        workflow = read_workflow("w", {"steps": [step("a"), step("b"), last]})
        return default_template(workflow.steps[-1], workflow, pass_output)

    def test_default_has_task_and_answers(self):
        assert self.usual(step("c", "b", "a")) == (
            "${task}\n\n"
            '<previous_answer step="b" agent="python-expert">\n${steps.b}\n</previous_answer>\n\n'
            '<previous_answer step="a" agent="python-expert">\n${steps.a}\n</previous_answer>'
        )

    def test_default_without_answers(self):
        assert self.usual(step("c", "b"), pass_output=False) == "${task}"

    def test_default_has_item_not_list(self):
        assert self.usual(step("c", "a", foreach={"step": "a"})) == "${task}\n\n<item>\n${item}\n</item>"

    def test_has_a_file_with_its_path(self):
        found = self.usual(step("c", foreach={"files": "*.py"}))
        assert found == '${task}\n\n<file path="${item}">\n${item.text}\n</file>'


ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
IDS = some.sampled_from(["a", "b", "c"])
NAMED = some.sampled_from(
    ["a", "b", "steps.a", "${steps.a}", "${inputs.b}", "${item.x}", "${", "$${x}", "${task}", "é"]
)
KEYS = (
    "id",
    "agent",
    "task",
    "dependencies",
    "model",
    "max_tokens",
    "when",
    "foreach",
    "retries",
    "optional",
    "agnet",
)
NEARLY = some.fixed_dictionaries(
    {"id": IDS | ANYTHING, "agent": some.sampled_from(AGENTS) | ANYTHING},
    optional={
        "task": NAMED | ANYTHING,
        "dependencies": some.lists(IDS, max_size=3) | ANYTHING,
        "when": some.dictionaries(
            some.sampled_from(["step", "input", "contains", "equals"]), NAMED | ANYTHING
        )
        | ANYTHING,
        "foreach": some.dictionaries(some.sampled_from(["files", "step", "input"]), NAMED | ANYTHING)
        | ANYTHING,
        **dict.fromkeys(("model", "max_tokens", "retries", "optional", "agnet"), ANYTHING),
    },
)
WORKFLOWS = some.fixed_dictionaries(
    {"steps": some.lists(NEARLY | ANYTHING, max_size=4)},
    optional={"inputs": ANYTHING, "description": ANYTHING, "fail_fast": ANYTHING},
)


class TestAnyJson:
    @given(ANYTHING | WORKFLOWS, some.booleans(), some.dictionaries(NAMED, ANYTHING, max_size=2))
    def test_any_json_is_runnable_or_faulty(self, written, pass_output, inputs):
        try:
            workflow = read_workflow("w", json.loads(json.dumps(written)), pass_output)
            check(workflow, check_agent, inputs)
        except InvalidWorkflowError as error:
            assert error.faults
            assert all(isinstance(fault, str) and "\n- " not in fault for fault in error.faults)
        else:
            assert sorted(one for group in levels(workflow.needs) for one in group) == sorted(
                one.id for one in workflow.steps
            )


OPENING = re.compile(r"\$+\{")
PIECES = some.lists(
    some.sampled_from(["$", "{", "}", "$$", "${", "$${", "a", "\n", " ", "task", "é"]), max_size=12
)


class TestTemplates:
    @given(some.text() | PIECES.map("".join))
    def test_text_without_names_is_unchanged(self, text):
        text = OPENING.sub("{", text)
        assert template.template_names(text) == []
        assert template.fill_template(text, {}) == text

    @given(PIECES.map("".join), some.text(alphabet="${}a\n"))
    def test_values_are_not_templates(self, before, value):
        before = OPENING.sub("{", before)
        text = f"{before}|${{task}}|${{task}}"
        assert template.template_names(text) == ["task"]
        assert template.fill_template(text, {"task": value}) == f"{before}|{value}|{value}"

    @given(PIECES.map("".join))
    def test_doubled_dollar_escapes(self, text):
        plain = OPENING.sub("{", text)
        assert template.fill_template(f"{plain}|$${{task}}", {"task": "x"}) == f"{plain}|${{task}}"

    @given(PIECES.map("".join))
    def test_fills_exactly_the_names(self, text):
        names = template.template_names(text)
        template.fill_template(text, dict.fromkeys(names, ""))
        for name in names:
            with pytest.raises(KeyError):
                template.fill_template(text, dict.fromkeys(set(names) - {name}, ""))

    @given(some.text(alphabet=string.printable))
    def test_names_are_on_one_line(self, inner):
        plain = not set(inner) & set("{}\n")
        assert (template.template_names(f"${{{inner}}}") == [inner]) or not plain

    def test_other_dollars_are_text(self):
        text = "It costs $5 or $$10, $HOME is not $(x) nor $task, and {task} is not ${\ntask}"
        assert template.fill_template(text, {"task": "x"}) == text

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("steps.a", ("steps.", "a")),
            ("inputs.a.b", ("inputs.", "a.b")),
            ("item", ("item", "")),
            ("item.text", ("item", "text")),
            ("items", ("items", "")),
            ("task", ("task", "")),
        ],
    )
    def test_splits_names_at_first_dot(self, name, kind):
        assert template.split_name(name) == kind


class TestConditions:
    @pytest.mark.parametrize(
        ("test", "found", "holds"),
        [
            ("contains", "There are BUGS.", True),
            ("contains", "None.", False),
            ("not_contains", "None.", True),
            ("not_contains", "bugs", False),
            ("equals", " Bugs\n", True),
            ("equals", "bugs!", False),
            ("not_equals", "bugs!", True),
            ("not_equals", "BUGS", False),
        ],
    )
    def test_conditions_ignore_case_and_space(self, test, found, holds):
        assert Condition("steps.a", test, " bugs ").holds(found) is holds

    def test_is_told_in_words(self):
        assert str(Condition("inputs.a", "not_contains", "x")) == "inputs.a not contains 'x'"
