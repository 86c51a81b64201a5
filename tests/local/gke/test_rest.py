"""The emulator's REST side through Google's own client, at the one port that gRPC is served on too."""

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
    """What it knows: nothing yet."""
    served.google.reset()
    return served.google


@pytest.fixture
def ask(served, monkeypatch):
    """Asks as the account, by Google's own session: `ask("GET", "compute", "/compute/v1/…")` gives status and JSON."""
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
    """What `up --gke` does by the hosts file."""
    return lambda address, *words, **options: connect(("127.0.0.1", address[1]), *words, **options)


def test_account_may_do_everything_but_what_is_taken_from_it(google, ask):
    """TestIamPermissions answers with those that it has, and leaves the field out where it has none."""
    path, asked = f"/v1/projects/{PROJECT}:testIamPermissions", ["container.clusters.create", "iam.roles.get"]
    assert ask("POST", "cloudresourcemanager", path, json={"permissions": asked}) == (200, {"permissions": asked})
    google.project.missing = ["iam.roles.get"]
    assert ask("POST", "cloudresourcemanager", path.replace("v1", "v3"), json={"permissions": asked})[1] == {
        "permissions": ["container.clusters.create"]
    }
    google.project.missing = asked
    assert ask("POST", "cloudresourcemanager", path, json={"permissions": asked}) == (200, {})


def test_apis_are_enabled_or_not_and_refuse_what_is_not(google, ask):
    """What service usage says of an API, the API itself says too, in Google's words."""
    google.project.disabled = ["compute.googleapis.com"]
    names = [f"projects/{PROJECT}/services/{one}.googleapis.com" for one in ("compute", "container")]
    status, said = ask("GET", "serviceusage", f"/v1/projects/{PROJECT}/services:batchGet", params={"names": names})
    assert (status, [one["state"] for one in said["services"]]) == (200, ["DISABLED", "ENABLED"])
    status, said = ask("GET", "compute", f"/compute/v1/projects/{PROJECT}/regions/us-central1")
    assert status == 403
    assert said["error"]["details"][0]["reason"] == "SERVICE_DISABLED"


def test_quotas_zones_and_machine_types(google, ask):
    """A region says its quotas and zones, a zone what a machine type has; what is not there is not found."""
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


def test_another_project_is_not_told_from_one_that_may_not_be_seen(google, ask):
    """Google answers both with PERMISSION_DENIED."""
    status, said = ask("GET", "cloudresourcemanager", "/v3/projects/somebody-elses")
    assert (status, said["error"]["status"]) == (403, "PERMISSION_DENIED")
    assert "(or it may not exist)" in said["error"]["message"]


def test_rest_is_told_to_misbehave_and_counted_as_grpc_is(google, ask):
    """A method is denied, or unavailable for so many calls, by its name in Google's discovery documents."""
    path = f"/compute/v1/projects/{PROJECT}"
    google.faults.deny, google.faults.unavailable = ["cloudresourcemanager.projects.get"], {"compute.projects.get": 1}
    assert [ask("GET", "compute", path)[0] for _ in range(2)] == [503, 200]
    assert ask("GET", "cloudresourcemanager", f"/v3/projects/{PROJECT}")[0] == 403
    google.faults.refuse_tokens = True
    assert ask("GET", "compute", path)[0] == 401
    # Google's session makes a new token after a 401, twice.
    assert google.calls == {"compute.projects.get": 2 + 3, "cloudresourcemanager.projects.get": 1}


def test_token_of_another_account(google, served, ask):
    """Who may impersonate gets a token that is known for the other account's; who may not is told so in Google's words."""
    account = f"deployer@{PROJECT}.iam.gserviceaccount.com"
    path = f"/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
    status, said = ask("POST", "iamcredentials", path, json={"scope": ["s"], "lifetime": "60s"})
    assert status == 200
    assert tokens.who(said["accessToken"], [tokens.issuer_of(served.identity, "g")]).email == account
    for wrong in ({"lifetime": "3601s"}, {"lifetime": "0s"}):
        assert ask("POST", "iamcredentials", path, json=wrong)[0] == 400
    assert ask("POST", "iamcredentials", path.replace(PROJECT, "elsewhere"), json={})[0] == 404
    google.project.missing = ["iam.serviceAccounts.getAccessToken"]
    status, said = ask("POST", "iamcredentials", path, json={})
    assert (status, said["error"]["status"]) == (403, "PERMISSION_DENIED")
