"""Who a bearer token is: for the emulator itself, and for the API server's token webhook."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jwt


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A service account whose tokens count, and the group that it is of in the cluster."""

    email: str
    public_key: str  # PEM
    group: str
    refuse: bool = False  # as if every token of it had expired
    expired_before: int = 0  # likewise those that were issued before this Unix time


def who(token: str, issuers: Sequence[Issuer]) -> Issuer | None:
    """Whose token it is: signed with that account's key and not expired."""
    for issuer in issuers:
        try:
            claims = jwt.decode(
                token,
                issuer.public_key,
                algorithms=["RS256"],
                issuer=issuer.email,
                options={"verify_aud": False, "require": ["exp"]},
            )
        except jwt.InvalidTokenError:
            continue
        return None if issuer.refuse or claims.get("iat", 0) < issuer.expired_before else issuer
    return None


def review(asked: dict[str, Any], issuers: Sequence[Issuer]) -> dict[str, Any]:
    """The API server's TokenReview, answered."""
    found = who(str(asked.get("spec", {}).get("token", "")), issuers)
    status: dict[str, Any] = {"authenticated": found is not None}
    if found:
        status["user"] = {"username": found.email, "uid": found.email, "groups": [found.group]}
    return {"apiVersion": asked.get("apiVersion", "authentication.k8s.io/v1"), "kind": "TokenReview", "status": status}


def register(folder: Path, name: str, issuer: Issuer) -> None:
    """Have an issuer's tokens count wherever the folder is read."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.partial"
    partial.write_text(json.dumps(asdict(issuer)))
    partial.rename(folder / f"{name}.json")


def registered(folder: Path) -> list[Issuer]:
    """The issuers that checkouts have registered."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(Issuer(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):  # one that is being taken away
            continue
    return found
