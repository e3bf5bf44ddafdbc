"""One execution as the ledger keeps it: a flat JSON object in a line, without a word of the task. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Dict, Optional, Tuple

# An attempt in a line: milliseconds from the execution's start to its begin and to its end, how many might be
# on the wire when it began, and the type of the error that it met.
Trip = Tuple[float, float, int, Optional[str]]


@dataclass(frozen=True)
class Entry:
    """An execution. Times are in milliseconds, money in USD; None is what is not known.

    Attributes:
        timestamp: when it ended, ISO 8601 with its offset from UTC.
        task_hash: 16 hex characters of the task's SHA-256.
        execution_time_ms: from the call to its result; of it `service_time_ms` on the wire, `wait_ms` not.
        input_tokens: of the prompt, those that the prompt cache read and wrote among them; a cached or shared
            answer used none.
        run: one orchestrator's life, or one command.
        timeline: its attempts, in their order.
        truncated, refused, empty: as of a result.
        cost_at_most: where `estimated_cost` is None, the most that may have been billed: 0 where nothing was,
            None where that is unknown too.
    """

    timestamp: str
    agent_name: str
    task_hash: str = ""
    success: bool = True
    execution_time_ms: float = 0.0
    model: Optional[str] = None
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    estimated_cost: Optional[float] = None
    error_type: Optional[str] = None
    workflow_name: Optional[str] = None
    workflow_position: Optional[int] = None
    run: Optional[str] = None
    cached: bool = False
    shared: bool = False
    attempts: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    stop_reason: Optional[str] = None
    request_id: Optional[str] = None
    status: Optional[int] = None
    wait_ms: float = 0.0
    service_time_ms: float = 0.0
    saved_cost: Optional[float] = None
    prompt_cache_saving: Optional[float] = None
    timeline: Tuple[Trip, ...] = ()
    truncated: bool = False
    refused: bool = False
    empty: bool = False
    cost_at_most: Optional[float] = 0.0

    def fields(self) -> Dict[str, Any]:
        """Plain values, ready for JSON."""
        return dict(vars(self))


NAMES = tuple(field.name for field in fields(Entry))
