"""The URL of a database: checked, and never shown with its password. Pure."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..errors import InvalidOptionError

_POSTGRES = ("postgresql", "postgres")
_SECRET_PARAMETERS = ("password", "sslpassword", "passfile")
# Of the others only these are shown: one that is misspelt may be meant for a secret.
_SHOWN_PARAMETERS = ("host", "port", "dbname", "sslmode")


class DatabaseUrl(NamedTuple):
    """Where the database is. `str()` of it has no password."""

    url: URL

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def plain(self) -> str:
        """As DBOS takes it, with the password."""
        return self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=False)

    @property
    def secrets(self) -> Dict[str, str]:
        """What may not be shown."""
        found = {name: str(value) for name, value in self.url.query.items() if name in _SECRET_PARAMETERS}
        return {**found, "password": str(self.url.password)} if self.url.password else found

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        shown = self.url.difference_update_query(
            [one for one in self.url.query if one not in _SHOWN_PARAMETERS]
        )
        plain = shown.set(drivername=self.url.get_backend_name())
        return plain.render_as_string(hide_password=True)

    def hidden(self, text: str) -> str:
        """`text`, such as a driver's error, without what may not be shown."""
        for secret in self.secrets.values():
            text = text.replace(secret, "***")
        return text


def parse(given: Any) -> DatabaseUrl:
    """Raises InvalidOptionError for what is no URL of Postgres or of an SQLite file."""
    if not isinstance(given, str) or "://" not in given:
        raise _wrong("it is no URL")
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        # Their messages repeat what was given.
        raise _wrong("it can't be read") from None
    backend = url.get_backend_name()
    if backend in _POSTGRES:
        if "@" in f"{url.host}{url.database}":
            # What is behind the first one is likely a part of the password, and would be shown.
            raise _wrong("it has a second '@'; write the '@' of a password as %40")
        return DatabaseUrl(url.set(drivername="postgresql+psycopg"))
    if backend == "sqlite":
        if not url.database or url.database == ":memory:":
            raise _wrong("SQLite needs a file")
        return DatabaseUrl(url.set(drivername="sqlite"))
    raise _wrong(f"{backend} is not supported")


def _wrong(why: str) -> InvalidOptionError:
    return InvalidOptionError(
        f"The database's URL can't be used: {why}. Give postgresql://user:password@host/database, or "
        "sqlite:///path/to/file.db."
    )
