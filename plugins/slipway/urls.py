"""URLs without what must not be kept: a login (`https://user:password@…`), and a query, which may be a signature."""

from __future__ import annotations

import re

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/?#]*)([^?#]*)", re.DOTALL)
AUTHORITY = re.compile(r"(https?)?(://)([^/\s'\"]*)@", re.IGNORECASE)
PATH_AND_QUERY = re.compile(r"(://[^\s'\"?#]*)([?#][^\s'\"]*)?")  # the query is optional, so that no text is read twice


def plain_url(url: str) -> str:
    """The URL without login, query and fragment. A connection's id in a bucket's URI stays: `gs://CONNECTION@BUCKET`."""
    parts = URL.match(url)
    if parts is None:
        return url
    scheme, authority, path = parts.groups()
    return f"{scheme}{authority.rpartition('@')[2] if has_login(url) else authority}{path}"


def has_login(url: str) -> bool:
    """Whether a URL has a login. The id of a connection, as in `gs://CONNECTION@BUCKET`, is none."""
    parts = URL.match(url)
    login, at, _ = parts[2].rpartition("@") if parts else ("", "", "")
    return bool(at) and (":" in login or url.lower().startswith("http"))


def query_of(url: str) -> str:
    """What follows the path of a URL, without its `?`; empty if nothing does."""
    parts = URL.match(url)
    return url[parts.end() :].lstrip("?#") if parts else ""


def hide_logins(text: str) -> str:
    """A text with `***` in place of each login in a URL."""
    return AUTHORITY.sub(
        lambda found: found[0] if not found[1] and ":" not in found[3] else f"{found[1] or ''}://***@", text
    )


def hide_secrets(text: str) -> str:
    """A text with `***` in place of each login and each query in a URL."""
    return PATH_AND_QUERY.sub(lambda found: f"{found[1]}?***" if found[2] else found[1], hide_logins(text))
