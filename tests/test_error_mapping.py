"""From a status and a body to one typed error."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_force import errors
from claude_force.engine.result_json import error_fields, error_from
from claude_force.transport.error_mapping import from_body, from_status, read_retry_after, redact
from claude_force.transport.transport import Transport


def body(kind="api_error", message="it broke", code=None):
    error = {"type": kind, "message": message}
    if code:
        error["details"] = {"error_code": code}
    return {"type": "error", "error": error, "request_id": "req_of_body"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, errors.RequestRefusedError),
        (401, errors.AuthenticationError),
        (402, errors.SpendLimitError),
        (403, errors.PermissionDeniedError),
        (404, errors.ModelNotFoundError),
        (408, errors.ServerError),
        (409, errors.ServerError),
        (413, errors.RequestTooLargeError),
        (422, errors.RequestRefusedError),
        (429, errors.RateLimitError),
        (500, errors.ServerError),
        (502, errors.ServerError),
        (503, errors.OverloadedError),
        (504, errors.ServerError),
        (529, errors.OverloadedError),
    ],
)
def test_each_status_has_its_error(status, expected):
    assert type(from_status(status, body(), {}, 0)) is expected


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_retryable_statuses(status):
    assert isinstance(from_status(status, body(), {}, 0), errors.TransientError)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 418, 422])
def test_these_statuses_are_final(status):
    assert not isinstance(from_status(status, body(), {}, 0), errors.TransientError)


@pytest.mark.parametrize(
    "code",
    [
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
    ],
)
def test_spend_limit_in_429_is_final(code):
    error = from_status(429, body("rate_limit_error", code=code), {}, 0)
    assert type(error) is errors.SpendLimitError


def test_message_has_all_facts():
    error = from_status(529, body("overloaded_error", "Overloaded"), {"request-id": "req_1"}, 0)
    assert str(error) == (
        "The API answered 529 overloaded_error: Overloaded (request req_1). "
        "The service is busy; try again later or raise max_retries."
    )


def test_request_id_of_body():
    assert from_status(500, body(), {}, 0).request_id == "req_of_body"


def test_quotes_other_servers():
    other = {"error": {"code": 400, "type": "exceed_context_size_error", "message": "too long"}}
    assert "exceed_context_size_error: too long" in str(from_status(400, other, {}, 0))


def test_hides_repeated_key():
    error = from_status(401, body("authentication_error", "bad key sk-ant-api03-SECRETSECRET"), {}, 0)
    assert "SECRET" not in str(error) + repr(error)


async def test_hides_key_with_newline():
    transport = Transport("my-proxy-key-1234\n", "http://127.0.0.1:1", 1.0, True, 1)
    error = errors.ConnectionFailedError("Illegal header value b'my-proxy-key-1234\\n'")
    transport.redactor.clean_error(error)
    await transport.close()
    assert error.message == "Illegal header value b'***\\n'"


KEYS = st.sampled_from(["error", "type", "message", "details", "error_code"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


@given(ANYTHING, st.integers(400, 599))
def test_any_error_body_is_survived(anything, status):
    assert isinstance(from_status(status, anything, {}, 0), errors.CallError)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("soon", None),
        ("", None),
        ("-5.5", 0.0),
        ("86400", 86_400.0),
        ("86401", None),
        ("1e300", None),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 -0000", 40.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("nan", None),
        ("inf", None),
        ("1 Jan 99999999999999999999 00:00:00 GMT", None),
    ],
)
def test_retry_after(value, seconds):
    assert read_retry_after({"retry-after": value}, now=60.0) == seconds


def test_overloaded_event_is_transient():
    error = from_body(body("overloaded_error", "Overloaded"))
    assert type(error) is errors.OverloadedError
    assert error.status == 529


def test_unknown_error_event():
    assert type(from_body({"type": "error"})) is errors.ServerError


@pytest.mark.parametrize("text", ["x-api-key sk-ant-api03-abcDEF123", "Authorization: Bearer abc.def-ghi"])
def test_keys_are_blotted_out(text):
    assert not {"abcDEF123", "abc.def-ghi"} & set(redact(text).replace("***", " ").split())
    assert "***" in redact(text)


def test_errors_can_be_pickled():
    error = from_status(429, body("rate_limit_error", "slow down"), {"retry-after": "7"}, 0)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.retry_after, copy.status) == (str(error), 7.0, 429)


@pytest.mark.parametrize(
    ("milliseconds", "seconds"),
    [("1500", 1.5), ("0.5", 0.0005), ("-3", 0.0), ("soon", 7.0), ("nan", 7.0), ("1e300", None), ("", 7.0)],
)
def test_retry_after_ms_wins(milliseconds, seconds):
    assert read_retry_after({"retry-after-ms": milliseconds, "retry-after": "7"}, now=0.0) == seconds


@pytest.mark.parametrize("status", [*range(500, 600), 600, 999, 0])
def test_retries_5xx_and_invalid(status):
    assert from_status(status, "", {}, 0).retryable


@pytest.mark.parametrize("status", [*range(402, 408), *range(410, 425), 426, 428, 431, 451, 499])
def test_other_4xx_are_final(status):
    assert not from_status(status, "", {}, 0).retryable


@pytest.mark.parametrize("status", [100, 101, 300, 302, 304])
def test_1xx_and_3xx_are_bad_replies(status):
    assert type(from_status(status, "", {}, 0)) is errors.BadReplyError


SPENT = [
    body(
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. Please go to Plans",
    ),
    body(
        "invalid_request_error", "You have reached your specified API usage limits. You will regain access on"
    ),
    body("rate_limit_error", "x", code="contract_spend_limit_reached"),
    body("billing_error", "Payment is due."),
    {
        "error": {
            "message": "You exceeded your quota",
            "type": "insufficient_quota",
            "code": "insufficient_quota",
        }
    },
    {
        "error": {
            "message": "Budget has been exceeded! Current cost: 2.1",
            "type": "budget_exceeded",
            "code": "400",
        }
    },
    {"error": {"message": "ExceededBudget: key over budget. Budget exceeded.", "type": "None", "code": 429}},
    {"message": "Your workspace has reached its monthly spend limit."},
    "Your usage limit has been reached.",
]


@pytest.mark.parametrize("status", [400, 402, 403, 429, 500, 529])
@pytest.mark.parametrize("words", SPENT, ids=lambda words: str(words)[:50])
def test_spend_limit_under_any_status(status, words):
    error = from_status(status, words, {"x-should-retry": "true"}, 0)
    assert (type(error), error.retryable, error.fatal_for) == (errors.SpendLimitError, False, "run")


@pytest.mark.parametrize(
    "words",
    [
        "This request would exceed your organization's rate limit of 50 requests per minute.",
        "Number of request tokens has exceeded your per-minute rate limit",
        "This request would exceed the rate limit for your organization of 40,000 input tokens per minute.",
        "Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_base_model.",
        "You exceeded your current quota, please check your plan and billing details. Please retry in 33s.",
        "Too many tokens, please wait before trying again.",
    ],
)
def test_rate_limit_is_no_spend_limit(words):
    error = from_status(429, body("rate_limit_error", words), {}, 0)
    assert (type(error), error.fatal_for) == (errors.RateLimitError, None)


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize(
    "words",
    [
        "This organization has been disabled.",
        "Your account has been suspended",
        "The workspace is archived.",
        "API key not valid. Please pass a valid API key.",
        "This API key has been revoked.",
        "The project 'x' has been deleted",
    ],
)
def test_disabled_holds_for_the_run(status, words):
    error = from_status(status, body("invalid_request_error", words), {}, 0)
    assert (type(error), error.fatal_for) == (errors.PermissionDeniedError, "run")


@pytest.mark.parametrize(
    "words",
    [
        "prompt is too long: 210000 tokens > 200000 maximum",
        "messages.0.content: text content blocks must be non-empty",
        "temperature: is not supported by this model",
        "max_tokens: 1000000 > 64000, which is the maximum for claude-x",
    ],
)
def test_wrong_request_holds_for_itself(words):
    error = from_status(400, body("invalid_request_error", words), {}, 0)
    assert (type(error), error.fatal_for) == (errors.RequestRefusedError, None)


@pytest.mark.parametrize(
    ("status", "fatal_for"), [(401, "run"), (402, "run"), (407, "run"), (403, "model"), (404, "model")]
)
def test_statuses_that_hold_for_others(status, fatal_for):
    assert from_status(status, body(), {}, 0).fatal_for == fatal_for


@pytest.mark.parametrize(
    "words", ["The provided model identifier is invalid.", "Invalid model name passed in model=claude-x"]
)
def test_unknown_model_holds_for_model(words):
    assert from_status(400, {"message": words}, {}, 0).fatal_for == "model"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("no_db_connection", (errors.AuthenticationError, "run")),
        ("authentication_error", (errors.AuthenticationError, "run")),
        ("model_not_found", (errors.ModelNotFoundError, "model")),
        ("exceed_context_size_error", (errors.RequestRefusedError, None)),
    ],
)
def test_type_of_400_wins(kind, expected):
    error = from_status(400, body(kind), {}, 0)
    assert (type(error), error.fatal_for) == expected


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "authentication_error"}, errors.AuthenticationError),
        ({"type": "auth_error", "code": "401"}, errors.AuthenticationError),
        ({"type": "invalid_request_error", "code": "context_length_exceeded"}, errors.RequestRefusedError),
        ({"type": "tokens", "code": "rate_limit_exceeded"}, errors.RateLimitError),
        ({"status": "RESOURCE_EXHAUSTED", "code": 429}, errors.RateLimitError),
        ({"status": "UNAUTHENTICATED"}, errors.AuthenticationError),
        ({"type": "throttlingException"}, errors.RateLimitError),
        ({"type": "ThrottlingException"}, errors.RateLimitError),
        ({"type": "server_error", "code": 500}, errors.ServerError),
        ({"type": "unavailable_error", "code": 503}, errors.OverloadedError),
        ({"code": 524}, errors.ServerError),
        ({"type": "brand_new_error"}, errors.ServerError),
    ],
)
def test_error_in_body_has_its_type(error, kind):
    assert type(from_body({"error": {"message": "x", **error}})) is kind


@given(ANYTHING)
def test_any_200_body_is_survived(anything):
    assert isinstance(from_body({"type": "error", "error": anything}), errors.CallError)


def test_flags_survive_json():
    error = from_status(500, body(), {"x-should-retry": "false"}, 0)
    copy = error_from(json.loads(json.dumps(error_fields(error), default=str)), errors.CallError)
    assert (type(copy), copy.retryable) == (errors.ServerError, False)
    disabled = from_status(403, body(message="This organization has been disabled."), {}, 0)
    copy = error_from(json.loads(json.dumps(error_fields(disabled), default=str)), errors.CallError)
    assert copy.fatal_for == "run"
