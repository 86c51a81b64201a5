import json
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from leases import MATE, ME, NOW, OTHER, PLACE, holder_of, kubectl, lease, place_on

from slipway.errors import NamespaceMissing, TargetBusy
from slipway.kubernetes.lease import (
    MARGIN_S,
    Holder,
    acquire_lease,
    check_lease,
    judge_lease,
    render_lease,
    return_lease,
)

JUDGED = {
    "none": (None, "pass", "free"),
    "returned": (lease(""), "pass", "free"),
    "ours": (lease(ME), "pass", "ours"),
    "ours, expired": (lease(ME, ago_s=9999), "pass", "ours"),
    "a run of this installation": (lease(MATE), "wait", "held by run "),
    "a run of this installation that ended": (lease(replace(MATE, run_id="ended")), "pass", "its run has ended: run ended of rollback_digits_vit"),
    "a run of this installation, expired": (lease(MATE, ago_s=60 + MARGIN_S + 1), "pass", "expired: run "),
    "another installation's": (lease(OTHER), "wait", "held by run "),
    "another installation's that ended there": (lease(replace(OTHER, run_id="ended")), "wait", "held by run ended"),
    "another installation's, just within the margin": (lease(OTHER, ago_s=60 + MARGIN_S), "wait", "held by run "),
    "another installation's, expired": (lease(OTHER, ago_s=60 + MARGIN_S + 1), "pass", "expired: run "),
    "renewed in the future": (lease(OTHER, ago_s=-3600), "wait", "held by run "),
    "not Slipway's": (lease("kube-controller"), "wait", "held by 'kube-controller', until"),
    "not Slipway's, expired": (lease("kube-controller", ago_s=999), "pass", "expired: 'kube-controller'"),
    "without a time": (lease(OTHER, renewed=None), "wait", "held by run "),
    "without a duration": (lease(OTHER, ago_s=9999, duration_s=None), "wait", "without an end time"),
}  # fmt: skip


@pytest.mark.parametrize(("found", "outcome", "words"), JUDGED.values(), ids=JUDGED)
def test_who_may_acquire_it(found, outcome, words):
    """A run may acquire a Lease that is free, its own, expired, or of a run that Airflow reports as ended; no other."""
    verdict = judge_lease(found, ME, now=NOW, is_over=lambda holder: holder.run_id == "ended")
    assert verdict.outcome == outcome
    assert words in verdict.reason


def test_airflow_is_asked_only_about_its_own_runs():
    """Airflow knows nothing of another installation's runs: a run of the same id may be a different one."""
    asked = []
    judge_lease(lease(OTHER), ME, now=NOW, is_over=asked.append)
    assert asked == []


def test_a_lease_names_its_holder():
    """The holder is read back as it was written, with slashes in the run id too."""
    for run_id in ("manual__2026-11-24T08:00:00+00:00", "a/b"):
        holder = replace(ME, run_id=run_id)
        assert Holder.of(holder.identity) == holder
    assert Holder.of("kube-controller") is None


def test_a_new_holder_counts_as_a_transition():
    """A Lease that another run acquires counts a transition and sets acquireTime; a renewal sets only renewTime."""
    acquired = render_lease(PLACE, ME, lease(OTHER), now=NOW, limit_s=90, broke=None)
    renewed = render_lease(PLACE, ME, lease(ME), now=NOW, limit_s=90, broke=None)
    assert acquired["spec"] == {
        "holderIdentity": ME.identity, "acquireTime": "2026-11-24T08:00:00.000000Z", "renewTime": "2026-11-24T08:00:00.000000Z",
        "leaseDurationSeconds": 90, "leaseTransitions": 4,
    }  # fmt: skip
    assert renewed["spec"] == {**acquired["spec"], "acquireTime": "2026-11-24T07:00:00.000000Z", "leaseTransitions": 3}
    assert acquired["metadata"]["resourceVersion"] == "7"
    assert acquired["metadata"]["labels"] == {"slipway/model": "digits-vit"}
    assert "resourceVersion" not in render_lease(PLACE, ME, None, now=NOW, limit_s=90, broke=None)["metadata"]


@pytest.fixture
def place(stand, monkeypatch):
    """The place of a Lease that only the test uses, in the stand's namespace."""
    with place_on(stand, monkeypatch) as place:
        yield place


def never(_holder):
    """Says that no run has ended."""
    return False


def expire(stand, place):
    """Makes the Lease an expired one, as if its holder had died long ago."""
    long_ago = json.dumps({"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}})
    kubectl(stand, "patch", "lease", place.name, "--type=merge", "-p", long_ago)


@pytest.mark.stand
@pytest.mark.alongside
def test_ten_contenders_have_one_holder(stand, place):
    """Of ten runs that want a new or an expired Lease at the same time, one acquires it and nine are told which one."""
    contenders = [replace(OTHER, run_id=f"r{number}") for number in range(10)]

    def contend(holder, begin, ended):
        begin.wait()
        try:
            acquire_lease(place, holder, limit_s=3600, is_over=never)
            ended[holder] = "holds"
        except TargetBusy as error:
            ended[holder] = str(error)

    for _ in range(2):
        begin, ended = threading.Barrier(10), {}
        threads = [threading.Thread(target=contend, args=(holder, begin, ended)) for holder in contenders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=600)
        [first] = [holder for holder, result in ended.items() if result == "holds"]
        assert len(ended) == 10
        assert all(f"held by {first}" in result for holder, result in ended.items() if holder is not first)
        assert holder_of(stand, place) == first.identity
        expire(stand, place)
        contenders.remove(first)  # it would only renew its own
        contenders.append(replace(first, run_id="late"))


@pytest.mark.stand
@pytest.mark.alongside
def test_another_run_acquires_it_only_when_it_has_expired(stand, place):
    """A refusal names the holder, until when and the command that breaks the Lease; an expired one is acquired."""
    held = acquire_lease(place, OTHER, limit_s=3600, is_over=never)
    with pytest.raises(TargetBusy) as refused:
        acquire_lease(place, ME, limit_s=3600, is_over=lambda _: True)
    assert f"held by {OTHER}, until" in str(refused.value)
    assert "airflow dags trigger refresh_digits_vit --conf '{\"break_lease\": true}'" in str(refused.value)
    assert check_lease(place, ME, is_over=never).outcome == "wait"
    assert datetime.fromisoformat(held.until) > datetime.now(UTC)
    expire(stand, place)
    acquire_lease(place, ME, limit_s=3600, is_over=never)
    assert holder_of(stand, place) == ME.identity
    assert return_lease(place, OTHER.identity) is False
    assert return_lease(place, ME.identity) is True
    assert check_lease(place, ME, is_over=never).reason == "free"


@pytest.mark.stand
@pytest.mark.alongside
def test_a_run_of_this_installation_loses_it_when_it_has_ended(stand, place):
    """A killed run of the same installation blocks no other run once Airflow reports that it has ended."""
    acquire_lease(place, MATE, limit_s=3600, is_over=never)
    with pytest.raises(TargetBusy):
        acquire_lease(place, ME, limit_s=3600, is_over=never)
    acquire_lease(place, ME, limit_s=3600, is_over=lambda holder: holder == MATE)
    assert holder_of(stand, place) == ME.identity


@pytest.mark.stand
@pytest.mark.alongside
def test_a_lease_without_an_end_time_must_be_broken(stand, place):
    """An incomplete Lease never expires, however old; a run can break it."""
    incomplete = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": place.name},
        "spec": {"holderIdentity": "me"},
    }
    kubectl(stand, "create", "-f", "-", stdin=json.dumps(incomplete))
    with pytest.raises(TargetBusy, match="held by 'me', without an end time"):
        acquire_lease(place, ME, limit_s=3600, is_over=never)
    assert (
        acquire_lease(place, ME, limit_s=3600, is_over=never, may_break=lambda _: True).broke
        == "'me', without an end time"
    )


@pytest.mark.stand
@pytest.mark.alongside
def test_an_acquire_that_met_another_write_reads_again(stand, place):
    """Another write between the read and the write is not overwritten: the Lease is read and judged again."""
    acquire_lease(place, ME, limit_s=3600, is_over=never)
    asked = []

    def is_over(_holder):
        """Writes to the Lease just after it was read, the first two times."""
        asked.append(1)
        if len(asked) < 3:
            kubectl(stand, "annotate", "--overwrite", "lease", place.name, f"touched={len(asked)}")
        return True

    acquire_lease(place, MATE, limit_s=3600, is_over=is_over)
    assert len(asked) == 3
    assert holder_of(stand, place) == MATE.identity


def test_a_missing_namespace_has_an_error_of_its_own(connected, http_server):
    """The API server finds no Lease there, and creates none: who needs none can go on."""
    message = json.dumps({"kind": "Status", "message": 'namespaces "shop" not found'})
    connected(http_server((404, "{}"), (404, message)))
    with pytest.raises(NamespaceMissing, match="Next: kubectl create namespace shop, or "):
        acquire_lease(PLACE, ME, limit_s=60, is_over=lambda _: False)
