"""A worker with a fault, for tests: `python strange_worker.py FAULT --name ID [options of the command]`."""

import os
import sys
import time


def poisoned():
    """It dies of each call whose task has the word in it, and is declared dead sooner."""
    from claude_force.durable import heartbeat, worker
    from claude_force.engine.call_sender import CallSender

    heartbeat.DEAD_SECONDS = worker.DEAD_SECONDS = 1.5
    send = CallSender.send

    async def or_die(self, call, *more):
        if "poison" in call.task:
            os._exit(9)
        return await send(self, call, *more)

    CallSender.send = or_die


def wrong_clock():
    """Its clock is an hour ahead."""
    real = time.time
    time.time = lambda: real() + 3600


def other_version():
    """It is of a version with another format of calls."""
    from claude_force.durable import calls, dbos_runtime

    calls.APP_VERSION = dbos_runtime.APP_VERSION = "claude-force-0"


def slow_start():
    """Its prices take seconds to load, as on a machine that has much to do."""
    from claude_force.engine import sender_pool

    real = sender_pool.load_prices

    def slowly(model):
        sys.stderr.write("loads the prices\n")
        time.sleep(3)
        return real(model)

    sender_pool.load_prices = slowly


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    from claude_force.cli.main import main

    sys.exit(main(["worker", *sys.argv[2:]]))
