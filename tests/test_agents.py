"""Agents of a project and of the user: precedence, odd files, and edits while the program runs."""

import json
import logging
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claude_force.agents import Registry, check_task, models, resolve_model
from claude_force.agents.definition import _read_plain, _read_strict, read_definition
from claude_force.agents.names import check_name, is_name, slug, suggest
from claude_force.errors import (
    AgentNotFoundError,
    ConfigurationError,
    InvalidAgentNameError,
    InvalidTaskError,
    WorkflowNotFoundError,
)


class Project:
    """A project folder that tests write into, and a registry over it."""

    def __init__(self, folder):
        self.folder = folder
        self.claude = folder / ".claude"
        (self.claude / "agents").mkdir(parents=True)

    def file(self, path, text):
        target = self.claude / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
        return target

    def agent(self, file, name=None, body="You help.", **fields):
        front = "".join(f"{key}: {value}\n" for key, value in {"name": name, **fields}.items() if value)
        return self.file(f"agents/{file}", f"---\n{front}---\n{body}\n")

    def config(self, **sections):
        self.file("claude.json", json.dumps(sections))

    @property
    def registry(self):
        return Registry(self.folder)

    def names(self):
        return [one["name"] for one in self.registry.list_agents()]

    def reasons(self):
        return {one.file: one.reason for one in self.registry.problems()}


ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "project")


class TestNames:
    @pytest.mark.parametrize("name", ["a", "Python-Expert_2", "-", "x" * 500])
    def test_accepts_letters_digits_underscore_dash(self, name):
        assert check_name(name) == name

    @pytest.mark.parametrize(
        "name", ["", " ", "a b", "a.b", "../a", "a\n", "é", "a;b", "a'b", "a\0", None, 3, b"a", ["a"]]
    )
    def test_all_else_is_refused(self, name):
        with pytest.raises(InvalidAgentNameError, match="^Invalid agent name"):
            check_name(name)

    @given(st.text())
    def test_a_slug_passes_the_rule_or_is_empty(self, name):
        assert slug(name) == "" or is_name(slug(name))

    @pytest.mark.parametrize(
        ("name", "expected"),
        [("My Agent v1.2", "my-agent-v1-2"), ("Code-Reviewer", "Code-Reviewer"), ("éà", ""), ("  x  ", "x")],
    )
    def test_slug_replaces_invalid_characters(self, name, expected):
        assert slug(name) == expected

    def test_the_nearest_names_ignore_case(self):
        assert suggest("code-reviwer", ["Code-Reviewer", "writer"]) == ["Code-Reviewer"]

    @pytest.mark.parametrize("task", ["", " \n\t", None, 7, b"x", "half \ud800 pair"])
    def test_what_is_no_task_is_refused(self, task):
        with pytest.raises(InvalidTaskError):
            check_task(task)


class TestFrontMatter:
    def test_fields_and_body_are_told_apart(self):
        read = read_definition("---\nname: a\nmodel: opus\n---\nBody\n---\nmore\n")
        assert (read.fields, read.body) == ({"name": "a", "model": "opus"}, "Body\n---\nmore\n")

    def test_an_unquoted_colon_is_read(self):
        read = read_definition(
            "---\nname: a\ndescription: Use when: it rains. Example: now\nmodel: opus\n---\nB"
        )
        assert read.fields == {
            "name": "a",
            "description": "Use when: it rains. Example: now",
            "model": "opus",
        }

    def test_description_continues_at_column_0(self):
        front = (
            "name: a\ndescription: Use this agent when: <example>\n"
            "Context: the user asks.\nuser: hi\nassistant: yes: of course\n</example>\n\n"
            "model: opus\ntools: *\n"
        )
        read = read_definition(f"---\n{front}---\nB")
        assert read.text("model") == "opus"
        assert read.text("tools") == "*"
        assert "assistant: yes: of course" in read.fields["description"]

    def test_tools_may_be_a_star(self):
        assert read_definition("---\nname: a\ntools: *\n---\nB").fields == {"name": "a", "tools": "*"}

    def test_accepts_crlf_and_bom(self):
        read = read_definition("\ufeff---\r\nname: a\r\ndescription: b\r\n---\r\nBody\r\n")
        assert (read.fields, read.body) == ({"name": "a", "description": "b"}, "Body\n")

    def test_lenient_parser_strips_quotes(self):
        read = read_definition('---\nname: "a"\ndescription: x: y: z\n---\nB')
        assert read.fields["name"] == "a"

    def test_without_front_matter_all_is_body(self):
        assert read_definition("# Title\ntext").body == "# Title\ntext"

    def test_unclosed_front_matter_is_a_problem(self):
        assert "no closing" in read_definition("---\nname: a\nBody").problem

    def test_does_not_expand_yaml_aliases(self):
        bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
        )
        read = read_definition(f"---\n{bomb}name: n\n---\nB")
        assert len(str(read.fields)) < 2000

    @given(st.text(max_size=300))
    def test_no_text_breaks_the_reader(self, text):
        assert isinstance(read_definition(text).body, str)

    @given(st.text(st.sampled_from("-:\n#&*[]{}\"'| >a\t"), max_size=80))
    def test_no_front_matter_breaks_the_reader(self, text):
        assert isinstance(read_definition(f"---\n{text}\n---\nB").fields, dict)

    @given(
        st.dictionaries(
            st.from_regex(r"[a-z][a-z_-]{0,10}", fullmatch=True),
            st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, blacklist_characters="\x7f\x85&*")),
            min_size=1,
        )
    )
    def test_what_yaml_writes_is_read_back(self, fields):
        written = yaml.safe_dump(fields, allow_unicode=True)
        assert read_definition(f"---\n{written}---\nB").fields == yaml.safe_load(written)

    @given(
        st.lists(
            st.tuples(
                st.from_regex(
                    r"[A-Za-z][\w-]{0,5}", fullmatch=True, alphabet=st.characters(max_codepoint=126)
                ),
                st.sampled_from([": ", ":", " : ", ":\t"]),
                st.one_of(
                    st.text(st.characters(min_codepoint=32, max_codepoint=126)),
                    st.text("ab .,;/()!?+=<>'\"-:#", min_size=1),
                    st.sampled_from(["Yes", "NULL", "off ", "True", "e1", "a: b", "a #b", "a#b"]),
                ),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_fast_parser_agrees_with_yaml(self, fields):
        lines = ["".join(parts) for parts in fields]
        plain = _read_plain(lines)
        if plain is not None:
            assert plain == _read_strict("\n".join(lines))


def test_plain_front_matter_imports_no_yaml():
    text = "---\nname: a-b\ndescription: Reviews code, slowly (and well)\nmodel: opus\n---\nYou help.\n"
    program = (
        "import sys; from claude_force.agents.definition import read_definition; "
        f"print(read_definition({text!r}).fields['description'], 'yaml' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=str(ROOT), capture_output=True, text=True)
    assert done.stdout.strip() == "Reviews code, slowly (and well) False", done.stderr


class TestSources:
    def test_loads_agents_without_claude_json(self, project):
        project.agent("reviewer.md", "code-reviewer", description="Reviews code", model="opus")
        agent = project.registry.get("code-reviewer")
        assert (agent.definition, agent.model, agent.description) == ("You help.\n", "opus", "Reviews code")

    def test_finds_agents_in_subfolders(self, project):
        project.agent("deep/er/one.md", "deep")
        assert project.names() == ["deep"]

    def test_file_name_names_agent_without_front_matter(self, project):
        project.file("agents/helper.md", "You help without ceremony.")
        assert project.registry.get("helper").definition == "You help without ceremony."

    def test_claude_json_overrides_front_matter(self, project):
        project.agent("a.md", "a", body="from front matter")
        project.file("own.md", "---\ndescription: mine\nmodel: haiku\n---\nfrom claude.json")
        project.config(agents={"a": {"file": "own.md", "priority": 1, "domains": ["x"]}})
        agent = project.registry.get("a")
        assert (agent.definition, agent.description, agent.model) == ("from claude.json", "mine", "haiku")
        assert (agent.priority, agent.domains) == (1, ("x",))

    def test_a_project_wins_over_the_user(self, project, clean_environment):
        user = Project(clean_environment)
        user.agent("a.md", "a", body="the user's")
        user.agent("b.md", "b", body="the user's")
        project.agent("a.md", "a", body="the project's")
        assert project.registry.get("a").definition == "the project's\n"
        assert project.registry.get("b").definition == "the user's\n"

    def test_user_agent_loads_beside_project_agent(self, project, clean_environment):
        Project(clean_environment).agent("helper.md", "theirs")
        project.agent("helper.md", "ours")
        assert set(project.names()) == {"ours", "theirs"}

    def test_file_in_claude_json_is_one_agent(self, project):
        project.agent("helper.md", "front-matter-name")
        project.config(agents={"own-name": {"file": "agents/helper.md"}})
        assert project.names() == ["own-name"]

    def test_reads_contract_of_agent(self, project):
        project.file("a.md", "Body")
        project.file("contracts/a.md", "Owed")
        project.config(agents={"a": {"file": "a.md", "contract": "contracts/a.md"}})
        assert project.registry.get("a").contract == "Owed"
        assert project.registry.get_agent_info("a")["contract"] == "contracts/a.md"

    def test_lists_by_priority_then_name(self, project):
        for name in ("c", "b", "a"):
            project.file(f"{name}.md", "Body")
        entries = {"c": {"file": "c.md", "priority": 1}, "b": {"file": "b.md"}, "a": {"file": "a.md"}}
        project.config(agents=entries, other="left alone")
        assert project.names() == ["c", "a", "b"]

    @pytest.mark.parametrize("spelling", ["My Agent v1.2", "my-agent-v1-2"])
    def test_finds_name_with_spaces_by_both_spellings(self, project, spelling):
        project.agent("a.md", "My Agent v1.2")
        assert project.registry.get(spelling).name == "my-agent-v1-2"

    def test_finds_project_by_walking_up(self, project):
        project.agent("a.md", "a")
        (project.folder / ".git").mkdir()
        deep = project.folder / "src" / "deep"
        deep.mkdir(parents=True)
        assert Registry(start=deep).get("a")

    def test_nested_repository_sees_own_agents_only(self, project):
        project.agent("a.md", "a")
        inner = project.folder / "inner"
        (inner / ".git").mkdir(parents=True)
        with pytest.raises(AgentNotFoundError):
            Registry(start=inner).get("a")

    @pytest.mark.parametrize("path", ["", ".claude", ".claude/claude.json"])
    def test_config_path_takes_project_folder_or_file(self, project, path):
        project.file("a.md", "Body")
        project.config(agents={"a": {"file": "a.md"}})
        assert Registry(str(project.folder / path)).get("a")

    def test_refuses_missing_config_path(self, tmp_path):
        with pytest.raises(ConfigurationError, match="not found"):
            Registry(tmp_path / "nowhere.json")

    @pytest.mark.parametrize(
        "text", ["{", "[]", '{"agents": []}', '{"workflows": 3}', b"\xff", "[" * 200_000]
    )
    def test_a_broken_claude_json_is_named(self, project, text):
        project.file("claude.json", text)
        with pytest.raises(ConfigurationError, match="claude.json"):
            project.registry.list_agents()

    def test_returns_workflows_as_written(self, project):
        project.config(workflows={"w": ["a", "b"]})
        assert project.registry.list_workflows() == {"w": ["a", "b"]}
        with pytest.raises(WorkflowNotFoundError, match="^Workflow 'v' not found"):
            project.registry.workflow("v")


class TestProblems:
    def test_an_empty_body_is_reported(self, project):
        project.agent("a.md", "a", body=" ")
        assert "no instructions" in project.reasons()["agents/a.md"]

    def test_reports_duplicate_agent_name(self, project):
        project.agent("a.md", "same", body="first")
        project.agent("b.md", "same", body="second")
        assert project.registry.get("same").definition == "first\n"
        assert "taken by agents/a.md" in project.reasons()["agents/b.md"]

    def test_notes_are_not_agents(self, project):
        project.file("agents/README.md", "# Our agents")
        assert project.names() == []
        assert "notes" in project.reasons()["agents/README.md"]

    def test_reports_bad_encoding_and_large_file(self, project):
        project.file("agents/latin.md", "é".encode("latin-1"))
        project.file("agents/large.md", "x" * 2_000_000)
        assert "UTF-8" in project.reasons()["agents/latin.md"]
        assert "over" in project.reasons()["agents/large.md"]

    def test_non_ascii_name_takes_file_stem(self, project):
        project.agent("reviewer.md", "日本語")
        assert project.names() == ["reviewer"]
        assert project.registry.get("日本語").name == "reviewer"
        assert [(one.file, one.state) for one in project.registry.remarks()] == [
            ("agents/reviewer.md", "note")
        ]

    @pytest.mark.parametrize(
        "file",
        ["../secret.md", "/etc/passwd", "agents/../../secret.md", "C:\\x.md", "..\\secret.md", "a\0b", ""],
    )
    def test_refuses_file_outside_folder(self, project, file):
        (project.folder / "secret.md").write_text("secret", encoding="utf-8")
        project.config(agents={"a": {"file": file}})
        with pytest.raises(ConfigurationError, match="^Agent 'a' can't be used"):
            project.registry.get("a")

    def test_refuses_absolute_path(self, project):
        own = project.file("agents/own.md", "Body")
        for entry in ({"file": str(own)}, {"file": "agents/own.md", "contract": str(own)}):
            project.config(agents={"a": entry})
            with pytest.raises(ConfigurationError, match="absolute path"):
                project.registry.get("a")

    def test_refuses_contract_outside_folder(self, project):
        project.file("a.md", "Body")
        project.config(agents={"a": {"file": "a.md", "contract": "../../etc/passwd"}})
        with pytest.raises(ConfigurationError, match="outside"):
            project.registry.get("a")

    def test_refuses_link_out_of_folder(self, project):
        secret = project.folder.parent / "secret.md"
        secret.write_text("secret", encoding="utf-8")
        (project.claude / "agents" / "a.md").symlink_to(secret)
        assert "outside" in project.reasons()["agents/a.md"]
        with pytest.raises(ConfigurationError):
            project.registry.get("a")

    def test_follows_link_inside_folder(self, project):
        project.file("shared/a.md", "Body")
        (project.claude / "agents" / "a.md").symlink_to(project.claude / "shared" / "a.md")
        assert project.registry.get("a").definition == "Body"

    @pytest.mark.parametrize(
        "entry",
        [
            None,
            "a.md",
            {},
            {"file": 3},
            {"file": "a.md", "priority": "high"},
            {"file": "a.md", "contract": ["b.md"]},
            {"file": "a.md", "domains": "python"},
            {"file": "no such\ud800.md"},
        ],
    )
    def test_bad_entry_leaves_others_usable(self, project, entry):
        project.file("a.md", "Body")
        project.config(agents={"bad": entry, "good": {"file": "a.md"}})
        assert project.names() == ["good"]
        assert [one.name for one in project.registry.problems()] == ["bad"]

    def test_reports_entry_with_unusable_name(self, project):
        project.file("a.md", "Body")
        project.config(agents={"日本語": {"file": "a.md"}})
        assert project.names() == []
        assert "no letter" in project.reasons()["a.md"]

    def test_an_endless_front_matter_is_reported(self, project):
        project.agent("a.md", "a", description="x" * 200_000)
        assert "front matter has over" in project.reasons()["agents/a.md"]

    def test_reports_file_replaced_by_folder(self, project):
        (project.claude / "a.md").mkdir()
        project.config(agents={"a": {"file": "a.md"}})
        assert project.names() == []
        assert "can't be read" in project.reasons()["a.md"]

    def test_reports_entries_with_equal_slugs(self, project):
        project.file("a.md", "Body")
        project.config(agents={"my agent": {"file": "a.md"}, "My.Agent": {"file": "a.md"}})
        assert project.names() == ["my-agent"]
        assert [one.name for one in project.registry.problems()] == ["My.Agent"]

    def test_error_without_agents_says_where_to_add(self, project):
        with pytest.raises(
            AgentNotFoundError, match="^Agent 'a' not found. There are no agents in .*agents/a.md"
        ):
            project.registry.get("a")


class TestHotReload:
    def test_an_edit_is_seen(self, project):
        path = project.agent("a.md", "a", body="before")
        registry = project.registry
        registry.get("a")
        path.write_text("---\nname: a\n---\nafter it", encoding="utf-8")
        assert registry.get("a").definition == "after it"

    def test_sees_added_and_removed_files(self, project):
        first = project.agent("a.md", "a")
        registry = project.registry
        registry.get("a")
        project.agent("sub/b.md", "b")
        assert registry.get("b")
        first.unlink()
        with pytest.raises(AgentNotFoundError):
            registry.get("a")

    def test_a_renamed_agent_is_seen(self, project):
        path = project.agent("a.md", "old")
        registry = project.registry
        registry.get("old")
        path.write_text("---\nname: renamed\n---\nBody", encoding="utf-8")
        assert registry.get("renamed")

    def test_an_edited_contract_is_seen(self, project):
        project.file("a.md", "Body")
        project.file("c.md", "before")
        project.config(agents={"a": {"file": "a.md", "contract": "c.md"}})
        registry = project.registry
        registry.get("a")
        project.file("c.md", "after it")
        assert registry.get("a").contract == "after it"

    def test_refuses_file_replaced_by_outside_link(self, project):
        project.file("a.md", "Body")
        project.config(agents={"a": {"file": "a.md"}})
        registry = project.registry
        registry.get("a")
        secret = project.folder.parent / "secret.md"
        secret.write_text("secret", encoding="utf-8")
        (project.claude / "a.md").unlink()
        (project.claude / "a.md").symlink_to(secret)
        with pytest.raises(ConfigurationError):
            registry.get("a")

    def test_a_claude_json_that_appears_is_seen(self, project):
        registry = project.registry
        registry.list_agents()
        project.file("a.md", "Body")
        project.config(agents={"a": {"file": "a.md"}})
        assert registry.get("a")


class TestModels:
    @pytest.fixture(autouse=True)
    def known_models(self, monkeypatch):
        monkeypatch.setattr(models, "sdk_models", lambda: ("claude-opus-9-1", "claude-sonnet-4-5-20250929"))
        models.newest_model.cache_clear()
        yield
        models.newest_model.cache_clear()

    def test_model_precedence(self, monkeypatch):
        assert resolve_model(None, None) == "claude-sonnet-5-5"
        monkeypatch.setenv("ANTHROPIC_MODEL", "from-environment")
        assert resolve_model(None, None) == "from-environment"
        assert resolve_model(None, "from-agent") == "from-agent"
        assert resolve_model("from-call", "from-agent") == "from-call"

    @pytest.mark.parametrize("value", ["inherit", "default", "", " Inherit "[1:-1].lower()])
    def test_inherit_leaves_it_to_the_next(self, monkeypatch, value):
        monkeypatch.setenv("ANTHROPIC_MODEL", "haiku")
        assert resolve_model(None, value) == "claude-haiku-5-5"

    @pytest.mark.parametrize("alias", ["opus", "Opus", "opus[1m]", "opusplan"])
    def test_alias_means_newest_known_model(self, alias):
        assert resolve_model(alias, None) == "claude-opus-9-1"

    def test_environment_sets_alias(self, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_DEFAULT_HAIKU_MODEL", "my-haiku")
        assert resolve_model("haiku", None) == "my-haiku"

    def test_prefers_undated_model_id(self, monkeypatch):
        dated = ("claude-haiku-6-1-20270101", "claude-haiku-6-1", "claude-haiku-6-20270401")
        monkeypatch.setattr(models, "sdk_models", lambda: dated)
        assert models.newest_model("haiku") == "claude-haiku-6-1"

    def test_warns_once_of_retired_model(self, caplog):
        models._warned.clear()
        for _ in range(2):
            models.warn_if_retired("claude-3-7-sonnet-latest", date(2026, 11, 1))
        assert [record.getMessage() for record in caplog.records] == [
            "model claude-3-7-sonnet-latest is retired: use claude-sonnet-5-5"
        ]

    def test_warns_of_model_that_retires_soon(self, caplog):
        models._warned.clear()
        models.warn_if_retired("claude-sonnet-4-5", date(2026, 11, 1))
        assert "retires on 2026-11-30" in caplog.text

    def test_a_current_model_is_no_matter(self, caplog):
        models.warn_if_retired("claude-sonnet-5-5", date(2026, 11, 1))
        assert caplog.records == []


def test_reads_sdk_models_without_import():
    models.sdk_models.cache_clear()
    assert any(one.startswith("claude-sonnet-") for one in models.sdk_models())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(text=st.text(max_size=200))
def test_any_file_is_agent_or_problem(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("any") / ".claude"
    (folder / "agents").mkdir(parents=True)
    (folder / "agents" / "a.md").write_bytes(text.encode("utf-8", "surrogatepass"))
    registry = Registry(folder)
    assert len(registry.list_agents()) + len(registry.problems()) == 1


def test_warning_log_has_model_field(caplog):
    models._warned.clear()
    with caplog.at_level(logging.WARNING):
        models.warn_if_retired("claude-2.1", date(2026, 11, 1))
    assert caplog.records[0].model == "claude-2.1"
