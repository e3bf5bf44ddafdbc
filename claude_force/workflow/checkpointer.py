"""Runs that can be resumed: the journal as the engine uses it, off the event loop and never in the way."""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import replace
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from anyio import to_thread

from .. import settings
from ..agents.names import slug
from ..cache.private_dir import cache_folder
from ..costs import cost_or_bound
from ..engine.result_json import as_cached, dumps, loads
from ..errors import CacheError, ClaudeForceError, InputError, RunBusyError
from ..storage.batch_worker import BatchWorker
from ..storage.locks import register_after_fork
from ..storage.signing import find_secret
from ..storage.sqlite_files import FAULTS
from ..types import AgentResult
from .checkpoints import CheckpointStore, RunRecord, SavedAnswer, is_damaged
from .runner import RunConfig
from .step_calls import StepCall

logger = logging.getLogger(__name__)

# A forked child must neither use nor close what its parent opened, which may be within a transaction.
_OF_PARENTS: List[CheckpointStore] = []

INTERRUPTED = "interrupted"
# The id of a durable run has at most 64 characters.
_LONGEST_NAME = 50


def open_checkpoint_store() -> CheckpointStore:
    """The user's own, in `~/.claude/runs`. Raises CacheError, OSError, sqlite3.Error."""
    secret = find_secret(None, cache_folder(None))
    return CheckpointStore(cache_folder(settings.user_folder() / "runs"), secret)


class _Job(NamedTuple):
    work: Callable[[CheckpointStore], Any]
    # Where its work is to be kept: many in one transaction.
    kept: Optional[Tuple[str, Optional[SavedAnswer], float]] = None


class Checkpointer:
    """The journal of one orchestrator. Without one, runs go on and can't be resumed, which is logged."""

    def __init__(self, make: Callable[[], CheckpointStore] = open_checkpoint_store) -> None:
        self._make = make
        self._journal: Optional[CheckpointStore] = None
        self._clerk = BatchWorker(self._work, "claude-force-journal")
        register_after_fork(self)

    def after_fork(self) -> None:
        """Called in a forked child: the connection is its parent's."""
        if self._journal is not None:
            _OF_PARENTS.append(self._journal)
        self._journal = None

    async def open_run(self, workflow: str, resume: Optional[str] = None) -> RunCheckpoint:
        """A new run, or the one that is resumed. Raises InputError, CacheError."""
        if resume is None:
            return RunCheckpoint(self, RunRecord(_new_id(workflow), workflow))

        taken: List[str] = []

        def work(journal: CheckpointStore) -> RunCheckpoint:
            run = journal.find(resume)
            if run.workflow != workflow:
                raise InputError(f"Run '{resume}' is of the workflow '{run.workflow}', not of '{workflow}'.")
            if not journal.acquire(resume):
                raise RunBusyError(f"Run '{resume}' is under way in another process: wait for its end.")
            taken.append(resume)
            return RunCheckpoint(self, run, list(journal.answers(resume)))

        def let_go(journal: CheckpointStore) -> None:
            for one in taken:
                journal.release(one)

        found = None
        try:
            found = await self.run(work)
        finally:
            # The caller was cancelled, or the answers can't be read.
            if not isinstance(found, RunCheckpoint):
                self._clerk.submit_nowait(_Job(let_go))
        resumed: RunCheckpoint = self._usable(found)
        return resumed

    async def recent(self, most: int) -> List[RunRecord]:
        """The newest first. Raises CacheError."""
        runs: List[RunRecord] = self._usable(await self.run(lambda journal: journal.recent(most)))
        return runs

    def _usable(self, found: Any) -> Any:
        if isinstance(found, ClaudeForceError):
            raise found
        if isinstance(found, BaseException):
            raise CacheError(f"The journal of runs can't be used: {found}.") from found
        return found

    async def run(self, work: Callable[[CheckpointStore], Any]) -> Any:
        """What it returns or raises, as a value."""
        return await self._clerk.submit(_Job(work))

    async def save(self, run_id: str, answer: Optional[SavedAnswer], cost: float) -> None:
        """Returns when a kill of this process does not lose it."""
        failure = await self._clerk.submit(_Job(_nothing, (run_id, answer, cost)))
        if failure is not None:
            logger.warning("an answer of run %s is not kept for a resumption: %s", run_id, failure)

    def record_cost(self, run_id: str, cost: float) -> None:
        """Nobody waits for it."""
        self._clerk.submit_nowait(_Job(_nothing, (run_id, None, cost)))

    async def close(self) -> None:
        """Waits for what is being written, then lets go of the file. A later use opens it again."""
        await to_thread.run_sync(self.stop)

    def stop(self) -> None:
        """As `close`, for a caller without a loop."""
        self._clerk.close()
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()

    def _work(self, jobs: List[_Job]) -> List[Any]:
        """In the clerk's thread."""
        kept = [job.kept for job in jobs if job.kept is not None]
        failure = self._one(lambda journal: journal.save(kept)) if kept else None
        return [failure if job.kept is not None else self._one(job.work) for job in jobs]

    def _one(self, work: Callable[[CheckpointStore], Any]) -> Any:
        """What `work` returns, or what it or the opening raised."""
        try:
            if self._journal is None:
                self._journal = self._opened()
            return work(self._journal)
        except Exception as error:  # Whatever it is: those who wait for the thread would wait for ever.
            if self._journal is not None and is_damaged(error):
                self._journal.set_aside()
                self._journal = None
            return error

    def _opened(self) -> CheckpointStore:
        try:
            return self._make()
        except FAULTS as error:
            if not is_damaged(error):
                raise
            # It is set aside by now.
            return self._make()


def _new_id(workflow: str) -> str:
    # A name that is no text is found by the check, after this.
    return f"{slug(str(workflow))[:_LONGEST_NAME] or 'workflow'}-{secrets.token_hex(4)}"


def _nothing(journal: CheckpointStore) -> None:
    """What is to be kept is kept with the batch."""


class RunCheckpoint:
    """One run. Its block ends with `status`."""

    def __init__(
        self,
        keeper: Checkpointer,
        run: RunRecord,
        answers: Optional[Sequence[SavedAnswer]] = None,
    ) -> None:
        self._keeper, self._run = keeper, run
        # A question that several parts have is answered once for each of them.
        self._answers: Dict[Tuple[str, bytes], List[SavedAnswer]] = {}
        for one in answers or ():
            self._answers.setdefault((one.step, one.question), []).append(one)
        self._is_kept, self._has_begun = answers is not None, False
        self.status = INTERRUPTED

    @property
    def run_id(self) -> Optional[str]:
        """None where the run can't be kept."""
        return self._run.id if self._is_kept else None

    def call_id(self, part: StepCall) -> str:
        """What a call of this run is known by where calls are durable: the same when the run is resumed."""
        again = f":{part.attempt}" if part.attempt else ""
        return f"{self._run.id}:{part.step.id}:{part.number}{again}"

    @property
    def cost_before(self) -> Optional[float]:
        """USD that earlier processes of the run have paid; None where a price of theirs is not known."""
        return None if self._run.unpriced else self._run.spent

    def or_saved(
        self, task: Optional[str], inputs: Optional[Mapping[str, Any]]
    ) -> Tuple[Optional[str], Mapping[str, Any]]:
        """The task and the inputs; those of the run that is resumed where there are no others."""
        run = self._run
        return run.task if task is None else task, run.inputs if inputs is None else inputs

    async def begin(self, setting: RunConfig) -> None:
        """From here on it is kept."""
        self._has_begun = True
        self._run = run = replace(self._run, task=setting.task, inputs=dict(setting.inputs))
        if self._is_kept:
            failure = await self._keeper.run(lambda journal: journal.reopen(run))
            if isinstance(failure, BaseException):
                logger.warning("run %s goes on and the journal does not say so: %s", run.id, failure)
            return
        self._run = run = replace(run, project=str(setting.config_path or setting.root), began=time.time())

        def work(journal: CheckpointStore) -> None:
            journal.begin(run)
            journal.acquire(run.id)

        # Before it is: a caller who is cancelled meanwhile leaves a run that has ended.
        self._is_kept = True
        failure = await self._keeper.run(work)
        if isinstance(failure, BaseException):
            logger.warning("the run is not kept and can't be resumed: %s", failure)
            self._is_kept = False

    def saved_answer(self, part: StepCall, question: Optional[bytes]) -> Optional[AgentResult]:
        """What an earlier process of this run was answered to the same question."""
        found = [] if question is None else self._answers.get((part.step.id, question), [])
        # Its own first: the parts of a list that has grown since have other numbers.
        found.sort(key=lambda one: one.part != part.number)
        while found:
            kept = found.pop(0)
            try:
                return as_cached(loads(kept.result), max(0.0, time.time() - kept.at))
            except (ValueError, TypeError, KeyError):
                logger.warning("an answer of run %s is of another version and is not used", self._run.id)
        return None

    async def save(self, part: StepCall, question: Optional[bytes], result: AgentResult) -> None:
        """What was paid; and the answer, where there is one."""
        if not self._is_kept:
            return
        answer = None
        if result.success and question is not None:
            answer = SavedAnswer(part.step.id, part.number, question, time.time(), dumps(result))
        # An answer of unknown cost is counted as such.
        cost = (result.cost or 0.0) if result.success else cost_or_bound(result.cost, result.cost_at_most)
        await self._keeper.save(self._run.id, answer, cost)

    def record_cost(self, cost: float) -> None:
        """A call that was cancelled under way: it has no answer, and cost so many USD at most."""
        if self._is_kept and cost:
            self._keeper.record_cost(self._run.id, cost)

    async def __aenter__(self) -> RunCheckpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._is_kept:
            return

        def work(journal: CheckpointStore) -> None:
            if self._has_begun:
                journal.set_status(self._run.id, self.status)
            journal.release(self._run.id)

        failure = await self._keeper.run(work)
        if isinstance(failure, BaseException):
            logger.warning("the end of run %s is not in the journal: %s", self._run.id, failure)
