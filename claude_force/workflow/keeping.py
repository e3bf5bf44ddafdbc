"""Runs that can be resumed: the journal as the engine uses it, off the event loop and never in the way."""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import replace
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Tuple

from anyio import to_thread

from .. import settings
from ..agents.names import slug
from ..cache.place import cache_folder
from ..cache.repair import FAULTS, is_damage
from ..cache.secret import find_secret
from ..clerk import Clerk
from ..errors import CacheError, ClaudeForceError, RunBusyError
from ..forks import forgets_after_fork
from ..portable import given_again, packed, unpacked
from ..types import AgentResult
from .journal import RUNNING, Answer, Journal, KeptRun
from .parts import Part
from .runner import Setting

logger = logging.getLogger(__name__)

SUCCEEDED, FAILED, INTERRUPTED = "succeeded", "failed", "interrupted"


def open_journal() -> Journal:
    """The user's own, in `~/.claude/runs`. Raises CacheError, OSError, sqlite3.Error."""
    secret = find_secret(None, cache_folder(None))
    return Journal(cache_folder(settings.user_folder() / "runs"), secret)


class _Job(NamedTuple):
    work: Callable[[Journal], Any]
    # Where its work is to be kept: many in one transaction.
    kept: Optional[Tuple[str, Optional[Answer], float]] = None


class Keeper:
    """The journal of one orchestrator. Without one, runs go on and can't be resumed, which is logged."""

    def __init__(self, make: Callable[[], Journal] = open_journal) -> None:
        self._make = make
        self._journal: Optional[Journal] = None
        self._clerk = Clerk(self._work, "claude-force-journal")
        forgets_after_fork(self)

    def after_fork(self) -> None:
        """Called in a forked child: the connection is its parent's."""
        self._journal = None

    async def keeping(self, workflow: str, resume: Optional[str] = None) -> Keeping:
        """A new run, or the one that is resumed. Raises RunNotFoundError, RunBusyError, CacheError."""
        if resume is None:
            return Keeping(self, KeptRun(f"{slug(workflow) or 'workflow'}-{secrets.token_hex(4)}", workflow))

        def work(journal: Journal) -> Keeping:
            run = journal.find(resume)
            if not journal.take(resume):
                raise RunBusyError(f"Run '{resume}' is under way in another process: wait for its end.")
            try:
                answers = {(one.step, one.question): one for one in journal.answers(resume)}
            except BaseException:
                journal.let_go(resume)
                raise
            return Keeping(self, run, answers)

        resumed: Keeping = self._usable(await self.do(work))
        return resumed

    async def recent(self, most: int) -> List[KeptRun]:
        """The newest first. Raises CacheError."""
        runs: List[KeptRun] = self._usable(await self.do(lambda journal: journal.recent(most)))
        return runs

    def _usable(self, found: Any) -> Any:
        if isinstance(found, ClaudeForceError):
            raise found
        if isinstance(found, BaseException):
            raise CacheError(f"The journal of runs can't be used: {found}.") from found
        return found

    async def do(self, work: Callable[[Journal], Any]) -> Any:
        """What it returns or raises, as a value."""
        return await self._clerk.do(_Job(work))

    async def keep(self, run_id: str, answer: Optional[Answer], cost: float) -> None:
        """Returns when a kill of this process does not lose it."""
        failure = await self._clerk.do(_Job(_nothing, (run_id, answer, cost)))
        if failure is not None:
            logger.warning("an answer of run %s is not kept for a resumption: %s", run_id, failure)

    async def close(self) -> None:
        """Waits for what is being written, then lets go of the file. A later use opens it again."""
        await to_thread.run_sync(self._clerk.stop)
        journal, self._journal = self._journal, None
        if journal is not None:
            await to_thread.run_sync(journal.close)

    def _work(self, jobs: List[_Job]) -> List[Any]:
        """In the clerk's thread."""
        kept = [job.kept for job in jobs if job.kept is not None]
        failure = self._one(lambda journal: journal.keep(kept)) if kept else None
        return [failure if job.kept is not None else self._one(job.work) for job in jobs]

    def _one(self, work: Callable[[Journal], Any]) -> Any:
        try:
            if self._journal is None:
                self._journal = self._make()
            return work(self._journal)
        except (ClaudeForceError, OSError, *FAULTS) as error:
            if self._journal is not None and isinstance(error, FAULTS) and is_damage(error):
                self._journal.set_aside()
                self._journal = None
            return error


def _nothing(journal: Journal) -> None:
    """What is to be kept is kept with the batch."""


class Keeping:
    """One run. Its block ends with `status`."""

    def __init__(
        self,
        keeper: Keeper,
        run: KeptRun,
        answers: Optional[Mapping[Tuple[str, bytes], Answer]] = None,
    ) -> None:
        self._keeper, self._run, self._answers = keeper, run, answers
        self._is_kept, self._has_begun = answers is not None, False
        self.status = INTERRUPTED

    @property
    def run_id(self) -> Optional[str]:
        """None where the run can't be kept."""
        return self._run.id if self._is_kept else None

    @property
    def spent_before(self) -> float:
        """USD that earlier processes of the run have paid, as far as it is known."""
        return self._run.spent

    def given(
        self, task: Optional[str], inputs: Optional[Mapping[str, Any]]
    ) -> Tuple[Optional[str], Mapping[str, Any]]:
        """The task and the inputs; those of the run that is resumed where there are no others."""
        run = self._run
        return run.task if task is None else task, run.inputs if inputs is None else inputs

    async def begin(self, setting: Setting) -> None:
        """From here on it is kept."""
        self._has_begun = True
        if self._is_kept:
            await self._keeper.do(lambda journal: journal.set_status(self._run.id, RUNNING))
            return
        self._run = run = replace(
            self._run,
            task=setting.task,
            inputs=dict(setting.inputs),
            project=str(setting.root),
            began=time.time(),
        )

        def work(journal: Journal) -> None:
            journal.begin(run)
            journal.take(run.id)

        failure = await self._keeper.do(work)
        if isinstance(failure, BaseException):
            logger.warning("the run is not kept and can't be resumed: %s", failure)
        self._is_kept = failure is None

    def recall(self, part: Part, question: Optional[bytes]) -> Optional[AgentResult]:
        """What an earlier process of this run was answered to the same question."""
        found = (self._answers or {}).get((part.step.id, question)) if question is not None else None
        if found is None:
            return None
        try:
            return given_again(unpacked(found.result), max(0.0, time.time() - found.at))
        except (ValueError, TypeError, KeyError):
            logger.warning("an answer of run %s is of another version and is asked for again", self._run.id)
            return None

    async def keep(self, part: Part, question: Optional[bytes], result: AgentResult) -> None:
        """What was paid; and the answer, where there is one."""
        if not self._is_kept:
            return
        answer = None
        if result.success and question is not None:
            answer = Answer(part.step.id, part.number, question, time.time(), packed(result))
        await self._keeper.keep(self._run.id, answer, result.cost or 0.0)

    async def __aenter__(self) -> Keeping:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._is_kept:
            return

        def work(journal: Journal) -> None:
            if self._has_begun:
                journal.set_status(self._run.id, self.status)
            journal.let_go(self._run.id)

        failure = await self._keeper.do(work)
        if isinstance(failure, BaseException):
            logger.warning("the end of run %s is not in the journal: %s", self._run.id, failure)
