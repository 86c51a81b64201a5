"""Verifies bearer tokens, for the emulator itself and for the API server's token webhook."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jwt

from local.gke.identity import Identity

GOOGLE = "https://accounts.google.com"  # the issuer of tokens that no account has signed itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A service account whose tokens are accepted, and the Kubernetes group of the accounts that it impersonates."""

    email: str
    public_key: str  # PEM
    group: str
    google_key: str = ""  # PEM; verifies the tokens of impersonated accounts, which Google signs
    refuse: bool = False  # every token counts as expired
    expired_before: int = 0  # tokens issued before this Unix time count as expired


def issuer_of(identity: Identity, group: str) -> Issuer:
    """The issuer for an identity's account."""
    return Issuer(email=identity.email, public_key=identity.public_key, google_key=identity.google_key, group=group)


def who(token: str, issuers: Sequence[Issuer]) -> Issuer | None:
    """The issuer with the email of the token's account, if the token is valid, otherwise None.

    A token is signed with the account's own key or with Google's. With its own key it has no group, so that the cluster
    refuses what it does.
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
    """A token of an account as Google signs it, valid until this Unix time. `key` is Google's, as PEM."""
    claims = {"iss": GOOGLE, "sub": account, "iat": int(time.time()), "exp": end}
    return jwt.encode(claims, key, algorithm="RS256")


def review(request: dict[str, Any], issuers: Sequence[Issuer]) -> dict[str, Any]:
    """The answer to the API server's TokenReview."""
    found = who(str(request.get("spec", {}).get("token", "")), issuers)
    status: dict[str, Any] = {"authenticated": found is not None}
    if found:
        status["user"] = {"username": found.email, "uid": found.email, "groups": [found.group] if found.group else []}
    version = request.get("apiVersion", "authentication.k8s.io/v1")
    return {"apiVersion": version, "kind": "TokenReview", "status": status}


def register(folder: Path, name: str, issuer: Issuer) -> None:
    """Register an issuer in the folder: every emulator that reads it accepts its tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.partial"
    partial.write_text(json.dumps(asdict(issuer)))
    partial.rename(folder / f"{name}.json")


def registered(folder: Path, name: str = "*") -> list[Issuer]:
    """The issuers that checkouts have registered, or only the one of this name."""
    found = []
    for path in sorted(folder.glob(f"{name}.json")):
        try:
            found.append(Issuer(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):  # one that is being removed
            continue
    return found
