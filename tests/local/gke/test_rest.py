"""The emulator's REST APIs through Google's own client, at the port that also serves gRPC."""

import base64
import json
import time
from types import SimpleNamespace

import pytest

from local.gke import clusters, emulator, identity, tokens
from tests.local.ports import free_ports

PROJECT = "slipway-stand"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The emulator on a free port."""
    ours = identity.make_identity(
        tmp_path_factory.mktemp("gke"), f"slipway.localhost:{free_ports(1)[0]}", base64.b64encode(b"").decode()
    )
    google = clusters.Google(clusters.Kubernetes(endpoint="127.0.0.1:1", ca=""), time.time)
    issuer = tokens.issuer_of(ours, "gke:tests")
    with emulator.serve(google, issuer, ours):
        yield SimpleNamespace(google=google, identity=ours)


@pytest.fixture
def google(served):
    """The emulated Google in its default state."""
    served.google.reset()
    return served.google


@pytest.fixture
def ask(served, monkeypatch):
    """Sends requests as the account with Google's own session: `ask("GET", "compute", "/compute/v1/…")` gives status and JSON."""
    from google.auth.transport.requests import AuthorizedSession
    from google.oauth2 import service_account
    from urllib3.util import connection

    monkeypatch.setattr(connection, "create_connection", to_this_machine(connection.create_connection))
    account = service_account.Credentials.from_service_account_info(
        json.loads(served.identity.key_file.read_text()), scopes=["https://www.googleapis.com/auth/cloud-platform"]
    )
    session = AuthorizedSession(account)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(served.identity.bundle))

    def call(method, api, path, **options):
        answer = session.request(method, f"https://{api}.{served.identity.universe}{path}", timeout=10, **options)
        return answer.status_code, answer.json()

    yield call
    session.close()


def to_this_machine(connect):
    """Connect to this machine, as `up --gke` achieves with the hosts file."""
    return lambda address, *words, **options: connect(("127.0.0.1", address[1]), *words, **options)


def test_account_has_every_permission_that_is_not_missing(google, ask):
    """TestIamPermissions returns the permissions that the account has, and omits the field if it has none."""
    path, names = f"/v1/projects/{PROJECT}:testIamPermissions", ["container.clusters.create", "iam.roles.get"]
    assert ask("POST", "cloudresourcemanager", path, json={"permissions": names}) == (200, {"permissions": names})
    google.project.missing = ["iam.roles.get"]
    assert ask("POST", "cloudresourcemanager", path.replace("v1", "v3"), json={"permissions": names})[1] == {
        "permissions": ["container.clusters.create"]
    }
    google.project.missing = names
    assert ask("POST", "cloudresourcemanager", path, json={"permissions": names}) == (200, {})


def test_disabled_api_refuses_requests(google, ask):
    """Service Usage reports an API as DISABLED, and the API itself refuses requests in Google's words."""
    google.project.disabled = ["compute.googleapis.com"]
    names = [f"projects/{PROJECT}/services/{one}.googleapis.com" for one in ("compute", "container")]
    status, body = ask("GET", "serviceusage", f"/v1/projects/{PROJECT}/services:batchGet", params={"names": names})
    assert (status, [one["state"] for one in body["services"]]) == (200, ["DISABLED", "ENABLED"])
    status, body = ask("GET", "compute", f"/compute/v1/projects/{PROJECT}/regions/us-central1")
    assert status == 403
    assert body["error"]["details"][0]["reason"] == "SERVICE_DISABLED"


def test_quotas_zones_and_machine_types(google, ask):
    """A region has quotas and zones, a machine type has CPUs and memory; a missing one is 404."""
    google.compute.limits = {"CPUS": 24.0}
    google.compute.usage = {"CPUS": 8.0}
    base = f"/compute/v1/projects/{PROJECT}"
    region = ask("GET", "compute", f"{base}/regions/us-central1")[1]
    assert region["quotas"] == [{"metric": "CPUS", "limit": 24.0, "usage": 8.0}]
    assert [zone.rpartition("/")[2] for zone in region["zones"]][:2] == ["us-central1-a", "us-central1-b"]
    status, machine = ask("GET", "compute", f"{base}/zones/us-central1-a/machineTypes/n1-standard-8")
    assert (status, machine["guestCpus"], machine["memoryMb"]) == (200, 8, 30720)
    assert ask("GET", "compute", f"{base}/zones/us-central1-a/machineTypes/n1-standard-9000")[0] == 404
    assert ask("GET", "compute", f"{base}/regions/nowhere1")[0] == 404


def test_missing_project_answers_like_a_forbidden_one(google, ask):
    """Google answers both with PERMISSION_DENIED."""
    status, body = ask("GET", "cloudresourcemanager", "/v3/projects/somebody-elses")
    assert (status, body["error"]["status"]) == (403, "PERMISSION_DENIED")
    assert "(or it may not exist)" in body["error"]["message"]


def test_rest_has_faults_and_counts_as_grpc_has(google, ask):
    """A fault denies a method, or makes some calls unavailable, by its name in Google's discovery documents."""
    path = f"/compute/v1/projects/{PROJECT}"
    google.faults.deny, google.faults.unavailable = ["cloudresourcemanager.projects.get"], {"compute.projects.get": 1}
    assert [ask("GET", "compute", path)[0] for _ in range(2)] == [503, 200]
    assert ask("GET", "cloudresourcemanager", f"/v3/projects/{PROJECT}")[0] == 403
    google.faults.refuse_tokens = True
    assert ask("GET", "compute", path)[0] == 401
    # Google's session gets a new token after a 401, twice.
    assert google.calls == {"compute.projects.get": 2 + 3, "cloudresourcemanager.projects.get": 1}


def test_token_of_an_impersonated_account(google, served, ask):
    """A caller that may impersonate gets a valid token of the other account; any other gets Google's error."""
    account = f"deployer@{PROJECT}.iam.gserviceaccount.com"
    path = f"/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
    status, body = ask("POST", "iamcredentials", path, json={"scope": ["s"], "lifetime": "60s"})
    assert status == 200
    assert tokens.who(body["accessToken"], [tokens.issuer_of(served.identity, "g")]).email == account
    for wrong in ({"lifetime": "3601s"}, {"lifetime": "0s"}):
        assert ask("POST", "iamcredentials", path, json=wrong)[0] == 400
    assert ask("POST", "iamcredentials", path.replace(PROJECT, "elsewhere"), json={})[0] == 404
    google.project.missing = ["iam.serviceAccounts.getAccessToken"]
    status, body = ask("POST", "iamcredentials", path, json={})
    assert (status, body["error"]["status"]) == (403, "PERMISSION_DENIED")
