"""Every error that the package raises or puts on a result.

ClaudeForceError
 +- CacheError (also ValueError)          a cache folder or secret that can't be used
 +- InputError (also ValueError)          the caller's input, found before anything is sent
 |   +- InvalidAgentNameError
 |   +- InvalidTaskError
 |   +- InvalidOptionError
 |   +- AgentNotFoundError
 |   +- WorkflowNotFoundError
 |   +- InvalidWorkflowError              a workflow that can't be run, with all its faults
 |   +- RunNotFoundError
 |   +- RunBusyError                      another process has the run
 |   +- UnknownPriceError                 a budget is set and a price is unknown
 |   +- ToolSandboxError                  agents may run commands, and this machine can't confine them
 |   +- WorktreeError                     agents may edit, and can't be given copies of the project
 |   |   +- PatchConflictError            a patch that does not fit the files as they are now
 |   +- FileAccessError                   a file that is not read: outside, not regular, too large
 |   +- ConfigurationError                a project file that can't be used
 |       +- ConfigurationNotFoundError (also FileNotFoundError)   nothing is at the given path
 |       +- DatabaseError                  the database of durable runs, or the extra they need
 +- CallError                             one call to the model, after its input was accepted
     +- TransientError                    worth another attempt
     |   +- ConnectionFailedError
     |   +- SilenceError (also TimeoutError)
     |   +- RateLimitError
     |   +- OverloadedError
     |   +- ServerError
     +- RequestRefusedError               400, 422, other 4xx
     |   +- RequestTooLargeError          413
     +- AuthenticationError               401, or credentials that can't be used
     |   +- MissingCredentialsError (also ValueError)   no credentials at all
     +- SpendLimitError                   402, or a spend limit under any status
     +- PermissionDeniedError             403, 451, or a disabled organisation
     +- ModelNotFoundError                404, 405, 410
     +- BadReplyError                     a response that is not of the Messages API
     +- AnswerTooLargeError               an endless answer, or one far beyond max_tokens
     +- RefusedError                      the model declined to answer
     +- EmptyAnswerError                  an answer without text
     +- NoFinalAnswerError                an agent with tools was still calling them at its last turn
     +- ToolCallCutOffError               the last answer was cut off in its tool calls
     +- ContextFullError                  the messages of an agent with tools have filled the model's context
     +- DeadlineExceededError (also TimeoutError)
     +- BudgetExceededError               the call does not fit into the budget; it was not sent
     +- ClosedError                       the orchestrator was closed during the call
     +- CancelledCallError                the call was cancelled
     +- WorkerError                       the workers of a durable run could not make the call
     +- PaidCallBlockedError              the switch against paid calls is on
"""

from typing import Any, Dict, Optional, Sequence, Tuple

from .formatting import Wording, for_shell, naming

# Values of `fatal_for`.
RUN, MODEL = "run", "model"


class ClaudeForceError(Exception):
    """Base of all errors of this package; `str()` says what happened and what to do next.

        result = orchestrator.run_agent("python-expert", "Explain decorators")
        if isinstance(result.error, RateLimitError):
            time.sleep(result.error.retry_after or 60)

    Attributes:
        fatal_for: which other calls would meet the same error: "run" for every call of a bulk run or a
            workflow, "model" for every call of the same model, None for no other call.
    """

    fatal_for: Optional[str] = None

    def for_shell(self) -> str:
        """The same text for users of the command: with options such as `--timeout`, not arguments."""
        return for_shell(self.args[0]) if len(self.args) == 1 and isinstance(self.args[0], str) else str(self)


class CacheError(ClaudeForceError, ValueError):
    """A cache folder or a secret can't be used as it is."""


class InputError(ClaudeForceError, ValueError):
    """The input can't be run as it is; nothing was sent."""


class InvalidAgentNameError(InputError):
    """The agent name is empty or has characters outside `a-z A-Z 0-9 _ -`."""


class InvalidTaskError(InputError):
    """The task is empty, too long, or not text."""


class InvalidOptionError(InputError):
    """An option makes no sense, or the API or the model doesn't take it."""

    fatal_for: Optional[str] = RUN


class AgentNotFoundError(InputError):
    """No definition has this name."""


class WorkflowNotFoundError(InputError):
    """claude.json has no workflow of this name."""


class InvalidWorkflowError(InputError):
    """A workflow can't be run as it is written. `faults` has the text of each of its faults."""

    def __init__(self, name: str, faults: Sequence[str]) -> None:
        self.name = name
        self.faults: Tuple[str, ...] = tuple(faults)
        lines = "".join(f"\n- {fault}" for fault in faults)
        super().__init__(f"Workflow '{name}' can't be run.{lines}")

    def __reduce__(self) -> Any:
        return type(self), (self.name, self.faults)


class RunNotFoundError(InputError):
    """No run with this id is stored."""


class RunBusyError(InputError):
    """The run can't be resumed now, because another process is running it."""


class UnknownPriceError(InputError):
    """A budget is set, and the most that the call may cost is unknown."""

    fatal_for: Optional[str] = RUN


class ToolSandboxError(InputError):
    """Agents may use Bash, and commands can't be confined on this machine. They are never run unconfined."""

    fatal_for: Optional[str] = RUN


class WorktreeError(InputError):
    """An agent may edit, and can't be given a copy of the project, or its patch can't be made or applied."""

    fatal_for: Optional[str] = RUN


class PatchConflictError(WorktreeError):
    """A patch does not fit the files as they are now. None of them was changed."""

    fatal_for: Optional[str] = None


class FileAccessError(InputError):
    """A file is not read: it is missing, outside the project, too large, or not a regular file.

    Attributes:
        name: the file as it was given, on one line.
        what: what is wrong with it; follows the name in a sentence.
        advice: what the user can do about it, one sentence.
        is_missing: there is no such file.
        is_outside: the path, or a link in it, leads out of the folder that files are read from.
    """

    def __init__(
        self, name: str, what: str, advice: str, is_missing: bool = False, is_outside: bool = False
    ) -> None:
        super().__init__(f"{name} {what}. {advice}")
        self.name: str = name
        self.what: str = what
        self.advice: str = advice
        self.is_missing: bool = is_missing
        self.is_outside: bool = is_outside

    def __reduce__(self) -> Any:
        return type(self), (self.name, self.what, self.advice, self.is_missing, self.is_outside)


class ConfigurationError(InputError):
    """A configuration or definition file can't be read, or points outside its folder."""


class ConfigurationNotFoundError(ConfigurationError, FileNotFoundError):
    """Nothing is at the path that was given as the configuration."""

    # ValueError.__new__ comes first and can't make an object with the fields of an OSError.
    def __new__(cls, *args: Any) -> "ConfigurationNotFoundError":
        return FileNotFoundError.__new__(cls, *args)


class DatabaseError(ConfigurationError):
    """The database of durable runs can't be used, or not by this process."""

    fatal_for: Optional[str] = RUN


class CallError(ClaudeForceError):
    """A call that failed after its input was accepted.

    Attributes:
        advice: what the user can do about it, one sentence.
        status: the HTTP status, where there was one.
        kind: the API's own error type, such as "overloaded_error".
        request_id: the API's id of the request, for its support.
        retry_after: how long the server asked to wait, in seconds.
        retryable: whether another attempt is made; the server's `x-should-retry` decides over the class.
        skipped: the call was not sent, because an earlier response showed that it would meet this error.
        attempts: the number of requests that were made, this one included.
        cost: what the requests cost, in USD; None where nothing was billed or the cost is unknown.
        cost_at_most: where `cost` is None, the most that may have been billed, in USD; None where that is
            unknown too.
        timeline: a `claude_force.types.Attempt` for each request.

    Example:
        result = orchestrator.run_agent("python-expert", "Explain decorators")
        if isinstance(result.error, CallError):
            print(result.error.status, result.error.message, result.error.request_id)
    """

    advice: str = "See the log for details."
    retryable: bool = False
    skipped: bool = False

    def __init__(
        self,
        message: str,
        *,
        advice: Optional[str] = None,
        status: Optional[int] = None,
        kind: Optional[str] = None,
        request_id: Optional[str] = None,
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice or type(self).advice
        self.status = status
        self.kind = kind
        self.request_id = request_id
        self.retry_after = retry_after
        self.attempts = 0
        self.cost: Optional[float] = None
        self.cost_at_most: Optional[float] = 0.0
        self.timeline: Tuple[Any, ...] = ()

    def __str__(self) -> str:
        return self._with_advice(self.message, self.advice)

    def for_shell(self) -> str:
        # An error restored from a file or another process has lost its text for the command.
        default = type(self).advice
        advice = default if self.advice == default else self.advice
        return self._with_advice(for_shell(self.message), for_shell(advice))

    def _with_advice(self, message: str, advice: str) -> str:
        text = message + (f" (request {self.request_id})" if self.request_id else "")
        # A server's message may end in a full stop already.
        return f"{text}{'' if text.endswith('.') else '.'} {advice}"

    def __reduce__(self) -> Any:
        return _restore, (type(self), self.message, dict(self.__dict__))


def _restore(cls: type, message: str, state: Dict[str, Any]) -> CallError:
    error: CallError = cls(message)
    error.__dict__.update(state)
    return error


class TransientError(CallError):
    """The call failed in a way that another attempt may not."""

    retryable = True


class ConnectionFailedError(TransientError):
    """The connection failed, or broke before the answer was complete.

    Attributes:
        never_connected: there was no connection: it was refused, the host is unknown, or TLS failed.
    """

    never_connected: bool = False

    advice = "Check the network and ANTHROPIC_BASE_URL, then run it again."


class SilenceError(TransientError, TimeoutError):
    """The server sent nothing for `timeout_seconds`."""

    advice: str = naming("Raise {} if the model is slow to start, or try again later.", "timeout_seconds")


class RateLimitError(TransientError):
    """429: the organisation's requests or tokens per minute are used up."""

    advice: str = naming(
        "Lower {}, raise {}, or ask for a higher rate limit.", "max_concurrent", "max_retries"
    )


class OverloadedError(TransientError):
    """529, 503 or an `overloaded_error` event: the service is overloaded."""

    advice: str = naming("The service is busy; try again later or raise {}.", "max_retries")


class ServerError(TransientError):
    """408, 409, 425, or any other 5xx: the server failed."""

    advice = "The server failed on its side; try again later and give its support the request id."


class RequestRefusedError(CallError):
    """400, 422 or another 4xx: the server does not accept the request as it is."""

    advice = "Correct the request as the server's message says; the same request will fail again."


class RequestTooLargeError(RequestRefusedError):
    """413: the request's body is over the server's limit."""

    advice = "Shorten the task or the agent's definition."


class AuthenticationError(CallError):
    """401, or 407 from a proxy: the credentials were missing or not accepted."""

    advice: str = Wording(
        "Set ANTHROPIC_API_KEY to a valid key (export ANTHROPIC_API_KEY=...), or pass api_key.",
        "Set ANTHROPIC_API_KEY to a valid key: export ANTHROPIC_API_KEY=...",
    )
    fatal_for: Optional[str] = RUN


class MissingCredentialsError(AuthenticationError, ValueError):
    """Neither the caller nor the environment has a key, a token or a profile; nothing was sent."""


class SpendLimitError(CallError):
    """402, or any status with a message that credit is used up or a spend limit is reached."""

    advice = "Raise the spend limit or add credit in the Console; waiting does not help."
    fatal_for: Optional[str] = RUN


class PermissionDeniedError(CallError):
    """403 or 451: the key may not do this; or the organisation, the workspace or the key is disabled."""

    advice = "Use a key whose workspace may use this model and endpoint."
    fatal_for: Optional[str] = MODEL


class ModelNotFoundError(CallError):
    """404, 405 or 410: the endpoint does not know the model, or the path."""

    advice = "Check the model's name and ANTHROPIC_BASE_URL."
    fatal_for: Optional[str] = MODEL


class BadReplyError(CallError):
    """The response has status 200 and is not one of the Messages API, or redirects nowhere."""

    advice = "Check that ANTHROPIC_BASE_URL is a Messages API and no proxy answers in its place."


class AnswerTooLargeError(CallError):
    """The answer was far longer than `max_tokens` allows, and reading it was stopped."""

    advice: str = naming(
        "Check that ANTHROPIC_BASE_URL is a Messages API that keeps to {}; what came may be billed.",
        "max_tokens",
    )


class RefusedError(CallError):
    """The model declined to answer (`stop_reason: refusal`). The request was billed."""

    advice = "Change the task or the agent's instructions; the same request is likely to be refused again."


class EmptyAnswerError(CallError):
    """The answer ended without any text. The request was billed."""

    advice: str = naming("Raise {} if the model used them up by thinking, or change the task.", "max_tokens")


class NoFinalAnswerError(CallError):
    """The last answer that a bound allowed still calls tools; they were not run."""

    advice = "Allow the agent more turns or tool calls, or give it less to do."


class ToolCallCutOffError(CallError):
    """An answer with tool calls was cut off at `max_tokens`; none of its calls was run."""

    advice: str = naming("Raise {}, or tell the agent to write less at a time.", "max_tokens")


class ContextFullError(CallError):
    """The messages of an agent with tools have filled the model's context."""

    advice = "Give the agent less to read at a time, or choose a model with a larger context."


class DeadlineExceededError(CallError, TimeoutError):
    """`deadline_seconds` passed before the call ended."""

    advice: str = naming("Raise {}, or run fewer calls at once.", "deadline_seconds")


class BudgetExceededError(CallError):
    """The call may cost more than the budget has left; it was not sent.

    Attributes:
        is_of_call: the budget is that of this call alone: others go on.
    """

    is_of_call: bool = False

    advice: str = naming("Raise {}, lower {}, or choose a model that costs less.", "budget_usd", "max_tokens")


class ClosedError(CallError):
    """The orchestrator was closed before the call had ended."""

    advice = "Await the call before you close the orchestrator."


class CancelledCallError(CallError):
    """The call was cancelled, or another process cancelled its durable run.

    A call is recorded as cancelled where something was sent, as that may be billed.
    """

    advice = "Run it again if the answer is wanted; what was sent may be billed."


class WorkerError(CallError):
    """The call failed in a worker of a durable run, not at the API."""

    advice = "See the worker's log; handed over again, the call is made again."


class PaidCallBlockedError(CallError):
    """CLAUDE_FORCE_LOOPBACK_ONLY is set and the endpoint is not on this machine."""

    advice = "Set ANTHROPIC_BASE_URL to a server on loopback, or unset CLAUDE_FORCE_LOOPBACK_ONLY."
    fatal_for: Optional[str] = RUN
