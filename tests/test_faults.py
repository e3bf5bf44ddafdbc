"""From a status and a body to one typed error."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_force import errors
from claude_force.calling.faults import from_status, from_stream_error, read_retry_after, redact
from claude_force.calling.transport import Transport


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
def test_these_statuses_are_worth_another_attempt(status):
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
def test_a_429_whose_code_says_spend_limit_is_final(code):
    error = from_status(429, body("rate_limit_error", code=code), {}, 0)
    assert type(error) is errors.SpendLimitError


def test_the_message_says_status_kind_words_request_and_what_to_do():
    error = from_status(529, body("overloaded_error", "Overloaded"), {"request-id": "req_1"}, 0)
    assert str(error) == (
        "The API answered 529 overloaded_error: Overloaded (request req_1). "
        "The service is busy; try again later or raise max_retries."
    )


def test_the_request_id_of_the_body_serves_where_the_header_is_missing():
    assert from_status(500, body(), {}, 0).request_id == "req_of_body"


def test_the_words_of_another_server_are_kept():
    other = {"error": {"code": 400, "type": "exceed_context_size_error", "message": "too long"}}
    assert "exceed_context_size_error: too long" in str(from_status(400, other, {}, 0))


def test_a_key_that_the_server_repeats_is_not_repeated_again():
    error = from_status(401, body("authentication_error", "bad key sk-ant-api03-SECRETSECRET"), {}, 0)
    assert "SECRET" not in str(error) + repr(error)


async def test_a_key_with_the_newline_of_its_file_is_not_shown_either():
    transport = Transport("my-proxy-key-1234\n", "http://127.0.0.1:1", 1.0, True, 1)
    error = errors.ConnectionFailedError("Illegal header value b'my-proxy-key-1234\\n'")
    transport.hide_credentials(error)
    await transport.close()
    assert error.message == "Illegal header value b'***\\n'"


KEYS = st.sampled_from(["error", "type", "message", "details", "error_code"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


@given(ANYTHING, st.integers(400, 599))
def test_no_body_can_break_the_reading_of_an_error(anything, status):
    assert isinstance(from_status(status, anything, {}, 0), errors.CallError)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1 Jan 99999999999999999999 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert read_retry_after({"retry-after": value}, now=60.0) == seconds


def test_an_overloaded_event_in_a_stream_is_transient():
    error = from_stream_error(body("overloaded_error", "Overloaded"))
    assert type(error) is errors.OverloadedError
    assert error.status == 529


def test_an_unknown_event_error_is_the_servers_fault():
    assert type(from_stream_error({"type": "error"})) is errors.ServerError


@pytest.mark.parametrize("text", ["x-api-key sk-ant-api03-abcDEF123", "Authorization: Bearer abc.def-ghi"])
def test_keys_are_blotted_out(text):
    assert not {"abcDEF123", "abc.def-ghi"} & set(redact(text).replace("***", " ").split())
    assert "***" in redact(text)


def test_errors_survive_pickling_with_all_they_know():
    error = from_status(429, body("rate_limit_error", "slow down"), {"retry-after": "7"}, 0)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.retry_after, copy.status) == (str(error), 7.0, 429)
