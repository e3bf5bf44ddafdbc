"""Tests of an extra are skipped where it is not installed, except in a run that demands the extras."""

import sys
from importlib.util import find_spec

import pytest

from claude_force.limits.prices import cost
from claude_force.types import Usage

MODULES = {
    "bedrock": ("boto3", "botocore"),
    "durable": ("dbos", "psycopg", "sqlalchemy"),
    "otel": ("opentelemetry.sdk",),
    "vertex": ("google.auth", "requests"),
}
demanded = False


def missing(extra):
    """Why its tests are skipped here; "" if they are not."""
    if extra == "durable" and sys.version_info < (3, 10):
        return "durable runs need Python 3.10"
    if demanded or all(map(_found, MODULES[extra])):
        return ""
    return f"the extra {extra!r} is not installed"


def _found(module):
    parent = module.rpartition(".")[0]
    return bool(not parent or find_spec(parent)) and bool(find_spec(module))


def require_prices(*models):
    """Skips a test where the price list of this Python is too old for one of the models, or missing."""
    unknown = [model for model in models if cost(model, Usage(1, 1)) is None]
    if unknown:
        pytest.skip(f"the price list of this Python does not have {', '.join(unknown)}")
