import json
from dataclasses import dataclass

import pytest
from pydantic import TypeAdapter

from slipway import facts
from slipway.errors import InputRefused
from slipway.facts import Applied, Export, ObjectRef, Proof, from_dict, to_dict
from slipway.release import Release, Source
from slipway.target import Target

REF = ObjectRef(api_version="apps/v1", kind="Deployment", name="tfs-server", namespace="shop")
APPLIED = Applied(
    release_id="abcdefabcdef",
    reference="r/digits-vit@sha256:d",
    version=7,
    manifests_uri="file:///store/m.yaml",
    manifests_hash="sha256:a",
    objects=(REF,),
    uid="u-1",
    generation=4,
)


@pytest.mark.parametrize("name", ["release", "export", "case", "proof", "pushed"])
def test_same_fact_from_json(name, request):
    """A fact is read back unchanged from XCom."""
    fact = request.getfixturevalue(name)
    assert fact == from_dict(type(fact), json.loads(json.dumps(to_dict(fact))))


def test_many_facts_of_a_kind_need_one_adapter(monkeypatch):
    """A type adapter takes milliseconds to build, and would hold the triggerer's event loop at each poll."""

    @dataclass(frozen=True)
    class Kind:
        number: int

    built = []
    monkeypatch.setattr(facts, "TypeAdapter", lambda kind: built.append(kind) or TypeAdapter(kind))
    assert [from_dict(Kind, {"number": number}).number for number in range(100)] == list(range(100))
    assert built == [Kind]


@pytest.mark.parametrize("fact", [REF, APPLIED, Target(conn_id="kubernetes_default", namespace="shop")], ids=type)
def test_same_fact_with_facts_in_it(fact):
    """A fact with other facts in it is read back with them."""
    assert fact == from_dict(type(fact), json.loads(json.dumps(to_dict(fact))))


@pytest.mark.parametrize("name", ["release", "export", "proof"])
def test_dict_has_plain_values_only(name, request):
    """A fact's dict has none of our classes, which XCom would refuse."""

    def check(value):
        assert type(value) in {dict, list, tuple, str, int, float, bool, type(None)}
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
            check(inner)

    check(to_dict(request.getfixturevalue(name)))


@pytest.mark.parametrize(
    ("kind", "data", "field"),
    [
        (Export, None, "it"),
        (Export, "abc", "it"),
        (Export, {}, "version"),
        (Source, {"kind": "floppy", "location": "x", "revision": "y"}, "kind"),
        (Proof, {"image": {"image_id": "x"}, "verdicts": []}, "image.layer"),
        (Release, {"model": "digits-vit"}, "run_id"),
    ],
)
def test_refused_in_one_line_if_the_dict_is_invalid(kind, data, field):
    """The error names the fact, the field and the next step."""
    with pytest.raises(InputRefused) as refusal:
        from_dict(kind, data)
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(f"{kind.__name__} from an earlier task: {field}: ")
    assert "Next: " in message
