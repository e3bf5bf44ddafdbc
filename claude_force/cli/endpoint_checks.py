"""Checks of the endpoint: credentials, whether it answers, and the rate limits that it names."""

from __future__ import annotations

from typing import List, Tuple

from .. import settings
from ..engine.call_sender import CallSender
from ..engine.call_settings import settings_now
from ..engine.sender_pool import SenderPool
from ..errors import (
    AuthenticationError,
    CallError,
    ConfigurationError,
    InputError,
    InvalidOptionError,
    PaidCallBlockedError,
)
from ..formatting import for_shell
from ..limits.rate_limiter import Rates
from ..options import Options
from ..types import Call, Clock
from . import signals
from .machine_checks import OK, PROBLEM, CheckResult, ok, problem, warning

_TIMEOUT_SECONDS = 15.0
# Statuses of a server without this path or model.
_NOT_FOUND_STATUSES = (404, 405, 501)
_MAX_TOKENS = 8


def check_endpoint(model: str, send: bool) -> List[CheckResult]:
    """Sends a request that costs nothing; with `send`, also one for a short answer, which is paid for."""
    return signals.run(_EndpointCheck(model).run(send))


class _EndpointCheck:
    def __init__(self, model: str) -> None:
        self._model = model
        self._pool = SenderPool(Clock())
        self._settings = settings_now(Options(timeout_seconds=_TIMEOUT_SECONDS, max_retries=1))

    async def _sender(self) -> CallSender:
        return await self._pool.sender(self._settings, self._model)

    async def run(self, send: bool) -> List[CheckResult]:
        """Sends nothing to the endpoint without credentials."""
        try:
            credentials = await self._credentials()
            if credentials.state != OK:
                return [credentials]
            requests = [await self._probe(), *([await self._send()] if send else [])]
            results = [credentials, *_judged(*requests)]
            return results if results[-1].state == PROBLEM else [*results, await self._limits(send)]
        finally:
            await self._pool.close()

    async def _credentials(self) -> CheckResult:
        try:
            await (await self._sender()).check_credentials()
        except AuthenticationError as error:
            return problem("credentials", error.message, for_shell(error.advice))
        except (InvalidOptionError, ConfigurationError) as error:
            return problem("credentials", *_split_advice(error))
        except CallError as error:
            return warning("credentials", error.message, for_shell(error.advice))
        if settings.clouds():
            service = (await self._sender()).transport.service.title
            return ok("credentials", f"found for {service}")
        return ok("credentials", f"from {(*settings.credentials(), 'a profile of the SDK')[0]}")

    async def _probe(self) -> CheckResult:
        sender = await self._sender()
        service, url = sender.transport.service, sender.transport.base_url
        if not service.counts_tokens:
            text = f"{url} was not asked: {service.title} has no request that is free"
            return ok("endpoint", text, "`claude-force doctor --send` sends a short request.")
        try:
            await sender.probe(self._model)
        except PaidCallBlockedError as error:
            return warning("endpoint", f"{url} was not asked: {error.message}", for_shell(error.advice))
        except CallError as error:
            if error.status not in _NOT_FOUND_STATUSES:
                return problem("endpoint", f"{url}: {error.message}", for_shell(error.advice))
            text = f"{url} answers, but counts no tokens for {self._model}: {error.message}"
            return warning("endpoint", text, "Try `claude-force doctor --send`, which sends a real request.")
        return ok("endpoint", f"{url} answers for {self._model}")

    async def _send(self) -> CheckResult:
        call = Call("doctor", (), "Say OK.", self._model, _MAX_TOKENS)
        try:
            reply = await (await self._sender()).send(call)
        except CallError as error:
            return problem("request", error.message, for_shell(error.advice))
        except InvalidOptionError as error:
            return problem("request", *_split_advice(error))
        return ok("request", f"{reply.model} answered, {reply.usage.total_tokens} tokens")

    async def _limits(self, sent: bool) -> CheckResult:
        limits = _named((await self._sender()).admission.load().limits)
        if limits:
            return ok("limits", f"{limits} per minute")
        if sent:
            return ok("limits", "the endpoint names none; set some with --rpm and --tpm of `run many`")
        return ok("limits", "unknown until the first answer: `doctor --send` requests a short one")


def _judged(probed: CheckResult, *sent: CheckResult) -> List[CheckResult]:
    """Makes a failed token count a warning if a real request was answered."""
    if probed.state == PROBLEM and sent and sent[0].state == OK:
        advice = "It answers requests; only its token count fails."
        probed = warning(probed.name, probed.text, advice)
    return [probed, *sent]


def _split_advice(error: InputError) -> Tuple[str, str]:
    """Returns what is wrong, and what to do about it."""
    text = error.for_shell()
    fault, _, advice = text.partition(". " if ". " in text else ": ")
    return fault, f"{advice[:1].upper()}{advice[1:]}"


def _named(limits: Rates) -> str:
    named = zip(("requests", "input tokens", "output tokens"), limits)
    return ", ".join(f"{limit:,.0f} {kind}" for kind, limit in named if limit is not None)
