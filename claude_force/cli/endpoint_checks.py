"""Checks of where calls go: credentials, whether anybody answers there, and what limits the answer tells."""

from __future__ import annotations

from typing import List, Tuple

from .. import settings
from ..advice import for_shell
from ..clock import Clock
from ..engine.call_sender import CallSender
from ..engine.call_settings import settings_now
from ..engine.connection_pool import LoopBoundPool
from ..errors import (
    AuthenticationError,
    CallError,
    ConfigurationError,
    InputError,
    InvalidOptionError,
    PaidCallBlockedError,
)
from ..limits.rate_limiter import Rates
from ..options import Options
from ..types import Call
from . import signals
from .machine_checks import OK, PROBLEM, WARNING, CheckResult

_SILENCE_SECONDS = 15.0
# What a server answers that has no such path, or not this model.
_NOT_THERE = (404, 405, 501)
_SHORT_ANSWER_TOKENS = 8


def endpoint(model: str, send: bool) -> List[CheckResult]:
    """Asks for something that costs nothing; with `send`, also for a short answer, which is paid for."""
    return signals.run(_Endpoint(model).checked(send))


class _Endpoint:
    def __init__(self, model: str) -> None:
        self._model = model
        self._pool = LoopBoundPool(Clock())
        self._settings = settings_now(Options(timeout_seconds=_SILENCE_SECONDS, max_retries=1))

    async def _sender(self) -> CallSender:
        return await self._pool.sender(self._settings, self._model)

    async def checked(self, send: bool) -> List[CheckResult]:
        """Nothing is asked of the endpoint without credentials."""
        try:
            credentials = await self._credentials()
            if credentials.state != OK:
                return [credentials]
            found = [await self._reached(), *([await self._sent()] if send else [])]
            found = [credentials, *_weighed(*found)]
            return found if found[-1].state == PROBLEM else [*found, await self._limits(send)]
        finally:
            await self._pool.close()

    async def _credentials(self) -> CheckResult:
        try:
            await (await self._sender()).check_credentials()
        except AuthenticationError as error:
            return CheckResult("credentials", PROBLEM, error.message, for_shell(error.advice))
        except (InvalidOptionError, ConfigurationError) as error:
            return CheckResult("credentials", PROBLEM, *_parted(error))
        except CallError as error:
            return CheckResult("credentials", WARNING, error.message, for_shell(error.advice))
        if settings.clouds():
            service = (await self._sender()).transport.service.title
            return CheckResult("credentials", OK, f"found for {service}, in its own ways")
        return CheckResult("credentials", OK, f"from {(*settings.credentials(), 'a profile of the SDK')[0]}")

    async def _reached(self) -> CheckResult:
        sender = await self._sender()
        service, url = sender.transport.service, sender.transport.base_url
        if not service.counts_tokens:
            text = f"{url} was not asked: {service.title} answers nothing that is not paid for"
            return CheckResult("endpoint", OK, text, "`claude-force doctor --send` sends a short request.")
        try:
            await sender.probe(self._model)
        except PaidCallBlockedError as error:
            return CheckResult(
                "endpoint",
                WARNING,
                f"{url} was not asked: {error.message}",
                for_shell(error.advice),
            )
        except CallError as error:
            if error.status not in _NOT_THERE:
                return CheckResult("endpoint", PROBLEM, f"{url}: {error.message}", for_shell(error.advice))
            text = f"{url} answers, but counts no tokens for {self._model}: {error.message}"
            return CheckResult(
                "endpoint", WARNING, text, "Try `claude-force doctor --send`, which sends a real request."
            )
        return CheckResult("endpoint", OK, f"{url} answers for {self._model}")

    async def _sent(self) -> CheckResult:
        call = Call("doctor", (), "Say OK.", self._model, _SHORT_ANSWER_TOKENS)
        try:
            reply = await (await self._sender()).send(call)
        except CallError as error:
            return CheckResult("request", PROBLEM, error.message, for_shell(error.advice))
        except InvalidOptionError as error:
            return CheckResult("request", PROBLEM, *_parted(error))
        return CheckResult("request", OK, f"{reply.model} answered, {reply.usage.total_tokens} tokens")

    async def _limits(self, sent: bool) -> CheckResult:
        told = _told((await self._sender()).admission.load().limits)
        if told:
            return CheckResult("limits", OK, f"{told} a minute")
        if sent:
            return CheckResult(
                "limits", OK, "the endpoint tells none; --rpm and --tpm of `run many` set some"
            )
        return CheckResult("limits", OK, "told by real answers only: `doctor --send` asks for a short one")


def _weighed(reached: CheckResult, *sent: CheckResult) -> List[CheckResult]:
    """A real answer weighs more than tokens that could not be counted."""
    if reached.state == PROBLEM and sent and sent[0].state == OK:
        advice = "It answers requests all the same; only tokens can't be counted there."
        reached = CheckResult(reached.name, WARNING, reached.text, advice)
    return [reached, *sent]


def _parted(error: InputError) -> Tuple[str, str]:
    """What is wrong, and the mend."""
    text = error.for_shell()
    fault, _, mend = text.partition(". " if ". " in text else ": ")
    return fault, f"{mend[:1].upper()}{mend[1:]}"


def _told(limits: Rates) -> str:
    named = zip(("requests", "input tokens", "output tokens"), limits)
    return ", ".join(f"{limit:,.0f} {kind}" for kind, limit in named if limit is not None)
