"""What agents' tools do otherwise than Claude Code's own command, and why. Writes docs/tool-fidelity.md."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from agent_cases import Outcome, Result, recorded
from tool_cases import Json, load_agent_cases

# The version whose cases are recorded.
RECORDED = "2.1.332"
# The least share of what is compared that has to be the same, or otherwise for one of the `PROMISES`.
LEAST_SAME = 0.95
_LONGEST_CELL = 110

SEARCHES = "Grep and Glob are there beside Bash too, for agents whose files name them"
NO_TOOLS = "an agent without any tool makes a plain call, so a model has none that it could call"
MAX_TURNS = "`maxTurns` of a file is obeyed for every agent; the last request forbids further calls"
NOT_CUT = "a long line is shown whole, up to the 256 KB that a file may have"
BY_PATH = "the first files by path are shown, not those that were changed last: equal files, equal requests"
INSIDE = "Edit and Write stay inside the project, whatever is granted"
BASH_GRANT = "every command needs a grant of Bash, one that only reads too"
CONFINED = "a command sees nothing outside of the project"
KILLED = "a command that takes too long is killed, as the command does without background tasks"
CUT = "head and tail of a long output are kept, and no file is written"
NO_BACKGROUND = "no process outlives its call"
SLEEP = "a command may begin with sleep"
NO_KEY = "the environment of a command is made from nothing"
LAST = "calls after the last allowed request are not made: it forbids them"
CUT_OFF = "calls of an answer that was cut off are not run: their input may be a part"
NO_MORE = "an answer that was cut off is returned with a warning, and not asked for again"
NO_ALLOW = "allow rules of settings grant nothing, in trusted folders too"

# Of the package: it runs what is granted, bounded, in a sandbox, and the same files give the same results.
PROMISES = frozenset(
    (MAX_TURNS, BY_PATH, INSIDE, BASH_GRANT, CONFINED, KILLED, CUT, NO_BACKGROUND, NO_KEY, LAST)
) | {CUT_OFF, NO_MORE, NO_ALLOW}

_BASH = "/bin/bash: line 1: {}: No such file or directory"
_UNGRANTED = "Claude requested permissions to write to {}, but you haven't granted it yet."
_APPROVAL = Result("This command requires approval", True)


class Difference(NamedTuple):
    """One difference.

    Attributes:
        place: "offered", "requests", "changed", or the place of a call: "answer.call".
        here: what happens here; None for a call that is not made. " …" stands for any text.
    """

    case: str
    place: str
    here: Any
    why: str


def _failed(text: str) -> Result:
    return Result(f"Exit code 1\n{text}", True)


DIFFERENCES: Tuple[Difference, ...] = (
    Difference("offered-omitted", "offered", ("Bash", "Edit", "Glob", "Grep", "Read", "Write"), SEARCHES),
    Difference("offered-omitted", "0.1", Result("Found 1 file\na.txt"), SEARCHES),
    Difference("offered-grep-with-bash", "offered", ("Bash", "Glob", "Grep", "Read"), SEARCHES),
    Difference("offered-grep-with-bash", "0.1", Result("Found 1 file\na.txt"), SEARCHES),
    Difference("offered-disallowed", "offered", ("Glob", "Grep", "Read", "Write"), SEARCHES),
    Difference("offered-disallowed", "0.1", Result("Found 1 file\na.txt"), SEARCHES),
    Difference("offered-empty-list", "requests", 1, NO_TOOLS),
    *(Difference("offered-empty-list", f"0.{call}", None, NO_TOOLS) for call in range(4)),
    *(
        Difference(case, place, here, MAX_TURNS)
        for case in ("front-model-and-turns", "front-model-and-turns-trusted")
        for place, here in (("requests", 2), ("1.0", None), ("2.0", None))
    ),
    Difference("read-long-2", "2.0", Result("1\t" + "y" * 120_000), NOT_CUT),
    Difference("grep-options", "6.0", Result("Found 1 file limit: 1\n.hidden.txt"), BY_PATH),
    Difference(
        "grep-many",
        "0.0",
        Result("\n".join(["Found 250 files limit: 250", *(f"m/f{number:03}.txt" for number in range(250))])),
        BY_PATH,
    ),
    Difference("outside-write", "0.0", Result(_UNGRANTED.format("$O/new.txt"), True), INSIDE),
    Difference("outside-write", "2.0", Result(_UNGRANTED.format("$R/up.txt"), True), INSIDE),
    Difference("outside-write", "changed", {}, INSIDE),
    *(Difference("denied", place, _APPROVAL, BASH_GRANT) for place in ("2.0", "3.0", "4.0")),
    Difference("denied-settings-trusted", "5.0", Result(_UNGRANTED.format("$P/x.txt"), True), NO_ALLOW),
    Difference("denied-settings-trusted", "changed", {}, NO_ALLOW),
    Difference("bash-cwd", "7.0", _failed(_BASH.format("cd: $O")), CONFINED),
    Difference(
        "bash-timeout", "0.0", Result("Exit code 143\nCommand timed out after 1s\nstart", True), KILLED
    ),
    Difference("bash-timeout", "requests", 3, KILLED),
    Difference("bash-output", "0.0", Result("1\n2\n3\n … 88,894 bytes left out …\n20000"), CUT),
    Difference("bash-output", "1.0", Result("xxx … 80,000 bytes left out …xxx"), CUT),
    Difference(
        "bash-background", "0.0", Result("Commands can't run in the background here: …", True), NO_BACKGROUND
    ),
    Difference(
        "bash-background", "2.0", Result("This command uses the `&` background operator, …", True), SLEEP
    ),
    Difference("bash-env", "0.0", Result("Exit code 1\nHOME\nPATH\nCLAUDECODE\nSHELL", True), NO_KEY),
    Difference("bash-env", "1.0", Result("/dev/null"), NO_KEY),
    Difference("max-turns", "changed", {}, LAST),
    Difference("stop-max-tokens", "requests", 1, CUT_OFF),
    Difference("stop-max-tokens", "changed", {}, CUT_OFF),
    *(Difference("stop-max-tokens", place, None, CUT_OFF) for place in ("0.0", "1.0")),
    Difference("stop-end-turn-with-tool", "requests", 2, NO_MORE),
    Difference("outside-bash", "0.0", _failed("cat: $O/secret.txt: No such file or directory"), CONFINED),
    Difference("outside-bash", "1.0", _failed("cat: link.txt: No such file or directory"), CONFINED),
    Difference("outside-bash", "2.0", _failed(_BASH.format("$O/n.txt")), CONFINED),
    Difference("outside-bash", "3.0", _failed(_BASH.format("cd: $O")), CONFINED),
    Difference(
        "outside-bash",
        "5.0",
        _failed("rm: cannot remove '$O/secret.txt': No such file or directory"),
        CONFINED,
    ),
    Difference("outside-bash", "changed", {}, CONFINED),
)


def explained(name: str) -> Dict[str, Difference]:
    """The differences of a case, by their place."""
    return {one.place: one for one in DIFFERENCES if one.case == name}


def expected(case: Json) -> Outcome:
    """What is expected to happen here: the record with the differences of the case."""
    outcome = recorded(case)
    results: Dict[str, Optional[Result]] = dict(outcome.results)
    fields: Dict[str, Any] = {}
    for place, one in explained(case["name"]).items():
        if place in Outcome._fields:
            fields[place] = one.here
        else:
            results[place] = one.here
    made = {place: result for place, result in results.items() if result is not None}
    return outcome._replace(results=made, **fields)


def compared(cases: Sequence[Json]) -> int:
    """How many things are compared: offered tools, requests, changed files, models and results."""
    return sum(3 + len(one.results) + (one.model is not None) for one in map(recorded, cases))


def page() -> str:
    """The text of docs/tool-fidelity.md."""
    cases = load_agent_cases()
    total = compared(cases)
    same, promised = total - len(DIFFERENCES), sum(one.why in PROMISES for one in DIFFERENCES)
    alike = len(cases) - len({one.case for one in DIFFERENCES})
    summary = _SUMMARY.format(
        version=RECORDED,
        cases=len(cases),
        alike=alike,
        total=total,
        same=same,
        percent=100 * same / total,
        promised=promised,
        others=len(DIFFERENCES) - promised,
    )
    outcomes = {case["name"]: (case, recorded(case)) for case in cases}
    rows = ["| case | | Claude Code | here | why |", "|---|---|---|---|---|"]
    for one in DIFFERENCES:
        case, outcome = outcomes[one.case]
        cells = (
            one.case,
            _what(case, one.place),
            _cell(_there(outcome, one.place)),
            _cell(one.here),
            one.why,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([summary, *rows, ""])


_SUMMARY = """<!-- Written by `make test-cli`: edit tests/tool_differences.py. -->
# Tools beside Claude Code's

Agents' files are written for the tools of Claude Code: for their names, their inputs and what they answer.
{cases} cases were recorded from its command (version {version}) against a server that plays a model, and
the tests play them to agents here: the same files, the same agent, the same calls of tools. Compared are
the tools that the model is offered, the number of requests, what it is told of each call, and which files
are changed.

Of {total} comparisons {same} are the same ({percent:.1f} %), in {alike} cases all of them. {promised}
differ because agents here are bounded and confined more tightly, or because the same files have to give the
same requests; {others} differ for other reasons. `make test-cli` installs the command and runs the cases
through both, side by side.

## What is not compared

- Tools that agents here don't have (`Agent`, `Skill`, `WebFetch`, servers of MCP and others), and context
  such as `CLAUDE.md`.
- Tools that the run does not grant: the command offers them and denies each call; here they are not
  offered, and a call is denied in the same words.
- The order of files that Grep and Glob find: the command sorts by time of change, here they are sorted by
  path, so that equal files give equal requests.
- The order of results in a message: the command gives them in the order in which they ended, here it is
  that of the calls.

## What differs
"""


def _there(outcome: Outcome, place: str) -> Any:
    return getattr(outcome, place) if place in Outcome._fields else outcome.results.get(place)


def _what(case: Json, place: str) -> str:
    if place in Outcome._fields:
        return place
    answer, call = map(int, place.split("."))
    made = case["answers"][answer]["calls"][call]
    arguments = made["input"]
    given = str(next(iter(arguments.values()), "")) if isinstance(arguments, dict) else arguments
    return f"{made['tool']} {_code(given)}"


def _cell(value: Any) -> str:
    if value is None:
        return "not run"
    if isinstance(value, Result):
        content = value.content
        text = content["head"] if isinstance(content, dict) else content
        return ("error: " if value.is_error else "") + _code(text)
    if isinstance(value, dict):
        return ", ".join(f"{_code(name)} {what}" for name, what in value.items()) or "nothing"
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value)


def _code(text: str) -> str:
    line = text.replace("\n", "⏎").replace("\t", "→").replace("|", "\\|").replace("`", "'")
    return f"`{line if len(line) <= _LONGEST_CELL else line[: _LONGEST_CELL - 1] + '…'}`"


def unexplained(differing: Dict[str, Tuple[Any, Any]]) -> List[str]:
    """The differences as lines, for people."""
    return [f"{place}: {one!r:.500} != {other!r:.500}" for place, (one, other) in differing.items()]
