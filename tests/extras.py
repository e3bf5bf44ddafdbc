"""Tests of an extra are skipped where it is not installed, except in a run that demands the extras."""

import sys
from importlib.util import find_spec

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
