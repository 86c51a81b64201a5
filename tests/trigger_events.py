"""Runs a trigger in a test, without a triggerer."""

FAR = 4_000_000_000.0  # a deadline that no test reaches, as a Unix time


async def events_of(trigger):
    """All events of a trigger."""
    return [event.payload async for event in trigger.run()]
