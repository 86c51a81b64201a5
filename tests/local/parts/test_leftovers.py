"""Packet filter rules: what the last `down` removes, and what it keeps."""

from local.parts.leftovers import plan_rule_removal

BEFORE = """\
*filter
:INPUT ACCEPT [10:20]
:FORWARD ACCEPT [0:0]
:KUBE-OF-THE-USER - [0:0]
-A INPUT -s 192.0.2.0/24 -j DROP
-A INPUT -j KUBE-OF-THE-USER
COMMIT
"""
AFTER = """\
*filter
:INPUT ACCEPT [99:99]
:FORWARD ACCEPT [0:0]
:DOCKER-USER - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-OF-THE-USER - [0:0]
-A INPUT -s 192.0.2.0/24 -j DROP
-A INPUT -j KUBE-OF-THE-USER
-A INPUT -j KUBE-FIREWALL
-A INPUT -s 198.51.100.7/32 -j ACCEPT
-A FORWARD -o slipway0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-USER -j RETURN
-A KUBE-FIREWALL -m comment --comment "block incoming localnet connections" -j DROP
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
:CNI-8f2 - [0:0]
-A POSTROUTING -s 10.213.0.2/32 -m comment --comment "name: \\"slipway\\"" -j CNI-8f2
COMMIT
"""
PLAN = """\
*filter
-D FORWARD -o slipway0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-D INPUT -j KUBE-FIREWALL
-F DOCKER-USER
-F KUBE-FIREWALL
-X DOCKER-USER
-X KUBE-FIREWALL
COMMIT
*nat
-D POSTROUTING -s 10.213.0.2/32 -m comment --comment "name: \\"slipway\\"" -j CNI-8f2
-F CNI-8f2
-X CNI-8f2
COMMIT
"""


def test_only_new_rules_of_the_stand_are_removed():
    """Rules and chains of the stand are deleted. The user's are kept, old or new, whatever their packet counts."""
    assert plan_rule_removal(BEFORE, AFTER) == PLAN


def test_plan_is_empty_if_the_stand_added_nothing():
    """Only the packet counts differ: nothing is removed."""
    assert not plan_rule_removal(BEFORE, BEFORE.replace("[10:20]", "[77:88]"))
