"""IAM credentials: a token of another account for a caller that may impersonate it.

POST iamcredentials /v1/projects/-/serviceAccounts/{account}:generateAccessToken

The token is signed with the key of the universe's hosts, as Google signs with its own key; `tokens.py` verifies it.
One permission decides for all accounts: nobody may impersonate while `iam.serviceAccounts.getAccessToken` is in the
project's `missing`.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import grpc

from local.gke.errors import Refusal
from local.gke.rest import Request, Route
from local.gke.tokens import mint

RIGHT = "iam.serviceAccounts.getAccessToken"
LONGEST_S = 3600


def routes(key: str) -> tuple[Route, ...]:
    """The routes of the API. `key`, as PEM, signs the tokens."""
    return (
        Route(
            name="iamcredentials.projects.serviceAccounts.generateAccessToken",
            verb="POST",
            path="/v1/projects/-/serviceAccounts/{account}:generateAccessToken",
            answer=_generator(key),
        ),
    )


def _generator(key: str) -> Callable[[Request], Any]:
    def generate(request: Request) -> Any:
        project, account = request.google.project, request.path["account"]
        if RIGHT in project.missing:
            words = f"Permission '{RIGHT}' denied on resource (or it may not exist)."
            raise Refusal(grpc.StatusCode.PERMISSION_DENIED, words)
        if not account.endswith(f"@{project.id}.iam.gserviceaccount.com"):
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"Not found; Gaia id not found for email {account}")
        life_s = int(request.body.get("lifetime", f"{LONGEST_S}s").removesuffix("s"))
        if not 0 < life_s <= LONGEST_S:
            words = f"The lifetime must be between 1 second and {LONGEST_S} seconds."
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, words)
        end = int(time.time()) + life_s
        token = mint(key, account, end)
        return {"accessToken": token, "expireTime": datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}

    return generate
