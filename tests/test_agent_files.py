"""Agents' files as the public writes them: front matter, models, names, notes, and what each key does."""

import json
import re
import time

import pytest
import yaml
from fleet import fleet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_agents import Project

from claude_force.agent_types import AgentSettings
from claude_force.agents import Registry, models, resolve_model
from claude_force.agents.definition import read_definition
from claude_force.agents.front_matter_keys import AGENT_KEYS, COMMAND_KEYS, ONE_LINE, is_one_off
from claude_force.cli.main import main
from claude_force.errors import ConfigurationError, InputError, InvalidOptionError

CLAUDE_CODE_KEYS = (
    *("name", "description", "tools", "disallowedTools", "model", "permissionMode", "maxTurns", "skills"),
    *("mcpServers", "hooks", "memory", "background", "effort", "isolation", "color", "initialPrompt"),
)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "project")


def front(text, body="You help."):
    return f"---\n{text}\n---\n{body}\n"


def read(text):
    return read_definition(front(text)).fields


def remarks(project):
    return {one.file: (one.state, one.reason) for one in project.registry.remarks()}


async def sent(project, *calls, **options):
    """The requests of these `(agent, task)` calls, as the server got them."""
    async with fleet(project.folder) as (orchestrator, server):
        for agent, task in calls:
            result = await orchestrator.execute_agent(agent, task, **options)
            assert result.success, result.errors
        return list(server.requests)


@pytest.fixture
def doctor(project, monkeypatch, capsys):
    """Runs `doctor` and returns its exit code and its findings as `(state, name, text, advice)`."""
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")

    def run():
        code = main(["doctor", "--offline", "--json"])
        checks = json.loads(capsys.readouterr().out)["checks"]
        return code, [(one["state"], one["name"], one["text"], one["advice"]) for one in checks]

    return run


PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, blacklist_characters="\x7f\x85"))
VALUES = st.recursive(
    st.one_of(PLAIN, st.integers(-(10**6), 10**6), st.booleans(), st.none(), st.floats(-100, 100)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(PLAIN, inner, max_size=3)),
    max_leaves=6,
)
KEYS = st.one_of(
    st.sampled_from(sorted({*AGENT_KEYS, *COMMAND_KEYS})),
    st.from_regex(r"[a-z][\w-]{0,9}", fullmatch=True, alphabet=st.characters(max_codepoint=126)),
)


class NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


class TestYaml:
    @given(
        st.dictionaries(KEYS, VALUES, min_size=1, max_size=6),
        st.sampled_from([None, '"', "'"]),
        st.sampled_from([None, True, False]),
    )
    def test_front_matter_agrees_with_pyyaml(self, fields, style, flow):
        written = yaml.dump(
            fields, Dumper=NoAliases, default_style=style, default_flow_style=flow, allow_unicode=True
        )
        expected = {str(key): value for key, value in yaml.safe_load(written).items()}
        assert read(written.rstrip("\n")) == expected

    def test_alias_marks_inside_text_are_text(self):
        fields = read('description: "Checks *.py and *_test.go"\nmodel: haiku\nscope: src')
        assert fields == {"description": "Checks *.py and *_test.go", "model": "haiku", "scope": "src"}

    @pytest.mark.parametrize(
        "text",
        [
            'd: "a & b, *c"',
            "d: 'x &y *z'",
            "d: R&D *really*",
            "d: |\n  &a\n  *a",
            "d: [\"*.py\", '&x']",
            "d: a # &b *c",
        ],
    )
    def test_no_text_is_taken_for_an_alias(self, text):
        assert read(f"{text}\nmodel: haiku") == yaml.safe_load(f"{text}\nmodel: haiku")

    @pytest.mark.parametrize("value", ["7", "0", "0.25", "1.10", "true", "false", '"a: #b"', "'x'", "a.b"])
    def test_simple_lines_agree_with_yaml(self, value):
        fields = read(f"key: {value}")
        assert fields == yaml.safe_load(f"key: {value}")
        assert type(fields["key"]) is type(yaml.safe_load(value))

    def test_an_alias_is_not_expanded(self):
        fields = read("a: &a [x, x]\nb: *a\nmodel: haiku")
        assert (fields["b"], fields["model"]) == ("*a", "haiku")

    @pytest.mark.parametrize(
        "value",
        ["[" * 60_000, "0x" + "f" * 60_000, "1" + ":1" * 30_000, "&x [" + "*x, " * 9000 + "]", "- " * 30_000],
    )
    def test_a_hostile_value_takes_no_time(self, value):
        began = time.process_time()
        read_definition(front(f"name: {value}")).text("name")
        assert time.process_time() - began < 1


class TestLenientReader:
    """What is read where YAML refuses: a description with ': ' in it makes it refuse."""

    @pytest.mark.parametrize("key", CLAUDE_CODE_KEYS)
    def test_every_key_ends_a_description(self, key):
        value = {"model": "sonnet", "maxTurns": "7", "background": "true"}.get(key, "word")
        before = "name: Use: it" if key == "description" else "description: Use when: it rains\nmore of it"
        fields = read(f"{before}\n{key}: {value}\nmodel: sonnet")
        assert (fields[key], fields["model"]) == (value, "sonnet")

    @pytest.mark.parametrize("key", sorted(ONE_LINE & set(AGENT_KEYS)))
    def test_one_line_key_takes_no_second_line(self, key):
        value = "true" if key in ("background", "disable-model-invocation") else "7"
        fields = read(f"description: Use: it\n{key}: {value}\n  more\nand more: of it\n- again")
        assert fields[key] == value

    def test_reads_model_before_unknown_key(self):
        fields = read("name: a\ndescription: x: y\nmodel: sonnet\nscope: src\ntools: Read\ncost: low")
        assert (fields["model"], fields["tools"]) == ("sonnet", "Read")

    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ("haiku # cheap", "haiku"),
            ("'haiku'", "haiku"),
            ('"haiku"  # x', "haiku"),
            ("opus[1m]", "opus[1m]"),
        ],
    )
    def test_model_drops_comments_and_quotes(self, written, expected):
        assert read(f"description: x: y\nmodel: {written}")["model"] == expected

    @pytest.mark.parametrize("line", ["model:haiku", "model:\u00a0haiku", "model\u3000: haiku"])
    def test_accepts_field_with_unusual_blank(self, line):
        assert read(f"description: a: b\n{line}\ntools: Read") == {
            "description": "a: b",
            "model": "haiku",
            "tools": "Read",
        }

    def test_a_sentence_about_models_is_text(self):
        fields = read("description: Use: it\nmodel: the one, that we know\nmodel: opus\ncolor: red")
        assert fields["model"] == "opus"
        assert "the one, that we know" in fields["description"]

    PIECES = st.sampled_from(
        (
            *("model: sonnet", "model: a, b", "model:", "model: |", "model: 'x", "  more", "model: a\tb"),
            *("scope: src", "tools: Read, *", "model: haiku # c", "Model: x", "name: n", "x", "", "- a"),
            *("model: {a: b}", "model: >-", "  opus", "color: &a b", "model: *a", "initialPrompt: Begin"),
            *("\u2028", "model : x", "model: [a]", "description: x: y"),
        )
    )

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
    @given(st.lists(st.one_of(PIECES, st.text(max_size=12)), max_size=12))
    def test_mangled_file_gives_no_wrong_model(self, tmp_path_factory, lines):
        folder = tmp_path_factory.mktemp("mangled") / ".claude"
        (folder / "agents").mkdir(parents=True)
        text = "\n".join(["---", *lines, "---", "You help."])
        (folder / "agents" / "a.md").write_bytes(text.encode("utf-8", "surrogatepass"))
        for agent in Registry(folder).agents():
            assert agent.model is None or not re.search(r"[\s,\x00-\x1f]", agent.model)


class TestModels:
    @pytest.fixture(autouse=True)
    def known_models(self, monkeypatch):
        known = ("claude-opus-9-1", "claude-fable-9", "claude-haiku-9")
        monkeypatch.setattr(models, "sdk_models", lambda: known)
        models.newest_model.cache_clear()
        yield
        models.newest_model.cache_clear()

    @pytest.mark.parametrize(
        ("alias", "model"),
        [
            ("opus", "claude-opus-9-1"),
            ("opusplan", "claude-opus-9-1"),
            ("sonnet", "claude-sonnet-5-5"),
            ("haiku", "claude-haiku-9"),
            ("fable", "claude-fable-9"),
            ("best", "claude-fable-9"),
            ("Fable", "claude-fable-9"),
            ("sonnet[1m]", "claude-sonnet-5-5"),
            ("default", "claude-sonnet-5-5"),
            ("inherit", "claude-sonnet-5-5"),
            ("claude-opus-4-1[1m]", "claude-opus-4-1"),
            ("claude-sonnet-4-5@20250929[1M]", "claude-sonnet-4-5@20250929"),
        ],
    )
    def test_aliases_mean_what_claude_code_reads(self, alias, model):
        assert resolve_model(None, alias) == resolve_model(alias, None) == model

    @pytest.mark.parametrize(
        ("variable", "alias"),
        [
            ("ANTHROPIC_DEFAULT_OPUS_MODEL", "opus"),
            ("ANTHROPIC_DEFAULT_OPUS_MODEL", "opusplan"),
            ("ANTHROPIC_DEFAULT_SONNET_MODEL", "sonnet[1m]"),
            ("ANTHROPIC_DEFAULT_HAIKU_MODEL", "haiku"),
            ("ANTHROPIC_SMALL_FAST_MODEL", "haiku"),
            ("ANTHROPIC_DEFAULT_FABLE_MODEL", "fable"),
            ("ANTHROPIC_DEFAULT_FABLE_MODEL", "best"),
        ],
    )
    def test_variables_say_what_an_alias_means(self, monkeypatch, variable, alias):
        monkeypatch.setenv(variable, "mine[1m]")
        assert resolve_model(None, alias) == "mine"

    def test_alias_of_alias_means_newest(self, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_DEFAULT_HAIKU_MODEL", "haiku")
        monkeypatch.setenv("ANTHROPIC_DEFAULT_OPUS_MODEL", "fable")
        assert (resolve_model("haiku", None), resolve_model("opus", None)) == (
            "claude-haiku-9",
            "claude-fable-9",
        )

    def test_newer_name_of_a_variable_wins(self, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_SMALL_FAST_MODEL", "old")
        monkeypatch.setenv("ANTHROPIC_DEFAULT_HAIKU_MODEL", "new")
        assert resolve_model("haiku", None) == "new"

    def test_precedence_call_file_environment_default(self, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_MODEL", "from-session")
        assert resolve_model(None, "inherit") == "from-session"
        monkeypatch.setenv("CLAUDE_CODE_SUBAGENT_MODEL", "from-environment")
        assert resolve_model(None, None) == "from-environment"
        assert resolve_model(None, "from-file") == "from-file"
        assert resolve_model("from-call", "from-file") == "from-call"
        monkeypatch.setenv("CLAUDE_CODE_SUBAGENT_MODEL", "inherit")
        assert resolve_model(None, None) == "from-session"

    @pytest.mark.parametrize(
        "value",
        ["a b", "a,b", "a\nb", "haiku\nscope: src", "a\x00b", "$(touch PWNED)", "'x'", "x" * 300, "a\u2028b"],
    )
    def test_what_names_no_model_is_refused(self, value):
        with pytest.raises(InvalidOptionError, match="^model is .*can't be the name of a model"):
            resolve_model(value, None)

    @pytest.mark.parametrize("variable", ["ANTHROPIC_MODEL", "CLAUDE_CODE_SUBAGENT_MODEL"])
    def test_error_names_environment_variable(self, monkeypatch, variable):
        monkeypatch.setenv(variable, "my model")
        with pytest.raises(InvalidOptionError, match=f"^{variable} is 'my model', which can't be"):
            resolve_model(None, None)
        assert resolve_model("opus", None) == "claude-opus-9-1"

    @pytest.mark.parametrize(
        "value",
        [
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123",
            "claude-sonnet-4-5@20250929",
            "openai/gpt-oss:20b",
            "Qwen/Qwen3-0.6B_4bit",
        ],
    )
    def test_cloud_and_gateway_ids_pass(self, value):
        assert resolve_model(value, None) == value

    @pytest.mark.parametrize(
        ("model", "successor"),
        [
            ("claude-3-5-sonnet-20240620", "claude-sonnet-5-5"),
            ("claude-3-5-sonnet-latest", "claude-sonnet-5-5"),
            ("claude-3-haiku-20240307", "claude-haiku-9"),
            ("claude-3-opus-latest", "claude-opus-9-1"),
            ("claude-opus-4-1-20250805", "claude-opus-9-1"),
            ("claude-opus-4-0", "claude-opus-9-1"),
            ("claude-instant-1.2", "claude-sonnet-5-5"),
            ("claude-2", "claude-sonnet-5-5"),
            ("claude-mythos-preview", "claude-fable-9"),
        ],
    )
    def test_a_retired_id_has_a_successor(self, model, successor):
        assert models.retirement(model).successor == successor

    @pytest.mark.parametrize("model", ["claude-opus-4-6", "claude-sonnet-5", "my-model", "claude-haiku-4-5"])
    def test_others_have_none(self, model):
        assert models.retirement(model) is None


class TestFileSettings:
    async def test_all_that_the_api_takes_is_sent(self, project):
        project.agent("a.md", "a", model="claude-opus-4-8", max_tokens=77, temperature=0.3, effort="low")
        (request,) = await sent(project, ("a", "x"))
        body = request.body
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("claude-opus-4-8", 77, 0.3)
        assert body["output_config"] == {"effort": "low"}

    async def test_the_call_wins_over_the_file(self, project):
        project.agent("a.md", "a", model="opus", max_tokens=77, effort="low")
        options = {"model": "claude-sonnet-5", "max_tokens": 5, "output_config": {"effort": "high"}}
        (request,) = await sent(project, ("a", "x"), **options)
        assert (request.body["model"], request.body["max_tokens"]) == ("claude-sonnet-5", 5)
        assert request.body["output_config"] == {"effort": "high"}

    async def test_effort_of_file_joins_call_format(self, project):
        project.agent("a.md", "a", effort="low")
        shape = {"format": {"type": "json_schema", "schema": {}}}
        (request,) = await sent(project, ("a", "x"), output_config=shape)
        assert request.body["output_config"] == {**shape, "effort": "low"}

    async def test_effort_not_sent_to_model_without_it(self, project, doctor):
        project.agent("a.md", "a", model="claude-haiku-4-5", effort="low")
        (request,) = await sent(project, ("a", "x"))
        assert "output_config" not in request.body
        assert any("effort of a is not used" in text for _, _, text, _ in doctor()[1])

    async def test_1m_suffix_sends_beta_where_needed(self, project):
        project.agent("a.md", "a", model="claude-sonnet-4-5[1m]")
        project.agent("b.md", "b", model="sonnet[1m]")
        old, new = await sent(project, ("a", "x"), ("b", "x"))
        assert (old.body["model"], new.body["model"]) == ("claude-sonnet-4-5", "claude-sonnet-5-5")
        headers = [{name.lower(): value for name, value in one.headers.items()} for one in (old, new)]
        assert headers[0]["anthropic-beta"] == "context-1m-2025-08-07"
        assert "anthropic-beta" not in headers[1]

    async def test_settings_change_cache_key(self, project):
        path = project.agent("a.md", "a", effort="low", model="claude-sonnet-5")
        async with fleet(project.folder) as (orchestrator, _):
            assert not (await orchestrator.execute_agent("a", "x")).cached
            assert (await orchestrator.execute_agent("a", "x")).cached
            path.write_text(path.read_text().replace("low", "high"))
            assert not (await orchestrator.execute_agent("a", "x")).cached

    @pytest.mark.parametrize(
        ("key", "value"),
        (
            *(("max_tokens", "lots"), ("max_tokens", "-5"), ("temperature", "hot"), ("temperature", "nan")),
            *(("effort", "hihg"), ("skills", "{a: b}"), ("tools", "{Read: true}"), ("max_tokens", "true")),
            *(("disallowedTools", "{Bash: true}"), ("permissionMode", "paln"), ("maxTurns", "many")),
        ),
    )
    async def test_invalid_setting_is_problem_and_not_sent(self, project, doctor, key, value):
        project.agent("a.md", "a", **{key: value})
        (request,) = await sent(project, ("a", "x"))
        assert not {"temperature", "output_config"} & set(request.body)
        code, found = doctor()
        assert code == 1
        assert any(state == "problem" and f"its {key} is" in text for state, _, text, _ in found)

    @pytest.mark.parametrize(
        ("front_matter", "expected"),
        [
            ({"tools": "{Read: true}"}, AgentSettings(tools=())),
            ({"tools": "3.5"}, AgentSettings(tools=())),
            ({"disallowedTools": "{Bash: true}"}, AgentSettings(disallowed_tools=("*",))),
            ({"permissionMode": "Plan", "maxTurns": "7"}, AgentSettings(permission_mode="plan", max_turns=7)),
        ],
    )
    def test_invalid_tools_give_none(self, project, front_matter, expected):
        project.agent("a.md", "a", **front_matter)
        assert Registry(project.folder).get("a").settings == expected

    def test_tools_of_a_command(self, project):
        project.file("commands/c.md", front("allowed-tools: Read\ndisallowed-tools: Bash(rm:*)"))
        expected = AgentSettings(tools=("Read",), disallowed_tools=("Bash(rm:*)",))
        assert Registry(project.folder).get("c").settings == expected

    @pytest.mark.parametrize("key", sorted(key for key, one in AGENT_KEYS.items() if one.use != "obeyed"))
    def test_doctor_and_info_name_unused_keys(self, project, doctor, capsys, key):
        value = {"permissionMode": "plan", "maxTurns": 3}.get(key, "word")
        project.file("agents/a.md", front(f"name: a\n{key}: {value}"))
        code, found = doctor()
        named = [text for _, name, text, _ in found if name == "front matter"]
        assert code == 0
        assert any(key in text for text in named)
        assert main(["info", "a", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["not_used"] == {key: AGENT_KEYS[key].meaning}

    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            *(("modle", "model"), ("allowedTools", "tools"), ("allowed-tools", "tools"), ("tool", "tools")),
            *(("max_turns", "maxTurns"), ("MaxTurns", "maxTurns"), ("descripton", "description")),
            *(("maxTokens", "max_tokens"), ("disallowed_tools", "disallowedTools"), ("efort", "effort")),
        ],
    )
    def test_suggests_key_for_typo(self, project, doctor, written, meant):
        project.file("agents/a.md", front(f"name: a\n{written}: x"))
        assert any(f"'{written}'" in text and meant in mend for _, _, text, mend in doctor()[1])

    @pytest.mark.parametrize(
        "key", ["version", "author", "tags", "category", "mode", "x", "scope", "license"]
    )
    def test_a_key_of_others_is_left_alone(self, project, doctor, key):
        project.file("agents/a.md", front(f"name: a\n{key}: x"))
        assert {state for state, *_ in doctor()[1]} == {"ok"}

    @pytest.mark.parametrize(
        ("text", "key", "meant"),
        [
            ('{"worklfows": {}}', "worklfows", "workflows"),
            ('{"agent": {}}', "agent", "agents"),
            ('{"agents": {"a": {"file": "a.md", "contrct": "c.md"}}}', "contrct", "contract"),
            ('{"agents": {"a": {"file": "a.md", "Priority": 1}}}', "Priority", "priority"),
        ],
    )
    def test_a_slip_in_claude_json_is_told(self, project, doctor, text, key, meant):
        project.file("a.md", "Body")
        project.file("claude.json", text)
        code, found = doctor()
        assert code == 0
        assert any(f'"{key}"' in text and meant in mend for _, _, text, mend in found)

    def test_ignores_other_claude_json_keys(self, project, doctor):
        project.file("agents/a.md", front("name: a"))
        project.file("claude.json", '{"hooks": {}, "permissions": {}, "name": "x", "env": {}}')
        assert {state for state, *_ in doctor()[1]} == {"ok"}


class TestWrongModel:
    @pytest.mark.parametrize(
        "line", ["model: a, b", "model: |\n  haiku\n  scope", "model: [opus]", 'model: "a b"']
    )
    async def test_is_never_sent_and_a_problem(self, project, doctor, line):
        project.file("agents/a.md", front(f"name: a\n{line}"))
        async with fleet(project.folder) as (orchestrator, server):
            with pytest.raises(ConfigurationError, match="can't be the name of a model"):
                await orchestrator.execute_agent("a", "x")
            assert server.requests == []
            assert (await orchestrator.execute_agent("a", "x", model="opus")).success
        code, found = doctor()
        assert code == 1
        assert any(state == "problem" and name == "model" for state, name, _, _ in found)

    async def test_fails_its_row_alone(self, project):
        project.file("agents/a.md", front("name: a\nmodel: a, b"))
        project.agent("b.md", "b")
        async with fleet(project.folder) as (orchestrator, server):
            wrong, right = await orchestrator.execute_multiple([("a", "x"), ("b", "x")])
        assert (wrong.success, right.success, len(server.requests)) == (False, True, 1)
        assert isinstance(wrong.error, InputError)

    def test_names_variable_of_environment_value(self, project, doctor, monkeypatch):
        project.agent("a.md", "a")
        monkeypatch.setenv("ANTHROPIC_MODEL", "my model")
        code, found = doctor()
        assert code == 1
        assert any("ANTHROPIC_MODEL" in text for state, _, text, _ in found if state == "problem")


class TestNotes:
    def test_reports_late_front_matter(self, project):
        project.file("agents/a.md", "<!-- shared -->\n" + front("name: other\nmodel: opus"))
        project.agent("b.md", "b")
        state, reason = remarks(project)["agents/a.md"]
        assert state == "warning"
        assert "line 2" in reason and "line 1" in reason

    @pytest.mark.parametrize("before", ["\n", "# Title\n\n", "<!--\nlong\n-->\n", " ", "x\ny\n"])
    def test_whatever_stands_before_it(self, project, before):
        project.file("agents/a.md", before + front("name: other"))
        assert "line 1" in remarks(project)["agents/a.md"][1]

    @pytest.mark.parametrize(
        "text", ["Text\n\n---\n\nMore\n\n---\n", "a\n---\nNote: x\n---\n", "a\n---\nname: x\n"]
    )
    def test_horizontal_rule_is_not_front_matter(self, project, text):
        project.file("agents/a.md", text)
        assert remarks(project) == {}

    def test_list_and_info_lead_to_it(self, project, capsys, monkeypatch):
        project.file("agents/a.md", "\n" + front("name: other"))
        monkeypatch.chdir(project.folder)
        assert main(["list", "agents"]) == 0
        assert "1 warning: run doctor" in capsys.readouterr().err
        assert main(["info", "a", "--json"]) == 0
        assert "line 1" in json.loads(capsys.readouterr().out)["remarks"][0]

    def test_file_without_front_matter_is_a_note(self, project, capsys, monkeypatch):
        project.agent("a.md", "a")
        project.file("agents/guide.md", "How we write agents.")
        assert project.names() == ["a"]
        with pytest.raises(ConfigurationError, match="taken for notes"):
            project.registry.get("guide")
        monkeypatch.chdir(project.folder)
        assert main(["list", "agents"]) == 0
        assert "agents/guide.md is not an agent: it has no front matter" in capsys.readouterr().err

    def test_all_files_without_front_matter_are_agents(self, project):
        project.file("agents/a.md", "You help.")
        project.file("agents/b.md", "You review.")
        project.file("agents/README.md", "# Our agents")
        assert project.names() == ["a", "b"]

    def test_claude_json_may_name_a_file_without(self, project):
        project.agent("a.md", "a")
        project.file("agents/plain.md", "You help.")
        project.config(agents={"plain": {"file": "agents/plain.md"}})
        assert project.names() == ["a", "plain"]


class TestNames:
    def test_equal_slugs_are_both_reachable(self, project):
        project.agent("агент-api.md", "агент-api", body="first")
        project.agent("тест-api.md", "тест-api", body="second")
        found = {title: project.registry.get(title) for title in ("агент-api", "тест-api")}
        assert [one.definition for one in found.values()] == ["first\n", "second\n"]
        assert len(set(project.names()) - {"api"}) == 2
        for one in found.values():
            assert project.registry.get(one.name) == one
        assert all(state == "note" for state, _ in remarks(project).values())

    def test_the_files_own_name_serves(self, project):
        project.agent("api-agent.md", "агент-api")
        project.agent("api-tester.md", "тест-api")
        assert project.names() == ["api-agent", "api-tester"]

    def test_name_without_usable_letter_is_reachable(self, project):
        project.agent("代码审查.md", "代码审查")
        (name,) = project.names()
        assert re.fullmatch("[a-zA-Z0-9_-]+", name)
        assert project.registry.get("代码审查").name == name
        assert project.registry.get(name).title == "代码审查"

    def test_partial_slug_serves_when_unique(self, project):
        project.agent("агент-api.md", "агент-api")
        project.agent("b.md", "b")
        assert project.names() == ["api", "b"]

    def test_it_takes_no_name_from_another(self, project):
        project.agent("агент-api.md", "агент-api", body="first")
        project.agent("x.md", "api", body="second")
        assert project.registry.get("api").definition == "second\n"
        assert project.registry.get("агент-api").definition == "first\n"

    def test_both_claude_json_entries_are_reachable(self, project):
        project.file("a.md", "first")
        project.file("b.md", "second")
        project.config(agents={"агент-api": {"file": "a.md"}, "тест-api": {"file": "b.md"}})
        assert project.registry.get("агент-api").definition == "first"
        assert project.registry.get("тест-api").definition == "second"

    def test_reports_which_duplicate_is_used(self, project):
        project.agent("a.md", "same", body="first")
        project.agent("b.md", "same", body="second")
        assert project.registry.get("same").definition == "first\n"
        assert "taken by agents/a.md, which is used" in project.reasons()["agents/b.md"]

    def test_reports_shadowed_user_agent(self, project, clean_environment):
        Project(clean_environment).agent("mine.md", "same")
        project.agent("a.md", "same")
        assert remarks(project)["agents/mine.md"][0] == "note"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        *(("worklfows", "workflows", True), ("modle", "model", True), ("mode", "model", True)),
        *(("models", "model", True), ("modal", "model", True), ("model", "model", False)),
        *(
            ("mdole", "model", False),
            ("moel", "model", True),
            ("mo", "model", False),
            ("xodey", "model", False),
        ),
    ],
)
def test_is_one_off(one, other, expected):
    assert is_one_off(one, other) is is_one_off(other, one) is expected
