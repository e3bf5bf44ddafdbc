"""`cache stats|clear|verify|explain`: shows, clears and checks the answer cache."""

from __future__ import annotations

import argparse
from typing import Any, Dict, Mapping

from ..agents.names import agent_slug
from ..errors import CacheError
from ..formatting import pluralize
from ..response_cache import ResponseCache
from . import signals, streams
from .run_options import call_options, read_task


def _cache(args: argparse.Namespace) -> ResponseCache:
    try:
        return ResponseCache(cache_dir=args.dir)
    except OSError as error:
        raise CacheError(f"The cache can't be opened: {error.strerror}.") from error


def show_stats(args: argparse.Namespace) -> int:
    """Shows what the cache holds. Returns 0. Raises InputError, CacheError."""
    with _cache(args) as cache:
        stats = cache.get_stats()
    # The other counters are of this process, which has looked up nothing.
    names = ("cache_dir", "entries", "size_mb", "max_size_mb", "ttl_hours", "total_hits")
    _show({name: stats[name] for name in names}, args.json)
    return 0


def clear(args: argparse.Namespace) -> int:
    """Removes all answers, or those of one agent. Returns 0. Raises InputError, CacheError."""
    with _cache(args) as cache:
        # Calls are stored under the slug of a name, those of other users of the cache under any name.
        names = {args.agent} if args.agent is None else {args.agent, agent_slug(args.agent)}
        removed = sum(cache.clear(name) for name in names)
    _show({"removed": removed}, args.json)
    return 0


def verify(args: argparse.Namespace) -> int:
    """Checks every signature. Returns 0, or 1 if a wrong one is left. Raises InputError, CacheError."""
    with _cache(args) as cache:
        found = cache.verify(remove=args.remove)
        if not found:
            raise CacheError(f"The cache in {cache.get_stats()['cache_dir']} can't be read: -v shows why.")
    _show(found, args.json)
    bad = found["forged"] + found["unreadable"]
    if bad > found["removed"]:
        streams.warn(
            f"{pluralize(bad, 'entry', 'entries')} can't be trusted; they are never returned, and "
            "`claude-force cache verify --remove` removes them"
        )
        return 1
    return 0


def explain(args: argparse.Namespace) -> int:
    """Shows why an answer is found or not. Returns 0. Raises InputError, CacheError."""
    from .orchestration import make_orchestrator

    async def look_up(task: str) -> Dict[str, Any]:
        async with make_orchestrator(args, response_cache=_cache(args)) as orchestrator:
            return await orchestrator.explain_miss(args.name, task, **call_options(args))

    found = signals.run(look_up(read_task(args)))
    if args.json:
        streams.write_json(found)
    else:
        streams.write_line(f"{'hit' if found['hit'] else 'miss'}: {found['reason']}")
    return 0


def _show(found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        streams.write_json(dict(found))
        return
    for name, value in found.items():
        shown = f"{value:.2f}" if isinstance(value, float) else value
        streams.write_line(f"{name.replace('_', ' ') + ':':14} {shown}")
