"""IAM credentials: a token of another account for one that may impersonate it.

POST iamcredentials /v1/projects/-/serviceAccounts/{account}:generateAccessToken

The token is signed with the key of the universe's hosts, as Google's are with a key of Google's; `tokens.py` knows it from then on.
Who may impersonate whom is one permission for all: `iam.serviceAccounts.getAccessToken` among those that the project is missing.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import grpc

from local.gke.errors import Refusal
from local.gke.rest import Asked, Route
from local.gke.tokens import mint

RIGHT = "iam.serviceAccounts.getAccessToken"
LONGEST_S = 3600


def routes(key: str) -> tuple[Route, ...]:
    """The API's methods; `key`, as PEM, signs the tokens."""
    return (
        Route(
            name="iamcredentials.projects.serviceAccounts.generateAccessToken",
            verb="POST",
            path="/v1/projects/-/serviceAccounts/{account}:generateAccessToken",
            answer=_generator(key),
        ),
    )


def _generator(key: str) -> Callable[[Asked], Any]:
    def generate(asked: Asked) -> Any:
        project, account = asked.google.project, asked.path["account"]
        if RIGHT in project.missing:
            words = f"Permission '{RIGHT}' denied on resource (or it may not exist)."
            raise Refusal(grpc.StatusCode.PERMISSION_DENIED, words)
        if not account.endswith(f"@{project.id}.iam.gserviceaccount.com"):
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"Not found; Gaia id not found for email {account}")
        life_s = int(asked.body.get("lifetime", f"{LONGEST_S}s").removesuffix("s"))
        if not 0 < life_s <= LONGEST_S:
            words = f"The lifetime must be between 1 second and {LONGEST_S} seconds."
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, words)
        end = int(time.time()) + life_s
        token = mint(key, account, end)
        return {"accessToken": token, "expireTime": datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}

    return generate
