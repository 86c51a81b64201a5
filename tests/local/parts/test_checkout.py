"""Slots: the number that keeps two checkouts' ports and addresses apart."""

import pytest

from local.errors import StandError
from local.parts.checkout import Slot, choose_slot


@pytest.mark.parametrize(
    ("taken", "busy", "expected"),
    [
        (set(), set(), 1),
        ({1, 2, 4}, set(), 3),
        ({1}, {28082}, 3),  # another program listens on the port of slot 2
    ],
)
def test_lowest_slot_that_is_free(taken, busy, expected):
    """A slot that a checkout has, or whose port is in use, is skipped."""
    assert choose_slot(taken, lambda port: port not in busy) == expected


def test_refused_if_every_slot_is_taken():
    """The message names the next command."""
    with pytest.raises(StandError, match="Next: python3 -m local down"):
        choose_slot(set(range(1, 100)), lambda _port: True)


def test_slots_share_no_port_and_no_address():
    """The ports and addresses of all 99 slots differ."""
    slots = [Slot(number=number) for number in range(1, 100)]
    ports = [port for slot in slots for port in (slot.airflow_port, slot.gke_port, slot.gke_control_port)]
    assert len(set(ports)) == 3 * len(slots)
    assert len({slot.address_prefix for slot in slots}) == len(slots)
