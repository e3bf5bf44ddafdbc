"""How figures are formatted in commands, in the report and in messages."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_force.formatting import (
    format_bytes,
    format_duration,
    format_duration_coarse,
    format_percent,
    format_usd,
    pluralize,
)


@pytest.mark.parametrize(
    "usd, spelled",
    [
        (0.0, "$0.00"),
        (-0.0, "$0.00"),
        (0.1 + 0.2 - 0.3, "$0.00"),
        (0.3 - 0.1 - 0.2, "$0.00"),
        (0.0000004, "<$0.000001"),
        (-0.0000004, "-<$0.000001"),
        (0.000001, "$0.000001"),
        (0.0000123, "$0.000012"),
        (0.00009949, "$0.000099"),
        (0.00009996, "$0.0001"),
        (0.99994, "$0.9999"),
        (0.99996, "$1.00"),
        (0.00012, "$0.0001"),
        (0.25, "$0.2500"),
        (1.1, "$1.10"),
        (1234.5, "$1,234.50"),
        (-0.5, "-$0.5000"),
        (-1234.5, "-$1,234.50"),
    ],
)
def test_usd_has_significant_digits(usd, spelled):
    assert format_usd(usd) == spelled


@given(st.floats(1e-9, 1e9))
def test_small_usd_is_not_zero(usd):
    assert re.search("[1-9]", format_usd(usd))


@pytest.mark.parametrize(
    "seconds, spelled",
    [
        (0.0, "0.0 ms"),
        (0.0025, "2.5 ms"),
        (0.00999, "10 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (1.5, "1.50 s"),
        (9.996, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (119.0, "1 min 59 s"),
        (3_661.0, "1 h 1 min"),
        (90_000.0, "1 d 1 h"),
    ],
)
def test_measured_time_has_three_digits(seconds, spelled):
    assert format_duration(seconds) == spelled


@pytest.mark.parametrize(
    "seconds, spelled",
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3_599.6, "1 h 0 min"),
        (172_800, "2 d 0 h"),
        (10_000 * 86_400, "10000 d 0 h"),
    ],
)
def test_estimated_time_has_two_units(seconds, spelled):
    assert format_duration_coarse(seconds) == spelled


@given(st.floats(60, 1e9))
def test_long_times_are_formatted_alike(seconds):
    assert format_duration(seconds) == format_duration_coarse(seconds)


@given(st.floats(0, 1e12))
def test_no_time_has_60_seconds(seconds):
    wrong = r"(?<![\d.])((60|59\.95) s|60 min|24 h|1000 ms)"
    assert not re.search(wrong, format_duration(seconds))


@pytest.mark.parametrize(
    "share, spelled",
    [(0.0, "0.0 %"), (0.0001, "<0.1 %"), (0.001, "0.1 %"), (0.5, "50.0 %"), (1.0, "100.0 %")],
)
def test_small_percentage_is_not_zero(share, spelled):
    assert format_percent(share) == spelled


def test_a_count_is_singular_for_one_alone():
    assert [pluralize(number, "call") for number in (0, 1, 2_000)] == ["0 calls", "1 call", "2,000 calls"]
    assert pluralize(2, "retry", "retries") == "2 retries"


@pytest.mark.parametrize(
    "octets, spelled",
    [(1, "1 byte"), (1023, "1,023 bytes"), (1024, "1 kB"), (999 * 1024, "999 kB"), (100 * 2**20, "100.0 MB")],
)
def test_a_size_is_in_the_unit_that_suits_it(octets, spelled):
    assert format_bytes(octets) == spelled
