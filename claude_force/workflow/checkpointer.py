"""Makes runs of workflows resumable: saves their answers off the event loop, and never fails a run."""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import replace
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from anyio import CancelScope, to_thread

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
from .checkpoints import CheckpointStore, Payment, RunRecord, SavedAnswer, TurnEvent, is_damaged
from .runner import RunConfig
from .step_calls import StepCall

if TYPE_CHECKING:
    # A run without tools loads none of it.
    from .turn_checkpoints import PartTurns

logger = logging.getLogger(__name__)

# A forked child must neither use nor close its parent's store, which may be in a transaction.
_STORES_OF_PARENTS: List[CheckpointStore] = []

INTERRUPTED = "interrupted"
# The id of a durable run has at most 64 characters.
_LONGEST_NAME = 50

_Operation = Callable[[CheckpointStore], Any]


def open_checkpoint_store() -> CheckpointStore:
    """Opens the user's store, `~/.claude/runs`. Raises CacheError, OSError, sqlite3.Error."""
    secret = find_secret(None, cache_folder(None))
    return CheckpointStore(cache_folder(settings.user_folder() / "runs"), secret)


class _CheckpointOp(NamedTuple):
    """An operation, or a payment; the payments of a batch are saved in one transaction."""

    operation: Optional[_Operation] = None
    payment: Optional[Payment] = None


class Checkpointer:
    """The store of one orchestrator's runs. Where it fails, runs go on and can't be resumed, which is logged.

    Example:
        async with await Checkpointer().open_run("release") as checkpoint:
            await checkpoint.begin(config)
            ...
            checkpoint.status = "succeeded"
    """

    def __init__(self, open_store: Callable[[], CheckpointStore] = open_checkpoint_store) -> None:
        self._open_store = open_store
        self._store: Optional[CheckpointStore] = None
        self._worker = BatchWorker(self._run_batch, "claude-force-journal")
        register_after_fork(self)

    def after_fork(self) -> None:
        """Called in a forked child: the connection is its parent's."""
        if self._store is not None:
            _STORES_OF_PARENTS.append(self._store)
        self._store = None

    async def open_run(self, workflow: str, resume: Optional[str] = None) -> RunCheckpoint:
        """Returns a new run, or the run to resume. Raises InputError, CacheError."""
        if resume is None:
            return RunCheckpoint(self, RunRecord(_new_id(workflow), workflow))
        acquired: List[str] = []

        def load(store: CheckpointStore) -> RunCheckpoint:
            run = store.find(resume)
            if run.workflow != workflow:
                raise InputError(f"Run '{resume}' is of the workflow '{run.workflow}', not of '{workflow}'.")
            if not store.acquire(resume):
                raise RunBusyError(f"Run '{resume}' is running in another process: wait for its end.")
            acquired.append(resume)
            return RunCheckpoint(self, run, list(store.answers(resume)), list(store.turn_events(resume)))

        found = None
        try:
            found = await self.run(load)
        finally:
            # The caller was cancelled, or the answers can't be read.
            if not isinstance(found, RunCheckpoint):
                self._worker.submit_nowait(_CheckpointOp(lambda store: list(map(store.release, acquired))))
        checkpoint: RunCheckpoint = _or_raise(found)
        return checkpoint

    async def recent(self, most: int) -> List[RunRecord]:
        """Returns up to `most` runs, the newest first. Raises CacheError."""
        runs: List[RunRecord] = _or_raise(await self.run(lambda store: store.recent(most)))
        return runs

    async def run(self, operation: _Operation) -> Any:
        """Runs an operation in the store's thread; returns what it returns or raises."""
        return await self._worker.submit(_CheckpointOp(operation))

    async def save(self, run_id: str, answer: Union[SavedAnswer, TurnEvent, None], cost: float) -> None:
        """Saves an answer, or an event of a turn, and its cost.

        Once it returns, a kill of this process does not lose them.
        """
        failure = await self._worker.submit(_CheckpointOp(payment=(run_id, answer, cost)))
        if failure is not None:
            logger.warning("an answer of run %s is not saved for a resumption: %s", run_id, failure)

    def record_cost(self, run_id: str, cost: float) -> None:
        """Adds USD to a run's cost, without waiting for it."""
        self._worker.submit_nowait(_CheckpointOp(payment=(run_id, None, cost)))

    async def close(self) -> None:
        """Waits for writes and closes the store. A later use opens it again."""
        await to_thread.run_sync(self.stop)

    def stop(self) -> None:
        """Does the same as `close`, for a caller without an event loop."""
        self._worker.close()
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def _run_batch(self, ops: List[_CheckpointOp]) -> List[Any]:
        """Called in the worker's thread."""
        payments = [op.payment for op in ops if op.payment is not None]
        failure = self._try(lambda store: store.save(payments)) if payments else None
        return [failure if op.operation is None else self._try(op.operation) for op in ops]

    def _try(self, operation: _Operation) -> Any:
        """Returns what `operation` returns, or what it or the opening of the store raises."""
        try:
            if self._store is None:
                self._store = self._open()
            return operation(self._store)
        except Exception as error:  # Of any kind: whoever waits for the thread would wait for ever.
            if self._store is not None and is_damaged(error):
                self._store.move_aside()
                self._store = None
            return error

    def _open(self) -> CheckpointStore:
        try:
            return self._open_store()
        except FAULTS as error:
            if not is_damaged(error):
                raise
            # The damaged file was moved aside.
            return self._open_store()


def _new_id(workflow: str) -> str:
    # A name that is not a text is found by the validation, after this.
    return f"{slug(str(workflow))[:_LONGEST_NAME] or 'workflow'}-{secrets.token_hex(4)}"


def _or_raise(found: Any) -> Any:
    if isinstance(found, ClaudeForceError):
        raise found
    if isinstance(found, BaseException):
        raise CacheError(f"The journal of runs can't be used: {found}.") from found
    return found


class RunCheckpoint:
    """What is saved of one run. When its block ends, the run gets its `status`.

    What is written is written also for a caller who is cancelled: answers are paid for.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        run: RunRecord,
        answers: Optional[Sequence[SavedAnswer]] = None,
        turn_events: Sequence[TurnEvent] = (),
    ) -> None:
        self._checkpointer, self._run = checkpointer, run
        # Several parts may have the same question, and an answer each.
        self._answers: Dict[Tuple[str, bytes], List[SavedAnswer]] = {}
        for answer in answers or ():
            self._answers.setdefault((answer.step, answer.question), []).append(answer)
        self._turn_events: Dict[Tuple[str, int], List[TurnEvent]] = {}
        for event in turn_events:
            self._turn_events.setdefault((event.step, event.part), []).append(event)
        self._turns: Dict[Tuple[str, int], PartTurns] = {}
        self._is_saved, self._has_begun = answers is not None, False
        self.status = INTERRUPTED

    @property
    def run_id(self) -> Optional[str]:
        """The id to resume the run by; None where it can't be saved."""
        return self._run.id if self._is_saved else None

    def call_id(self, call: StepCall) -> str:
        """Returns the id of a durable call: the same when the run is resumed."""
        retry = f":{call.attempt}" if call.attempt else ""
        return f"{self._run.id}:{call.step.id}:{call.number}{retry}"

    @property
    def cost_before(self) -> Optional[float]:
        """USD that earlier processes of the run have paid; None where a price of theirs is unknown."""
        return None if self._run.unpriced else self._run.spent

    def or_saved(
        self, task: Optional[str], inputs: Optional[Mapping[str, Any]]
    ) -> Tuple[Optional[str], Mapping[str, Any]]:
        """Returns the task and the inputs; where they are None, those of the resumed run."""
        run = self._run
        return run.task if task is None else task, run.inputs if inputs is None else inputs

    async def begin(self, config: RunConfig) -> None:
        """Saves that the run is running."""
        self._has_begun = True
        self._run = run = replace(self._run, task=config.task, inputs=dict(config.inputs))
        if self._is_saved:
            await self._log_failure(
                lambda store: store.reopen(run), f"run {run.id} goes on and the journal does not say so"
            )
            return
        self._run = run = replace(run, project=str(config.config_path or config.root), began=time.time())

        def begin(store: CheckpointStore) -> None:
            store.begin(run)
            store.acquire(run.id)

        # Set before it is: a caller who is cancelled meanwhile leaves a run that has ended.
        self._is_saved = True
        self._is_saved = await self._log_failure(begin, "the run is not saved and can't be resumed")

    async def _log_failure(self, operation: _Operation, message: str) -> bool:
        """Runs an operation; returns whether it succeeded."""
        failure = await self._checkpointer.run(operation)
        if isinstance(failure, BaseException):
            logger.warning("%s: %s", message, failure)
        return not isinstance(failure, BaseException)

    def saved_answer(self, call: StepCall, question: Optional[bytes]) -> Optional[AgentResult]:
        """Returns the answer that an earlier process of this run got to the same question."""
        found = [] if question is None else self._answers.get((call.step.id, question), [])
        # The part's own answer first: the parts of a list that has grown have other numbers.
        found.sort(key=lambda answer: answer.part != call.number)
        while found:
            answer = found.pop(0)
            try:
                return as_cached(loads(answer.result), max(0.0, time.time() - answer.at))
            except (ValueError, TypeError, KeyError):
                logger.warning("an answer of run %s is of another version and is not used", self._run.id)
        return None

    def turns(self, call: StepCall) -> Optional[PartTurns]:
        """Returns the journal of the turns of a call with tools; None where the run can't be saved.

        A part that is tried again goes on with the turns that it has.
        """
        if not self._is_saved:
            return None
        place = (call.step.id, call.number)
        if place not in self._turns:
            from .turn_checkpoints import PartTurns

            events = self._turn_events.pop(place, ())
            store = partial(self._checkpointer.save, self._run.id)
            self._turns[place] = PartTurns(*place, store, events, call.step.retries > 0)
        return self._turns[place]

    async def _end_turns(self, call: StepCall, is_answered: bool) -> None:
        """Deletes the turns of a call that has its answer; of one without, the answer that it ended with."""
        place = (call.step.id, call.number)
        turns = self._turns.get(place)
        if turns is None:
            return
        if is_answered:
            del self._turns[place]
            await self._forget_turns(place, None)
        elif turns.unused_answer is not None:
            turns.forget(turns.unused_answer)
            await self._forget_turns(place, turns.unused_answer)

    async def _forget_turns(self, place: Tuple[str, int], turn: Optional[int]) -> None:
        await self._log_failure(
            lambda store: store.forget_turns(self._run.id, *place, turn),
            f"turns of run {self._run.id} are still in the journal",
        )

    async def save(self, call: StepCall, question: Optional[bytes], result: AgentResult) -> None:
        """Saves what a call cost and its answer, if it has one."""
        if not self._is_saved:
            return
        answer = None
        if result.success and question is not None:
            answer = SavedAnswer(call.step.id, call.number, question, time.time(), dumps(result))
        # `unpriced` counts answers of unknown cost.
        cost = (result.cost or 0.0) if result.success else cost_or_bound(result.cost, result.cost_at_most)
        with CancelScope(shield=True):
            await self._checkpointer.save(self._run.id, answer, self._unrecorded(call, cost))
            await self._end_turns(call, is_answered=answer is not None)

    def record_cost(self, call: StepCall, cost: float) -> None:
        """Saves the USD that a call which was cancelled in flight cost at most."""
        more = self._unrecorded(call, cost)
        if self._is_saved and more:
            self._checkpointer.record_cost(self._run.id, more)

    def _unrecorded(self, call: StepCall, cost: float) -> float:
        """Returns the USD of a call that its turns have not added to the run's cost."""
        turns = self._turns.get((call.step.id, call.number))
        if turns is None:
            return cost
        recorded, turns.recorded = turns.recorded, 0.0
        return max(0.0, cost - recorded)

    async def __aenter__(self) -> RunCheckpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._is_saved:
            return

        def end(store: CheckpointStore) -> None:
            if self._has_begun:
                store.set_status(self._run.id, self.status)
            store.release(self._run.id)

        with CancelScope(shield=True):
            await self._log_failure(end, f"the end of run {self._run.id} is not in the journal")
