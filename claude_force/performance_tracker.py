"""PerformanceTracker: records executions in the ledger and computes their metrics."""

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
from .ledger.encoder import encode_line
from .ledger.rotating_log import RotatingLog
from .storage.batch_worker import BatchWorker
from .storage.locks import register_after_fork
from .storage.private_files import UnsafePathError
from .types import CallCompleted

if TYPE_CHECKING:
    from .ledger.metrics import Summary

logger = logging.getLogger(__name__)

# A write is due when so many executions wait, or when the first has waited so long.
BATCH, LINGER_SECONDS = 256, 0.1


class PerformanceTracker:
    """Records each execution as a line of `executions.jsonl`, and computes metrics from the lines.

    Any number of processes and threads may share one folder. A thread writes in batches: an execution is in
    the file 0.1 s after it was recorded, or as soon as 256 wait. A killed process loses the executions of its
    last 0.1 s: at most the 256 being written and the next 256, if the disk keeps up. `flush`, `close` and a
    regular exit lose nothing. If the folder can't be written, the lines are lost, one warning is logged, and
    calls go on.

    Example:

        >>> tracker = PerformanceTracker(".claude/metrics")
        >>> tracker.get_performance_summary(hours=24)["error_rate"]
        >>> tracker.get_agent_performance("code-reviewer")["wall_ms"]["p95"]
        >>> tracker.get_cost_breakdown()["by_model"]
        >>> tracker.export_performance_metrics("executions.csv", format="csv")
    """

    def __init__(
        self,
        folder: Union[str, Path, None] = None,
        max_file_mb: float = settings.LEDGER_FILE_MB,
        keep_files: Optional[int] = None,
        *,
        metrics_dir: Union[str, Path, None] = None,
    ) -> None:
        """Opens no file.

        Args:
            folder: created with the first line, readable by its owner only; None for `.claude/metrics` in the
                working directory.
            max_file_mb: size in megabytes at which the file is renamed and a new one started.
            keep_files: number of full files to keep; None keeps all.
            metrics_dir: the name of `folder` in claude-force 1.x.
        """
        self.folder: Path = Path(folder or metrics_dir or settings.LEDGER_FOLDER)
        self._log = RotatingLog(self.folder, int(max_file_mb * 1e6), keep_files)
        self._worker = BatchWorker(self._work, "claude-force-ledger")
        self._warned = False
        self.after_fork()
        register_after_fork(self)

    def after_fork(self) -> None:
        """Gives a forked child its own run id and an empty queue; the parent writes what was pending."""
        self._run = os.urandom(8).hex()
        self._pending: Deque[CallCompleted] = deque()
        self._write_requested, self._write_inline = False, False
        self._exit_hook: Optional[weakref.WeakMethod[Any]] = None
        self._batch_due = threading.Event()
        self._writing = threading.Lock()

    def record(self, completed: CallCompleted) -> None:
        """Queues an execution for writing. Raises nothing and doesn't block."""
        self._pending.append(completed)
        if len(self._pending) >= BATCH:
            self._batch_due.set()
        if self._write_inline:
            self._write_pending()
        elif not self._write_requested:
            self._request_write()

    def record_now(self, completed: CallCompleted) -> None:
        """Writes an execution before it returns, without a thread: for a process that records only one."""
        self._write_inline = True
        self.record(completed)

    def _request_write(self) -> None:
        self._write_requested = True
        if self._exit_hook is None:
            self._exit_hook = weakref.WeakMethod(self.flush)
            _at_exit(self._exit_hook)
        try:
            self._worker.submit_nowait(None)
        except RuntimeError:
            # The interpreter is exiting, or the system has no thread left.
            self._write_inline = True
            self._write_pending()

    def flush(self) -> None:
        """Blocks until all recorded executions are in the file."""
        self._write_pending()

    def close(self) -> None:
        """Flushes, and ends the thread. A later `record` starts it again."""
        self._batch_due.set()
        self._worker.close()
        self._write_pending()

    def _work(self, jobs: List[Any]) -> List[Any]:
        """Runs in the worker's thread."""
        self._batch_due.wait(LINGER_SECONDS)
        self._write_pending()
        return jobs

    def _write_pending(self) -> None:
        with self._writing:
            # Reset before the queue is read: a `record` from here on requests another write.
            self._write_requested = False
            self._batch_due.clear()
            while self._pending:
                batch = [self._pending.popleft() for _ in range(min(len(self._pending), BATCH))]
                self._write(batch)

    def _write(self, batch: List[CallCompleted]) -> None:
        try:
            lines = [line for line in map(self._encode, batch) if line is not None]
            if lines:
                self._log.append(lines)
        except OSError as error:
            if not self._warned:
                self._warned = True
                place = "" if isinstance(error, UnsafePathError) else f" in {self.folder}"
                logger.warning("executions are not recorded%s: %s", place, error)
        except Exception:
            # No failure of the ledger may fail a call, nor the recording of later calls.
            logger.exception("executions are not recorded")

    def _encode(self, completed: CallCompleted) -> Optional[str]:
        try:
            return encode_line(completed, self._run)
        except Exception:
            # A caller's workflow name may not be text, for example. Other executions are recorded.
            logger.exception("an execution is not recorded")
            return None

    def get_performance_summary(self, hours: Optional[float] = None) -> Dict[str, Any]:
        """Returns the metrics of all executions, or of those that ended in the last `hours`.

        Times are in milliseconds, money in USD, rates between 0 and 1; None means unknown:

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

        Percentiles are exact up to 10,000 executions and within 1 % above. Sums of money leave out unknown
        amounts: `unknown_price` and `unknown_saving` count them, and `unknown_at_most_usd` is an upper bound
        of the unknown costs, as far as there is one. `time_at_concurrency_limit` is the share of the time
        with any attempt on the wire in which there were as many as the limit allows. Days are in UTC.
        `skipped_lines` counts torn and foreign lines. The keys of claude-force 1.x (`total_executions`,
        `success_rate`, `total_cost` and so on) are included.

        Raises:
            InvalidOptionError: `hours` is not above 0.
            OSError: a file of the ledger can't be read.
        """
        from .ledger.legacy import with_legacy_keys

        period = "all time" if hours is None else f"last {hours:g} hours"
        return {**with_legacy_keys(self._summary(hours).as_dict()), "time_period": period}

    def get_agent_performance(
        self, name: Optional[str] = None, *, agent_name: Optional[str] = None
    ) -> Dict[str, Any]:
        """Returns the metrics of one agent, or `{name: metrics}` of all agents.

        Metrics are those of `get_performance_summary` from "executions" to "tokens_per_minute", with the keys
        of 1.x. For one agent, "by_model" and "by_workflow" are added, and the same metrics under the agent's
        name. An agent that never ran has 0 executions. `agent_name` is the name of `name` in 1.x.

        Raises:
            OSError: a file of the ledger can't be read.
        """
        from .ledger.legacy import with_legacy_keys

        summary, name = self._summary(), name or agent_name
        if name is None:
            return {agent: with_legacy_keys(metrics) for agent, metrics in summary.agents_as_dict().items()}
        metrics = with_legacy_keys(summary.agent_as_dict(name))
        return {**({name: metrics} if metrics["executions"] else {}), **metrics}

    def get_cost_breakdown(self) -> Dict[str, Any]:
        """Returns what was spent and saved, in USD.

        The shape is `{"total": money, "by_agent": {name: money}, "by_model": {name: money},
        "by_workflow": {name: money}, "by_day": {day: money}}`. Each money is a dict with the keys "cost_usd",
        "unknown_price", "unknown_at_most_usd", "saved_usd", "unknown_saving" and "prompt_cache_saving_usd" of
        `get_performance_summary`; in arithmetic and comparisons it is the number `cost_usd`, as in 1.x.

        Raises:
            OSError: a file of the ledger can't be read.
        """
        from .ledger.legacy import with_money

        return with_money(self._summary().money())

    def get_summary(self, hours: Optional[float] = None) -> Dict[str, Any]:
        """Calls `get_performance_summary`: its name in claude-force 1.x."""
        return self.get_performance_summary(hours)

    def get_agent_stats(self, agent_name: Optional[str] = None) -> Dict[str, Any]:
        """Returns `{name: metrics}` of one agent or of all, as in 1.x; {} if nothing was recorded."""
        stats = self.get_agent_performance()
        return {name: stats[name] for name in stats if agent_name in (None, name)}

    def export_performance_metrics(
        self,
        path: Union[str, Path, None] = None,
        format: str = "json",
        *,
        output_path: Union[str, Path, None] = None,
    ) -> None:
        """Writes all executions to `path` as a JSON array, or as CSV with a header.

        The fields are those of `claude_force.ledger.entry.Entry`. `output_path` is the name of `path` in 1.x.

        Raises:
            InvalidOptionError: no path was given, `format` is neither "json" nor "csv", or the path is a file
                of the ledger itself.
            OSError: a file can't be read or written.
        """
        from .ledger.export import open_export, writer_of
        from .ledger.reader import LedgerReader

        target = path or output_path
        if target is None:
            raise InvalidOptionError("No output file: pass its path.")
        write = writer_of(format)
        self.flush()
        with open_export(Path(target), self.folder) as out:
            write(LedgerReader(self.folder).entries(), out)

    def _summary(self, hours: Optional[float] = None) -> Summary:
        # Imported here because most processes record and never ask.
        from .ledger.reader import parse_since, read_summary

        since = parse_since(time.time(), hours)
        self.flush()
        return read_summary(self.folder, since)


def _at_exit(flush: weakref.WeakMethod[Any]) -> None:
    atexit.register(_flush_at_exit, flush)
    # Children of multiprocessing exit without atexit, and before Python 3.9 without joining threads.
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _flush_at_exit, (flush,), exitpriority=0)


def _flush_at_exit(flush: weakref.WeakMethod[Any]) -> None:
    bound = flush()
    if bound is not None:
        bound()
