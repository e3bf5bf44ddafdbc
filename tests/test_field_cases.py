"""Names the tests for faults that users of other tools have reported."""

import ast
from typing import Dict, Iterator, List, NamedTuple

import pytest
from pages import ROOT


class Case(NamedTuple):
    """`expected` is one line; `tests` are the ids of tests, or of classes of them, in `tests/`."""

    expected: str
    tests: List[str]


CASES: Dict[int, Case] = {
    1: Case(
        "A status that is not named, such as 524, is worth another attempt.",
        [
            "test_error_mapping.py::test_retries_5xx_and_invalid",
            "test_endings.py::TestStatus::test_is_retried",
            "test_endings.py::TestStatus::test_obeys_x_should_retry",
        ],
    ),
    2: Case(
        "No credit, and whatever else no row can survive, ends a run at once.",
        [
            "test_run_endings.py::TestCommand::test_ends_at_the_first_answer",
            "test_run_endings.py::TestLibrary::test_unknown_model_fails_its_rows",
            "test_error_mapping.py::test_disabled_holds_for_the_run",
        ],
    ),
    3: Case(
        "After the answer that ends a run no request begins.",
        [
            "test_run_endings.py::TestLibrary::test_stops_after_fatal_answer",
            "test_run_endings.py::TestCommand::test_unwritable_output_ends_run",
        ],
    ),
    4: Case(
        "An error inside a 200 is the error that it names.",
        ["test_endings.py::TestErrorInsideA200::test_retries_named_error"],
    ),
    5: Case(
        "An answer ends at its stop reason; pings alone are waited for a bounded time.",
        [
            "test_endings.py::TestStopReason::test_ends_the_answer",
            "test_endings.py::TestQuiet::test_bounds_pings",
        ],
    ),
    6: Case(
        "A dead endpoint ends a run after the retries of its first rows, with one line.",
        [
            "test_run_endings.py::TestLibrary::test_dead_endpoint_ends_run",
            "test_run_endings.py::TestCommand::test_names_a_dead_endpoint_once",
        ],
    ),
    7: Case(
        "Unknown usage is an unknown cost, and a budget holds its worst.",
        ["test_money_truth.py::TestUnknownUsage"],
    ),
    8: Case(
        "The price of what was asked, else of what answered, is the same everywhere.",
        ["test_money_truth.py::TestWhoSetsThePrice"],
    ),
    9: Case(
        "A stream that breaks off while the model thinks counts at max_tokens.",
        ["test_money_truth.py::TestBrokenOff::test_hidden_thinking_counts_max_tokens"],
    ),
    10: Case(
        "An answer without text, a refusal and one that was cut off are told, counted and not kept.",
        ["test_not_kept.py::test_is_told_paid_and_asked_again"],
    ),
    11: Case(
        "An argument that names a file is that file; a pattern that finds nothing is told.",
        [
            "test_hostile_reading.py::TestFiles::test_literal_file_name_is_that_file",
            "test_hostile_reading.py::TestFiles::test_reports_pattern_without_match",
        ],
    ),
    12: Case(
        "A table that strict CSV refuses is refused, with the line.",
        ["test_task_files.py::TestTable::test_refused_as_a_whole"],
    ),
    13: Case(
        "Few descriptors make fewer calls at a time, and lose no answer.",
        [
            "test_descriptors.py::test_number_at_a_time_follows_the_limit",
            "test_descriptors.py::test_raises_soft_limit_as_needed",
        ],
    ),
    14: Case(
        "What the package puts together itself is bounded by the model's context, not as a caller's task.",
        [
            "test_long_steps.py::test_answers_of_128000_characters_are_told",
            "test_long_steps.py::test_run_that_failed_at_such_a_step_is_resumed",
            "test_long_steps.py::test_limit_of_a_callers_task_stays",
        ],
    ),
    15: Case(
        "A certificate file that can't be used is named with its variable.",
        [
            "test_certificates.py::test_names_unusable_file",
            "test_certificates.py::test_unknown_authority_names_variable",
        ],
    ),
    16: Case(
        "Nothing is sent that can't be written; what was spent and lost is counted.",
        ["test_full_disks.py::TestFullDisk", "test_full_disks.py::TestOutputThatIsTakenAway"],
    ),
    17: Case(
        "Nothing is written through a link, and no mode of what was there is changed.",
        [
            "test_private_files.py::TestLedger::test_ledger_follows_no_link",
            "test_private_files.py::TestLedger::test_a_refused_run_writes_as_little",
            "test_hostile_projects.py::test_a_project_does_no_harm",
            "test_private_files.py::TestOutputs",
            "test_private_files.py::TestCache",
        ],
    ),
    18: Case(
        "What leads out of the project is refused by name, and only regular files are read.",
        [
            "test_hostile_reading.py::TestFiles::test_outside_links_are_failed_rows",
            "test_project_files.py::TestReading::test_a_link_out_is_refused_by_name",
            "test_project_files.py::TestAnyTree::test_reads_regular_files_only",
        ],
    ),
    19: Case(
        "FIFOs, devices and files without end are refused before they are read.",
        [
            "test_hostile_reading.py::TestAgents::test_refuses_irregular_claude_json",
            "test_project_files.py::TestReading::test_a_fifo_is_refused_at_once",
            "test_project_files.py::TestReading::test_a_device_is_refused",
            "test_project_files.py::TestReading::test_refuses_huge_file_unread",
        ],
    ),
    20: Case(
        "Profile, address and headers are part of the question that a kept answer belongs to.",
        ["test_who_answers.py::TestHeaders", "test_who_answers.py::TestProfiles"],
    ),
    21: Case(
        "Marks of YAML within text are text; a key of one line takes no second line.",
        [
            "test_agent_files.py::TestYaml::test_alias_marks_inside_text_are_text",
            "test_agent_files.py::TestLenientReader::test_one_line_key_takes_no_second_line",
        ],
    ),
    22: Case(
        "Every key of Claude Code ends the one before; what can't be a model is a problem.",
        [
            "test_agent_files.py::TestLenientReader::test_reads_model_before_unknown_key",
            "test_agent_files.py::TestWrongModel::test_is_never_sent_and_a_problem",
        ],
    ),
    23: Case(
        "Aliases of models mean what Claude Code reads them as.",
        ["test_agent_files.py::TestModels::test_aliases_mean_what_claude_code_reads"],
    ),
    24: Case(
        "Front matter below line 1 is told; a file without it among agents is a note.",
        [
            "test_agent_files.py::TestNotes::test_reports_late_front_matter",
            "test_agent_files.py::TestNotes::test_file_without_front_matter_is_a_note",
        ],
    ),
    25: Case(
        "Links of agents that stay in the repository are followed, others are named.",
        [
            "test_hostile_reading.py::TestAgents::test_reads_linked_folder_inside",
            "test_hostile_reading.py::TestAgents::test_reports_refused_link_and_loads_others",
        ],
    ),
    26: Case(
        "A name in another script takes the file's; two that leave the same are both reached.",
        [
            "test_agents.py::TestProblems::test_non_ascii_name_takes_file_stem",
            "test_agent_files.py::TestNames::test_equal_slugs_are_both_reachable",
        ],
    ),
    27: Case(
        "Plugins, commands and skills are found.",
        [
            "test_plugins.py::TestPlugins::test_folder_with_manifest_is_plugin",
            "test_plugins.py::TestCommands::test_each_place_gets_its_argument",
            "test_plugins.py::TestSkills::test_skill_text_follows_instructions",
        ],
    ),
    28: Case(
        "Settings of front matter are obeyed or named, and so are slips in claude.json.",
        [
            "test_agent_files.py::TestFileSettings::test_all_that_the_api_takes_is_sent",
            "test_agent_files.py::TestFileSettings::test_doctor_and_info_name_unused_keys",
            "test_agent_files.py::TestFileSettings::test_a_slip_in_claude_json_is_told",
        ],
    ),
    29: Case(
        "A damaged cache file is noticed when it is opened, and rebuilt.",
        [
            "test_cache_damage.py::TestTruncated::test_lost_last_1000_bytes",
            "test_cache_damage.py::TestTruncated::test_any_length_of_the_last_page",
        ],
    ),
}
NAMED = [(number, test) for number, case in CASES.items() for test in case.tests]


def ids_in(path) -> Iterator[str]:
    """The ids of the tests in a file, and of the classes that hold some."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        tests = [
            one.name
            for one in inner
            if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) and one.name.startswith("test_")
        ]
        within = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        yield from (f"{path.name}::{within}{name}" for name in tests)
        if within and tests:
            yield f"{path.name}::{node.name}"


@pytest.mark.parametrize(("number", "test"), NAMED)
def test_case_has_a_test_that_is_there(number, test):
    assert test in ids_in(ROOT / "tests" / test.partition("::")[0])


def test_every_case_has_a_test():
    assert list(CASES) == list(range(1, 30))
    assert [number for number, case in CASES.items() if not case.tests or not case.expected] == []
