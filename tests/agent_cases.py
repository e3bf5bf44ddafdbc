"""Plays the recorded cases of `data/tool_cases.json` to whole agents, and compares what they did.

A case has files, an agent with the lines of its front matter, the answers of a model that calls tools, and
what Claude Code's own command (2.1.332) did: the tools that it offered, its requests, the results of the
calls, the files that it changed. `$P` is the project, `$O` a folder outside of it, `$H` the home folder.
`grant` is what a run here grants that corresponds to the command's `flags`.
"""

import os
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from tool_cases import Json, Setting, same

from claude_force import AsyncAgentOrchestrator
from claude_force.testing import Content, MessagesServer, RecordedRequest, Script
from claude_force.tools.grant import parse_grant
from claude_force.tools.tool_names import AVAILABLE

TASK = "Do what is to be done."
# Later than what was there, also by the clock of a file system that counts seconds.
_LATER_NS = 2_000_000_000


class Result(NamedTuple):
    """What the model was told of one call."""

    content: Any
    is_error: bool = False


class Outcome(NamedTuple):
    """What happened in a case.

    Attributes:
        results: by the place of the call: "answer.call", both from 0.
        changed: files that are new, changed or gone.
    """

    offered: Tuple[str, ...]
    requests: int
    results: Dict[str, Result]
    changed: Dict[str, str]
    model: Optional[str] = None


def recorded(case: Json) -> Outcome:
    """What the command did."""
    results = {
        f"{number}.{position}": Result(call["result"], call.get("is_error", False))
        for number, answer in enumerate(case["answers"])
        for position, call in enumerate(answer["calls"])
        if "result" in call
    }
    offered, changed = tuple(case["offered"]), case.get("changed", {})
    return Outcome(offered, case["requests"], results, changed, case.get("model"))


class Stage:
    """The folders of a case, and the server that plays its model."""

    def __init__(self, folder: Path, case: Json) -> None:
        self.case = case
        self.setting = Setting(folder, case)
        self._before = self._state()

    def server(self) -> MessagesServer:
        answers = [self._answering(answer) for answer in self.case["answers"]]
        return MessagesServer(answer=Script([*answers, *["Done."] * 3]))

    def _answering(self, answer: Json) -> Callable[[Json], Content]:
        calls = [(call["tool"], self._input(call["input"])) for call in answer["calls"]]
        blocks: List[Json] = [{"type": "text", "text": answer["text"]}] if "text" in answer else []
        blocks += ({"type": "tool_use", "name": name, "input": given} for name, given in calls)
        content = Content(blocks, answer.get("stop", "tool_use"))

        def answering(body: Json) -> Content:
            for name, text in answer.get("writes", {}).items():
                self._write(Path(self.setting.real(name)), text)
            return content

        return answering

    def _input(self, given: Any) -> Any:
        """Text is an input that the model writes as it is, JSON or not."""
        if isinstance(given, str):
            return given.replace("$P", str(self.setting.project))
        return self.setting.real(given)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        later = path.stat().st_mtime_ns + _LATER_NS
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(later, later))

    def outcome(self, requests: Sequence[RecordedRequest]) -> Outcome:
        """What the agent that sent these requests did."""
        bodies = [one.body for one in requests if one.path.endswith("/messages")]
        offered = tuple(sorted(tool["name"] for tool in bodies[0].get("tools", ())))
        now = self._state()
        changed = {
            name: "gone" if name not in now else "changed" if name in self._before else "new"
            for name in sorted({*now, *self._before})
            if now.get(name) != self._before.get(name)
        }
        return Outcome(offered, len(bodies), self._results(bodies[-1]), changed, bodies[0]["model"])

    def _results(self, body: Json) -> Dict[str, Result]:
        found: Dict[str, Result] = {}
        for message in body["messages"]:
            content = message["content"] if message["role"] == "user" else ()
            for block in content if isinstance(content, list) else ():
                if block["type"] == "tool_result":
                    # As the stand-in makes them.
                    digits = block["tool_use_id"].rpartition("_")[2]
                    place = f"{int(digits[:12])}.{int(digits[12:])}"
                    found[place] = Result(self._shown(block["content"]), bool(block.get("is_error")))
        return found

    def _shown(self, content: Any) -> Any:
        if isinstance(content, list) and len(content) == 1 and content[0].get("type") == "text":
            content = content[0]["text"]
        return self.setting.shown(content) if isinstance(content, str) else content

    def _state(self) -> Dict[str, Any]:
        """What each file of the project and of the folder outside has in it."""
        found: Dict[str, Any] = {}
        for folder in (self.setting.project, self.setting.outside):
            for path in sorted(folder.rglob("*")):
                if ".git" not in path.parts and (path.is_symlink() or not path.is_dir()):
                    content = os.readlink(path) if path.is_symlink() else path.read_bytes()
                    found[self.setting.shown(str(path))] = content
        return found


async def play(case: Json, folder: Path) -> Outcome:
    """Plays a case to an agent here."""
    stage = Stage(folder, case)
    options = stage.setting.real(case.get("options", {}))
    with stage.server() as server:
        async with AsyncAgentOrchestrator(
            stage.setting.project / ".claude",
            api_key="test-key",
            base_url=server.base_url,
            enable_cache=False,
            enable_tracking=False,
        ) as orchestrator:
            await orchestrator.execute_agent("w", TASK, tools=case["grant"], in_place=True, **options)
        return stage.outcome(server.requests)


def granted(case: Json) -> Tuple[str, ...]:
    """The tools that the run of a case grants here."""
    grant = parse_grant(case["grant"])
    return tuple(name for name in AVAILABLE if grant.grants(name))


def differences(
    expected: Outcome, found: Outcome, offered: Sequence[str] = AVAILABLE
) -> Dict[str, Tuple[Any, Any]]:
    """What differs, as (expected, found) by its place: "offered", "requests", "1.0" and so on.

    Of the tools that are expected to be offered, only `offered` are compared.
    """
    pairs: Dict[str, Tuple[Any, Any]] = {
        "offered": (tuple(name for name in expected.offered if name in offered), found.offered),
        "requests": (expected.requests, found.requests),
        "changed": (expected.changed, found.changed),
    }
    if expected.model:
        pairs["model"] = expected.model, found.model
    differing = {place: pair for place, pair in pairs.items() if pair[0] != pair[1]}
    for place in sorted({*expected.results, *found.results}):
        one, other = expected.results.get(place), found.results.get(place)
        if one is None or other is None or not _is_same(one, other):
            differing[place] = (one, other)
    return differing


def _is_same(expected: Result, found: Result) -> bool:
    one, other = expected.content, found.content
    alike = same(one, other) or (
        # Grep and Glob sort by path what the command sorts by time of change.
        isinstance(one, str) and isinstance(other, str) and same(_by_line(one), _by_line(other))
    )
    return alike and expected.is_error == found.is_error


def _by_line(text: str) -> str:
    return "\n".join(sorted(text.split("\n")))
