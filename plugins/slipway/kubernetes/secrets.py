"""The values of Secrets: masked in the log, and stored only as hashes. No I/O.

The overlay and the cluster have the values of an overlay's Secret. Neither the log nor the artifact store needs them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from typing import Any

from slipway.facts import JsonObject

FIELDS = ("data", "stringData")
HIDDEN = "***"  # as kubectl diff shows them
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"  # kubectl apply's copy of the whole object
HASHED = "pbkdf2-sha256:"  # the colon is not in base64: the API server refuses a hash as a value
ROUNDS = 100_000  # a short value takes long to guess from its hash


def mask_secret(before: JsonObject | None, after: JsonObject | None) -> tuple[JsonObject | None, JsonObject | None]:
    """An object before and after an apply, without the values of a Secret, as `kubectl diff` shows it; others unchanged."""
    if (before or after or {}).get("kind") != "Secret":
        return before, after
    return _mask(before, after, " (before)"), _mask(after, before, " (after)")


def _mask(one: JsonObject | None, other: JsonObject | None, when: str) -> JsonObject | None:
    if one is None:
        return None
    masked = {**one, "metadata": _mask_annotation(one.get("metadata") or {})}
    for field in FIELDS:
        others = (other or {}).get(field) or {}
        if one.get(field):
            masked[field] = {
                key: HIDDEN + (when if key in others and others[key] != value else "")
                for key, value in one[field].items()
            }
    return masked


def _mask_annotation(metadata: JsonObject) -> JsonObject:
    annotations = metadata.get("annotations") or {}
    if LAST_APPLIED not in annotations:
        return metadata
    return {**metadata, "annotations": {**annotations, LAST_APPLIED: HIDDEN}}


def hash_secrets(objects: Iterable[JsonObject]) -> list[JsonObject]:
    """The objects with hashes in place of the values of Secrets; the same values give the same hashes."""
    return [_hashed(one) if one.get("kind") == "Secret" else one for one in objects]


def _hashed(secret: JsonObject) -> JsonObject:
    values = {key: _hash(secret, key, value) for key, value in sorted(_values(secret).items())}
    rest = {name: field for name, field in secret.items() if name not in FIELDS}
    return {**rest, "data": values} if values else rest


def fill_secrets(objects: Iterable[JsonObject], known: Iterable[JsonObject]) -> list[JsonObject]:
    """The objects with the values of `known` Secrets in place of their hashes; a Secret with an unknown value is left hashed."""
    sources = [one for one in known if one.get("kind") == "Secret" and not has_hashes(one)]
    return [_filled(one, sources) if has_hashes(one) else one for one in objects]


def _filled(secret: JsonObject, sources: list[JsonObject]) -> JsonObject:
    named = [source for source in sources if source["metadata"]["name"] == secret["metadata"]["name"]]
    found: dict[str, str] = {}
    for key, hashed in secret["data"].items():
        for value in (_values(source)[key] for source in named if key in _values(source)):
            if _hash(secret, key, value) == hashed:
                found[key] = base64.b64encode(value).decode()
                break
    return {**secret, "data": found} if found.keys() == secret["data"].keys() else secret


def has_hashes(manifest: JsonObject) -> bool:
    """Whether it is a Secret with hashes in place of its values: it cannot be applied."""
    values = (manifest.get("data") or {}).values() if manifest.get("kind") == "Secret" else ()
    return any(isinstance(value, str) and value.startswith(HASHED) for value in values)


def _values(secret: JsonObject) -> dict[str, bytes]:
    """The values as the API server stores them: `stringData` replaces `data`."""
    plain = {key: _decoded(value) for key, value in (secret.get("data") or {}).items()}
    return plain | {key: str(value).encode() for key, value in (secret.get("stringData") or {}).items()}


def _decoded(value: Any) -> bytes:
    try:
        return base64.b64decode(str(value or ""), validate=False)
    except binascii.Error:  # the API server refuses it too
        return str(value).encode()


def _hash(secret: JsonObject, key: str, value: bytes) -> str:
    salt = f"{secret['metadata']['name']}/{key}".encode()
    return HASHED + hashlib.pbkdf2_hmac("sha256", value, salt, ROUNDS).hex()
