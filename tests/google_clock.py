"""A clock for the emulator of Google that only a test or a poll advances: no test depends on real time."""

import asyncio
import time
from importlib import import_module

from airflow.sdk.exceptions import TaskDeferred


class Clock:
    """The emulator's time, as a Unix time."""

    def __init__(self):
        self.now = time.time()

    def __call__(self):
        """The time."""
        return self.now

    def advance(self, seconds):
        """Let time pass."""
        self.now += seconds


def end_operations(google):
    """Let as much time pass as an operation takes."""
    google.clock.advance(google.faults.operation_s)


def event_of(google, trigger):
    """The event of a polling trigger; a running operation ends after its first poll."""
    poll = trigger.poll

    async def poll_then_advance():
        try:
            return await poll()
        finally:
            end_operations(google)

    trigger.poll, trigger.poll_s = poll_then_advance, 0.01
    return asyncio.run(anext(trigger.run())).payload


def run_task(google, task, context, *, before_polls=None):
    """Run a task and, if it defers, its triggers; its result. `before_polls` is called before each trigger runs."""
    method, arguments = task.execute, ()
    for _ in range(5):
        try:
            return method(context, *arguments)
        except TaskDeferred as deferred:
            path, options = deferred.trigger.serialize()
            module, _, name = path.rpartition(".")
            if before_polls:
                before_polls()
            arguments = (event_of(google, getattr(import_module(module), name)(**options)),)
            method = getattr(task, deferred.method_name)
    raise AssertionError("deferred again and again")
