"""What Locust runs: users that check every answer, the steps of the load, and the samples of all processes.

`load.py` starts Locust with this file; the environment variable SLIPWAY_LOAD names the request.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import time
from pathlib import Path
from typing import Any

import gevent
import grpc
import grpc.experimental.gevent as grpc_gevent
from answers import PREDICT, Messages, Wrong, check, read_grpc, read_rest
from load_request import Step, read_request
from locust import LoadTestShape, User, events, task
from locust.contrib.fasthttp import FastHttpUser
from locust.runners import MasterRunner, WorkerRunner
from pacing import Pace
from questions import prepared
from samples import Sample

grpc_gevent.init_gevent()

REQUEST = read_request(Path(os.environ["SLIPWAY_LOAD"]))
QUESTIONS = [prepared(REQUEST, at) for at in range(len(REQUEST.targets))]
MESSAGES = Messages(REQUEST.descriptors) if REQUEST.target.grpc else None
GRPC_REQUESTS = (
    [[MESSAGES.with_version(one, target.version) for one in REQUEST.questions] for target in REQUEST.targets]
    if MESSAGES
    else []
)
TIMEOUT_S = 20.0  # of one request
MOST_REQUESTS = int(
    os.environ.get("SLIPWAY_LOAD_REQUESTS", "1000000")
)  # of a whole test, whose samples are kept in memory
STEP, SAMPLES = "slipway-step", "slipway-samples"  # names of the messages between Locust's processes
NUMBERS, SHIFT = itertools.count(), random.random()  # noqa: S311 - of this process's users


class Now:
    """The step that runs: the master says which, and each process notes when it heard of it."""

    number = -1
    began_s = 0.0
    samples: list[Sample] = []  # noqa: RUF012 - one list for the process

    @classmethod
    def enter(cls, number: int) -> None:
        """Begin a step."""
        cls.number, cls.began_s = number, time.monotonic()

    @classmethod
    def step(cls) -> Step:
        """The step that runs; the first one until it begins."""
        return REQUEST.steps[max(cls.number, 0)]

    @classmethod
    def keep(cls, number: int, began_s: float, ms: float, protocol: str, wrong: str) -> None:
        """Keep a sample of the step in which its request began."""
        cls.samples.append(Sample(number, began_s, ms, protocol, wrong))


class Asking:
    """What both kinds of users do: ask a question at random, check the answer, wait."""

    until_s = -math.inf  # when the connection is old enough to be closed
    pace: Pace | None = None

    def connect(self) -> None:
        """Begin a new connection."""
        raise NotImplementedError

    def wait_time(self) -> float:
        """Nothing in a closed loop; else as long as the user's share of the rate says."""
        self.pace = self.pace or Pace(next(NUMBERS), SHIFT)
        return self.pace.wait_s(Now.step().pace_s, time.monotonic())

    def on_start(self) -> None:
        """Do not ask at the same time as all others."""
        gevent.sleep(self.wait_time())

    def measured(self, protocol: str, ask: Any) -> None:
        """Ask, check, and keep the sample."""
        if time.monotonic() >= self.until_s:
            self.connect()
            self.until_s = time.monotonic() + (math.inf if REQUEST.keep_s is None else REQUEST.keep_s)
        place = random.randrange(len(REQUEST.questions))  # noqa: S311 - which picture is sent
        number, at, began = Now.number, Now.step().at, time.monotonic()
        offset, wrong = began - Now.began_s, ""
        try:
            size = ask(at, place)
        except Wrong as error:
            wrong, size = str(error), 0
        ms = (time.monotonic() - began) * 1000
        Now.keep(number, offset, ms, protocol, wrong)
        self.environment.events.request.fire(  # type: ignore[attr-defined]
            request_type=protocol,
            name=REQUEST.steps[number].name if number >= 0 else "before",
            response_time=ms,
            response_length=size,
            exception=Wrong(wrong) if wrong else None,
            context={},
        )


class RestUser(Asking, FastHttpUser):  # type: ignore[misc]
    """Asks over REST, on a connection that it keeps as long as the request says."""

    abstract = REQUEST.grpc_share >= 1
    weight = round(100 * (1 - REQUEST.grpc_share))
    host = REQUEST.target.rest or "http://127.0.0.1"
    network_timeout = connection_timeout = TIMEOUT_S
    max_redirects = max_retries = 0

    def connect(self) -> None:
        """Close the connection; the next question opens one."""
        self.client.client.close()

    @task
    def ask(self) -> None:
        """One question."""
        self.measured("rest", self._ask)

    def _ask(self, at: int, place: int) -> int:
        question, target = QUESTIONS[at][place], REQUEST.targets[at]
        response = self.client.client.urlopen(f"{target.rest}{target.path}", method="POST", payload=question.rest_body)
        body = response.content
        check(question, *read_rest(response.status_code, body))
        return len(body)


class GrpcUser(Asking, User):  # type: ignore[misc]
    """Asks over gRPC, on a channel of its own to each target, which it keeps as long as the request says."""

    abstract = REQUEST.grpc_share <= 0
    weight = round(100 * REQUEST.grpc_share)

    channels: tuple[grpc.Channel, ...] = ()

    def connect(self) -> None:
        """Open channels in place of those before. Without the option, channels of one process share a connection."""
        self.on_stop()
        alone = [("grpc.use_local_subchannel_pool", 1)]
        self.channels = tuple(grpc.insecure_channel(target.grpc, options=alone) for target in REQUEST.targets)
        self.calls = [
            channel.unary_unary(PREDICT, response_deserializer=MESSAGES.response.FromString)
            for channel in self.channels
        ]

    def on_stop(self) -> None:
        """Close the channels."""
        for channel in self.channels:
            channel.close()

    @task
    def ask(self) -> None:
        """One question."""
        self.measured("grpc", self._ask)

    def _ask(self, at: int, place: int) -> int:
        try:
            response = self.calls[at](GRPC_REQUESTS[at][place], timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise Wrong(f"gRPC {error.code().name}") from error
        check(QUESTIONS[at][place], *read_grpc(response, REQUEST.targets[at]))
        return int(response.ByteSize())


class Steps(LoadTestShape):
    """The steps one after another; the test ends after the last."""

    def __init__(self) -> None:
        """Begin with the first."""
        super().__init__()
        self.number = -1

    def tick(self) -> tuple[int, float] | None:
        """The users of the step that runs now, and how fast they begin."""
        end_s, run_s = 0.0, self.get_run_time()
        if self.runner and self.runner.stats.num_requests >= MOST_REQUESTS:
            print(f"the test ends early, after {MOST_REQUESTS} requests", flush=True)
            return None
        for number, step in enumerate(REQUEST.steps):
            end_s += step.seconds
            if run_s < end_s:
                if number != self.number:
                    self._enter(number)
                return step.users, self._users_per_s(number)
        return None

    def _users_per_s(self, number: int) -> float:
        """How fast users begin, or end: within half of the time that a step has to settle."""
        before = REQUEST.steps[number - 1].users if number else 0
        return max(1.0, 2 * abs(REQUEST.steps[number].users - before) / max(1.0, REQUEST.steps[number].settle_s))

    def _enter(self, number: int) -> None:
        self.number = number
        Now.enter(number)
        if isinstance(self.runner, MasterRunner):
            self.runner.send_message(STEP, number)
        print(f"step {number + 1} of {len(REQUEST.steps)}: {REQUEST.steps[number].name}", flush=True)


@events.init.add_listener
def connect(environment: Any, **_: Any) -> None:
    """Send steps from the master to the workers, and samples back."""
    if isinstance(environment.runner, WorkerRunner):
        environment.runner.register_message(STEP, lambda msg, **_: Now.enter(int(msg.data)))


@events.report_to_master.add_listener
def send_samples(data: dict[str, Any], **_: Any) -> None:
    """A worker's samples since its last report."""
    data[SAMPLES], Now.samples = Now.samples, []


@events.worker_report.add_listener
def take_samples(data: dict[str, Any], **_: Any) -> None:
    """On the master."""
    Now.samples += [Sample(*one) for one in data.get(SAMPLES, [])]


@events.quitting.add_listener
def write_samples(environment: Any, **_: Any) -> None:
    """Write all samples for load.py; a worker has sent its own."""
    if not isinstance(environment.runner, WorkerRunner):
        Path(os.environ["SLIPWAY_LOAD_SAMPLES"]).write_text(json.dumps(Now.samples))
