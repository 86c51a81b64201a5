import base64
from dataclasses import replace

import pytest
import yaml

from slipway.kubernetes.apply import Trial, object_ref_of, plan_apply
from slipway.kubernetes.secrets import fill_secrets, has_hashes, hash_secrets, mask_secret
from slipway.records.store import read_bytes
from slipway.steps.deploy import store_manifests
from slipway.steps.plan import diff_trial

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def coded(text):
    """A value as `data` has it."""
    return base64.b64encode(text.encode()).decode()


def secret(name="api", **fields):
    """A Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"}, **fields}


CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "api"}, "data": {"token": "open"}}
OLD = secret(data={"same": coded("hunter2"), "changed": coded("s3cret"), "gone": coded("swordfish")})
NEW = secret(data={"same": coded("hunter2"), "changed": coded("t0ken"), "added": coded("sesame")})
VALUES = ("hunter2", "s3cret", "t0ken", "swordfish", "sesame")


def assert_hidden(text):
    """No value is in the text, neither in clear nor in base64."""
    assert [value for value in VALUES if value in text or coded(value) in text] == []


def test_the_plans_diff_hides_values_as_kubectl_diff_does():
    """Equal values are `***`, changed ones say before and after, a value that only one side has is `***` there."""
    lines = diff_trial(Trial(name="secret/api", before=OLD, after=NEW))
    assert_hidden("\n".join(lines))
    shown = {line.strip().replace("  ", " ") for line in lines[3:]}
    assert {"+ added: '***'", "- changed: '*** (before)'", "+ changed: '*** (after)'", "- gone: '***'"} <= shown
    assert diff_trial(Trial(name="secret/api", before=OLD, after=OLD)) == []


@pytest.mark.parametrize(("before", "after"), [(None, NEW), (OLD, None)], ids=["created", "pruned"])
def test_a_secret_that_comes_or_goes_is_hidden(before, after):
    """Its keys are shown, its values are not."""
    text = "\n".join(diff_trial(Trial(name="secret/api", before=before, after=after)))
    assert_hidden(text)
    assert "same: '***'" in text


def test_kubectls_copy_and_clear_text_are_hidden_too():
    """`kubectl apply` keeps the whole Secret in an annotation; `stringData` is not even in base64."""
    live = secret(stringData={"same": "hunter2"})
    live["metadata"] = {**live["metadata"], "annotations": {LAST_APPLIED: str(OLD), "note": "kept"}}
    masked = mask_secret(live, None)[0]
    assert_hidden(str(masked))
    assert masked["metadata"]["annotations"]["note"] == "kept"


def test_other_objects_are_shown():
    """A ConfigMap's values are no secret."""
    assert mask_secret(CONFIG, CONFIG) == (CONFIG, CONFIG)
    assert hash_secrets([CONFIG]) == [CONFIG]


def test_the_store_has_hashes_in_place_of_values(release, pushed):
    """A release's stored manifests can be compared and applied again, and reveal no value."""
    stored = store_manifests(release, pushed, [NEW, CONFIG])
    text = read_bytes(stored.uri).decode()
    assert_hidden(text)
    kept, config = yaml.safe_load_all(text)
    assert has_hashes(kept)
    assert config == CONFIG
    assert set(kept["data"]) == set(NEW["data"])
    assert stored.objects == (NEW, CONFIG)  # what is applied now
    assert store_manifests(replace(release, run_id="again"), pushed, [NEW, CONFIG]) == stored


def test_hashes_are_filled_from_what_is_known():
    """A value with the same hash is taken from the live Secret or from the overlay."""
    hashed = hash_secrets([NEW, CONFIG])
    assert fill_secrets(hashed, [CONFIG, NEW]) == [NEW, CONFIG]
    in_clear = secret(stringData={"same": "hunter2", "changed": "t0ken", "added": "sesame"})
    assert fill_secrets(hashed, [in_clear]) == [NEW, CONFIG]
    assert hash_secrets([in_clear]) == hash_secrets([NEW])
    parts = [secret(data={key: NEW["data"][key]}) for key in NEW["data"]]
    assert fill_secrets(hashed, [OLD, *parts]) == [NEW, CONFIG]


@pytest.mark.parametrize("known", [[], [OLD], [secret("other", data=NEW["data"])], hash_secrets([NEW])], ids=len)
def test_a_secret_with_an_unknown_value_stays_hashed(known):
    """A Secret is never filled in part: an apply would delete its other values."""
    (left,) = fill_secrets(hash_secrets([NEW]), known)
    assert has_hashes(left)
    assert left == hash_secrets([NEW])[0]


def test_equal_values_of_two_keys_have_different_hashes():
    """Hashes do not reveal that two passwords are the same."""
    (hashed,) = hash_secrets([secret(data={"a": coded("x"), "b": coded("x")})])
    assert hashed["data"]["a"] != hashed["data"]["b"]


def test_a_secret_without_values_is_unchanged():
    """There is nothing to hide, and it can be applied as it is."""
    assert hash_secrets([secret(type="Opaque")]) == [secret(type="Opaque")]
    assert not has_hashes(secret(type="Opaque"))


def test_a_hashed_secret_is_neither_applied_nor_deleted():
    """A rollback that does not know the values leaves the live Secret as it is."""
    hashed = hash_secrets([NEW, CONFIG])
    plan = plan_apply(hashed, tuple(map(object_ref_of, hashed)))
    assert (plan.apply, plan.prune) == ((CONFIG,), ())
