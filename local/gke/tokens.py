"""Who a bearer token is: for the emulator itself, and for the API server's token webhook."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jwt

from local.gke.identity import Identity

GOOGLE = "https://accounts.google.com"  # who made a token that no account has signed itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A service account whose tokens count, and the group in the cluster of those that it impersonates."""

    email: str
    public_key: str  # PEM
    group: str
    google_key: str = ""  # PEM, of the tokens that Google made: of the accounts that it impersonates
    refuse: bool = False  # as if every token of it had expired
    expired_before: int = 0  # likewise those that were issued before this Unix time


def issuer_of(identity: Identity, group: str) -> Issuer:
    """The account of an identity."""
    return Issuer(email=identity.email, public_key=identity.public_key, google_key=identity.google_key, group=group)


def who(token: str, issuers: Sequence[Issuer]) -> Issuer | None:
    """Whose token it is, as an issuer with that account's email: signed with its key or with Google's, and not expired.

    The account itself is of no group: what is done in a cluster in its name is refused there.
    """
    for issuer in issuers:
        for key, name in ((issuer.public_key, issuer.email), (issuer.google_key, GOOGLE)):
            options: Any = {"verify_aud": False, "verify_iat": False, "require": ["exp", "iat"]}
            try:
                claims = jwt.decode(token, key, algorithms=["RS256"], issuer=name, options=options)
            except (jwt.InvalidTokenError, jwt.InvalidKeyError):
                continue
            if issuer.refuse or claims["iat"] < issuer.expired_before:
                return None
            return replace(issuer, email=claims["sub"]) if name == GOOGLE else replace(issuer, group="")
    return None


def mint(key: str, account: str, end: int) -> str:
    """A token of an account as Google makes it, good until this Unix time; `key` is Google's, as PEM."""
    claims = {"iss": GOOGLE, "sub": account, "iat": int(time.time()), "exp": end}
    return jwt.encode(claims, key, algorithm="RS256")


def review(asked: dict[str, Any], issuers: Sequence[Issuer]) -> dict[str, Any]:
    """The API server's TokenReview, answered."""
    found = who(str(asked.get("spec", {}).get("token", "")), issuers)
    status: dict[str, Any] = {"authenticated": found is not None}
    if found:
        status["user"] = {"username": found.email, "uid": found.email, "groups": [found.group] if found.group else []}
    return {"apiVersion": asked.get("apiVersion", "authentication.k8s.io/v1"), "kind": "TokenReview", "status": status}


def register(folder: Path, name: str, issuer: Issuer) -> None:
    """Have an issuer's tokens count wherever the folder is read."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.partial"
    partial.write_text(json.dumps(asdict(issuer)))
    partial.rename(folder / f"{name}.json")


def registered(folder: Path, name: str = "*") -> list[Issuer]:
    """The issuers that checkouts have registered, or the one of this name."""
    found = []
    for path in sorted(folder.glob(f"{name}.json")):
        try:
            found.append(Issuer(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):  # one that is being taken away
            continue
    return found
