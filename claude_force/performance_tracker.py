"""PerformanceTracker: the ledger of executions and its figures."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Deque, Dict, List, Optional, Union

from . import settings
from .errors import InvalidOptionError
from .ledger.encoder import line_of_execution
from .ledger.rotating_log import RotatingLog
from .storage.batch_worker import BatchWorker
from .storage.fork import register_after_fork
from .storage.private_files import UnsafePathError
from .types import CallCompleted

if TYPE_CHECKING:
    from .ledger.summary import Summary

logger = logging.getLogger(__name__)

# A write is due when so many wait, or when the first has waited so long.
BATCH, LINGER_SECONDS = 256, 0.1


class PerformanceTracker:
    """Keeps a line for each execution in `executions.jsonl`, and answers with the figures of all of them.

    Any number of processes and threads may use one folder. A thread writes, in batches: an execution is in
    the file 0.1 s after it was recorded, or as soon as 256 wait. What a process had not written when it was
    killed is lost: what it recorded in its last 0.1 s, at most the 256 that were being written and the 256
    behind them where the disk keeps up. `flush`, `close` and a regular exit lose nothing. A folder that can't
    be written costs the lines, never the call: a warning says so once.
    """

    def __init__(
        self,
        folder: Union[str, Path, None] = None,
        max_file_mb: float = settings.LEDGER_FILE_MB,
        keep_files: Optional[int] = None,
        *,
        metrics_dir: Union[str, Path, None] = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            folder: made when the first line is written, for its owner alone; None for `.claude/metrics` in
                the working directory.
            max_file_mb: megabytes at which the file is renamed and the next one begun.
            keep_files: how many full files stay; None for all.
            metrics_dir: the name that `folder` had in claude-force 1.x.
        """
        self.folder: Path = Path(folder or metrics_dir or settings.LEDGER_FOLDER)
        self._journal = RotatingLog(self.folder, int(max_file_mb * 1e6), keep_files)
        self._clerk = BatchWorker(self._work, "claude-force-ledger")
        self._warned = False
        self.after_fork()
        register_after_fork(self)

    def after_fork(self) -> None:
        """Called in a forked child, which is a run of its own; what waits is its parent's to write."""
        self._run = os.urandom(8).hex()
        self._waiting: Deque[CallCompleted] = deque()
        self._asked, self._threadless = False, False
        self._exits: Optional[weakref.WeakMethod[Any]] = None
        self._hurry = threading.Event()
        self._writing = threading.Lock()

    def record(self, executed: CallCompleted) -> None:
        """Keeps it. Raises nothing, and waits for nothing."""
        self._waiting.append(executed)
        if len(self._waiting) >= BATCH:
            self._hurry.set()
        if self._threadless:
            self._write_waiting()
        elif not self._asked:
            self._ask()

    def record_now(self, executed: CallCompleted) -> None:
        """As `record`, and it is in the file when this returns. For one who records no more than one."""
        self._threadless = True
        self.record(executed)

    def _ask(self) -> None:
        self._asked = True
        if self._exits is None:
            self._exits = weakref.WeakMethod(self.flush)
            _at_exit(self._exits)
        try:
            self._clerk.submit_nowait(None)
        except RuntimeError:
            # The interpreter is on its way out, or the system has no thread left.
            self._threadless = True
            self._write_waiting()

    def flush(self) -> None:
        """Returns when all that was recorded is in the file."""
        self._write_waiting()

    def close(self) -> None:
        """As `flush`, and ends the thread. What is recorded later starts it again."""
        self._hurry.set()
        self._clerk.close()
        self._write_waiting()

    def _work(self, jobs: List[Any]) -> List[Any]:
        """In the clerk's thread."""
        self._hurry.wait(LINGER_SECONDS)
        self._write_waiting()
        return jobs

    def _write_waiting(self) -> None:
        with self._writing:
            # Before the queue is looked at: whoever records from here on asks again.
            self._asked = False
            self._hurry.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH))]
                self._write(batch)

    def _write(self, batch: List[CallCompleted]) -> None:
        try:
            lines = [line for line in map(self._line, batch) if line is not None]
            if lines:
                self._journal.append(lines)
        except OSError as error:
            if not self._warned:
                self._warned = True
                place = "" if isinstance(error, UnsafePathError) else f" in {self.folder}"
                logger.warning("executions are not recorded%s: %s", place, error)
        except Exception:
            # Whatever it is, no call may fail by it, nor those that come after.
            logger.exception("executions are not recorded")

    def _line(self, executed: CallCompleted) -> Optional[str]:
        try:
            return line_of_execution(executed, self._run)
        except Exception:
            # A caller's own name of a workflow, say, that is no text: the others are recorded.
            logger.exception("an execution is not recorded")
            return None

    def get_performance_summary(self, hours: Optional[float] = None) -> Dict[str, Any]:
        """The figures of all executions, or of those that ended in the last `hours`.

        As this, times in milliseconds, money in USD, shares from 0 to 1, None for what is not known:

            {"executions": 4, "successes": 3, "errors": 1, "error_rate": 0.25,
             "errors_by_type": {"SilenceError": 1}, "timeouts": 1, "timeout_rate": 0.25,
             "cached": 1, "cache_hit_rate": 0.25, "shared": 0, "shared_rate": 0.0,
             "truncated": 0, "refused": 0, "empty": 0,
             "attempts": 4, "retries": 1,
             "wall_ms": {"p50": ..., "p95": ..., "p99": ..., "mean": ..., "max": ..., "exact": True},
             "wait_ms": {...}, "service_ms": {...},
             "tokens": {"input": ..., "output": ..., "cache_read": ..., "cache_write": ..., "total": ...},
             "cost_usd": 0.02, "unknown_price": 0, "unknown_at_most_usd": 0.0, "saved_usd": 0.01,
             "unknown_saving": 0, "prompt_cache_saving_usd": 0.001,
             "began": "2026-11-25T08:30:00+00:00", "ended": ...,
             "executions_per_second": ..., "tokens_per_minute": ...,
             "time_at_concurrency_limit": 0.4,
             "by_agent": {name: {...}}, "by_model": {...}, "by_workflow": {...},
             "by_day": {"2026-11-25": {...}},
             "skipped_lines": 0}

        Percentiles are exact up to 10,000 executions and else within 1 %. Money that is not known is in no
        sum: `unknown_price` and `unknown_saving` count it, and `unknown_at_most_usd` is the most that those
        calls may have cost, as far as that is known. `time_at_concurrency_limit` is the share of the
        time with any attempt on the wire in which there were as many as might be. Days are those of UTC.
        `skipped_lines` are torn or foreign ones. The keys of claude-force 1.x (`total_executions`,
        `success_rate`, `total_cost` and so on) are there too. Raises InvalidOptionError, or OSError for a
        file that can't be read.
        """
        from .ledger.old_names import summary_with_old_names

        return summary_with_old_names(self._summary(hours).as_dict(), hours)

    def get_agent_performance(
        self, name: Optional[str] = None, *, agent_name: Optional[str] = None
    ) -> Dict[str, Any]:
        """The figures of one agent, or `{name: figures}` of all.

        Figures are those of `get_performance_summary` from "executions" to "tokens_per_minute", with the keys
        of 1.x; those of one agent have "by_model" and "by_workflow" beside them, and the same figures under
        the agent's name. An agent that never ran has 0 executions. `agent_name` is the name that 1.x had for
        `name`. Raises OSError.
        """
        from .ledger.old_names import agent_with_old_names, agents_with_old_names

        summary, name = self._summary(), name or agent_name
        if name is None:
            return agents_with_old_names(summary.agents_as_dict())
        return agent_with_old_names(name, summary.agent_as_dict(name))

    def get_cost_breakdown(self) -> Dict[str, Any]:
        """What was spent and saved, in USD.

        `{"total": money, "by_agent": {name: money}, "by_model": {name: money}, "by_workflow": {name: money},
        "by_day": {day: money}}`, each money as `{"cost_usd": ..., "unknown_price": ...,
        "unknown_at_most_usd": ..., "saved_usd": ..., "unknown_saving": ..., "prompt_cache_saving_usd": ...}`
        of `get_performance_summary`. Where a number is needed, each money counts as its `cost_usd`. Raises
        OSError.
        """
        from .ledger.old_names import costs_with_old_shapes

        return costs_with_old_shapes(self._summary().money())

    def get_summary(self, hours: Optional[float] = None) -> Dict[str, Any]:
        """The name that `get_performance_summary` had in claude-force 1.x."""
        return self.get_performance_summary(hours)

    def get_agent_stats(self, agent_name: Optional[str] = None) -> Dict[str, Any]:
        """`{name: figures}`, as claude-force 1.x had it: of one agent or of all, {} for nothing recorded."""
        stats = self.get_agent_performance()
        return {name: stats[name] for name in stats if agent_name in (None, name)}

    def export_performance_metrics(
        self,
        path: Union[str, Path, None] = None,
        format: str = "json",
        *,
        output_path: Union[str, Path, None] = None,
    ) -> None:
        """Writes all executions to `path`: a JSON array, or CSV with the names of the fields above.

        The fields are those of `claude_force.ledger.entry.Entry`. `output_path` is the name that 1.x had for
        `path`. Raises InvalidOptionError without either, for another format and for a file of the ledger
        itself, OSError.
        """
        from .ledger.export import open_export, writer_of
        from .ledger.reading import Reading

        target = path or output_path
        if target is None:
            raise InvalidOptionError("No file was named to export to: pass its path.")
        write = writer_of(format)
        self.flush()
        with open_export(Path(target), self.folder) as out:
            write(Reading(self.folder).entries(), out)

    def _summary(self, hours: Optional[float] = None) -> Summary:
        # Not above: who runs agents need not wait for what he never asks.
        from .ledger.parallel_reader import summary_of
        from .ledger.time_range import window_of

        window = window_of(time.time(), hours)
        self.flush()
        return summary_of(self.folder, window)


def _at_exit(flush: weakref.WeakMethod[Any]) -> None:
    atexit.register(_flush_at_exit, flush)
    # Its children end without atexit, and before Python 3.9 without their threads too.
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _flush_at_exit, (flush,), exitpriority=0)


def _flush_at_exit(flush: weakref.WeakMethod[Any]) -> None:
    bound = flush()
    if bound is not None:
        bound()
