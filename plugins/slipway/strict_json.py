"""JSON from outside: a server's answer, a file of the store."""

from __future__ import annotations

import json
from typing import Any


def load_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises only ValueError, for any text."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
