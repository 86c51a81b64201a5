from slipway.kubernetes.rights import Right, judge_rights, kinds_of_objects, plan_rights
from slipway.verdict import Finding

KINDS = (("", "Service"), ("apps", "Deployment"))


def said(findings):
    """Outcome and message of each finding."""
    return [(one.outcome, one.said) for one in findings]


def test_kinds_are_listed_once_in_order():
    """Each kind of manifest with its group, in the order of the manifests."""
    objects = [{"apiVersion": "apps/v1", "kind": "Deployment"}, {"apiVersion": "v1", "kind": "Service"}] * 2
    assert kinds_of_objects(objects) == (("apps", "Deployment"), ("", "Service"))


def test_lacking_rights_are_missing_or_a_warning():
    """Apply needs `patch`; without `delete` or logs the run only prunes or reports less."""
    allowed = dict.fromkeys(plan_rights(KINDS), True)
    assert judge_rights("shop", allowed, grant="g") == [
        Finding(outcome="ok", said="rights in namespace shop: all 15 that the run uses")
    ]
    allowed[Right(group="apps", resource="deployments", verb="patch")] = False
    allowed[Right(group="", resource="pods/log", verb="get", needed=False)] = False
    assert said(judge_rights("shop", allowed, grant="g")) == [
        ("missing", "no right in namespace shop to patch deployments.apps"),
        (
            "warned",
            "no right in namespace shop to get pods/log: pruning, or a failed run's diagnosis, may be incomplete",
        ),
    ]


def test_previews_need_the_services_proxy_and_deletion():
    """A preview is reached through the Services' proxy and deleted afterwards; without previews neither right is needed."""
    more = set(plan_rights(KINDS, preview=True)) - set(plan_rights(KINDS))
    assert {str(right) for right in more if right.needed} == {
        "create services/proxy",
        "delete deployments.apps",
        "delete services",
    }
    assert {str(right) for right in more if not right.needed} == {"get services/proxy"}
