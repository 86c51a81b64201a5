"""Batches requests that arrive at the same time, as the real server's BatchingSession and SharedBatchScheduler do.

An error of a batch is the answer to every request in it.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import metrics
from .flags import refuse
from .words import ServingError, invalid

Feeds = dict[str, np.ndarray]
Run = Callable[[Feeds, list[str], float | None], Sequence[np.ndarray]]  # with the deadline by time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How requests are batched. The defaults are SharedBatchScheduler's (TensorFlow 2.20.0)."""

    max_batch_size: int = 1000
    batch_timeout_s: float = 0.0
    max_enqueued_batches: int = 10
    num_batch_threads: int = len(os.sched_getaffinity(0))
    thread_pool_name: str = ""
    allowed_batch_sizes: tuple[int, ...] = ()


def parameters_of(message: Any) -> Parameters:
    """The parameters in the file's message. Ends the process if one of them is not supported."""
    if message.pad_variable_length_inputs or message.enable_large_batch_splitting.value:
        refuse("pad_variable_length_inputs and enable_large_batch_splitting are not supported")
    given: dict[str, Any] = {
        name: getattr(message, name).value
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads", "thread_pool_name")
        if message.HasField(name)
    }
    if message.HasField("batch_timeout_micros"):
        given["batch_timeout_s"] = message.batch_timeout_micros.value / 1e6
    return Parameters(**given, allowed_batch_sizes=tuple(message.allowed_batch_sizes))


@dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """One request in a batch."""

    feeds: Feeds
    size: int
    deadline_s: float | None
    enqueued_s: float
    answer: Future[list[np.ndarray]] = field(default_factory=Future)


@dataclass(slots=True, kw_only=True, eq=False)
class Batch:
    """Tasks of one signature that run together."""

    opened_s: float
    tasks: list[Task] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The number of rows of all its tasks."""
        return sum(task.size for task in self.tasks)


@dataclass(slots=True, kw_only=True, eq=False)
class Queue:
    """The batches of one signature of one model. The last one may still grow."""

    run: Run
    fetches: list[str]
    batches: list[Batch] = field(default_factory=list)


class Batcher:
    """One thread pool for the batches of all signatures."""

    def __init__(self, parameters: Parameters) -> None:
        """Start the threads."""
        self._parameters = parameters
        self._queues: dict[Any, Queue] = {}
        self._changed = threading.Condition()
        for number in range(parameters.num_batch_threads):
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True).start()

    def wrap(self, run: Run) -> Run:
        """The function `run` with batching. Raises ServingError if the batch sizes contradict each other."""
        allowed, largest = self._parameters.allowed_batch_sizes, self._parameters.max_batch_size
        if allowed and allowed[-1] != largest:
            raise invalid(
                "Last entry in allowed_batch_sizes must match max_batch_size; "
                f"last entry was {allowed[-1]}; expected {largest}"
            )

        def batched(feeds: Feeds, fetches: list[str], deadline_s: float | None) -> list[np.ndarray]:
            task = Task(feeds=feeds, size=rows_of(feeds), deadline_s=deadline_s, enqueued_s=time.monotonic())
            ordered = sorted(set(fetches))
            self._enqueue((run, tuple(sorted(feeds)), tuple(ordered)), Queue(run=run, fetches=ordered), task)
            answers = dict(zip(ordered, task.answer.result(), strict=True))
            return [answers[name] for name in fetches]

        return batched

    def _enqueue(self, key: Any, empty: Queue, task: Task) -> None:
        limit = self._parameters.max_batch_size
        if task.size > limit:
            raise invalid(f"Task size {task.size} is larger than maximum input batch size {limit}")
        with self._changed:
            batches = self._queues.setdefault(key, empty).batches
            if not batches or batches[-1].size + task.size > limit:
                if len(batches) >= self._parameters.max_enqueued_batches:
                    raise ServingError(
                        "UNAVAILABLE",
                        "The batch scheduling queue to which this task was submitted is full; currently "
                        f"{len(batches)} batches enqueued and max_enqueued_batches is {self._parameters.max_enqueued_batches}",
                    )
                batches.append(Batch(opened_s=time.monotonic()))
            batches[-1].tasks.append(task)
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while (ready := self._take()) is None:
                    self._changed.wait(self._until_next())
            _process(*ready, self._parameters)

    def _take(self) -> tuple[Queue, Batch] | None:
        """Remove from its queue the oldest batch that is full, followed by another, or old enough."""
        ready = [queue for queue in self._queues.values() if self._is_ready(queue)]
        if not ready:
            return None
        queue = min(ready, key=lambda one: one.batches[0].opened_s)
        return queue, queue.batches.pop(0)

    def _is_ready(self, queue: Queue) -> bool:
        if len(queue.batches) != 1:
            return bool(queue.batches)
        (batch,) = queue.batches
        old_enough = time.monotonic() >= batch.opened_s + self._parameters.batch_timeout_s
        return old_enough or batch.size >= self._parameters.max_batch_size

    def _until_next(self) -> float | None:
        opened = [queue.batches[0].opened_s for queue in self._queues.values() if queue.batches]
        return max(min(opened) + self._parameters.batch_timeout_s - time.monotonic(), 0) if opened else None


def rows_of(feeds: Feeds) -> int:
    """The size of the first dimension, which must be the same for all inputs of a request."""
    sizes = {value.shape[0] if value.ndim else None for value in feeds.values()}
    if None in sizes:
        raise invalid("Batching Run() input tensors must have at least one dimension")
    if len(sizes) != 1:
        raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
    return int(sizes.pop() or 0)


def _process(queue: Queue, batch: Batch, parameters: Parameters) -> None:
    """Run a batch, and give each of its tasks its rows, or all of them the same error."""
    for task in batch.tasks:
        metrics.QUEUING_LATENCY.add((time.monotonic() - task.enqueued_s) * 1e6, parameters.thread_pool_name)
    try:
        answers = _run(queue, batch, parameters)
    except Exception as error:  # any error: if this thread ended, its callers would wait forever
        code = error.code if isinstance(error, ServingError) else "INTERNAL"
        for task in batch.tasks:
            task.answer.set_exception(ServingError(code, str(error)))
        return
    for task, rows in zip(batch.tasks, answers, strict=True):
        task.answer.set_result(rows)


def _run(queue: Queue, batch: Batch, parameters: Parameters) -> list[list[np.ndarray]]:
    deadlines = [task.deadline_s for task in batch.tasks if task.deadline_s is not None]
    latest = max(deadlines) if len(deadlines) == len(batch.tasks) else None
    if latest is not None and latest <= time.monotonic():
        raise ServingError("RESOURCE_EXHAUSTED", "Run() timeout exceeded while waiting in batching queue")
    padding = (
        min((size for size in parameters.allowed_batch_sizes if size >= batch.size), default=batch.size) - batch.size
    )
    feeds = {name: _merged(name, batch, padding) for name in batch.tasks[0].feeds}
    outputs = queue.run(feeds, queue.fetches, latest)
    metrics.BATCHED_RUNS.add()
    for output in outputs:
        if not np.ndim(output):
            raise ServingError("FAILED_PRECONDITION", "Batched output tensor has 0 dimensions")
        if len(output) != batch.size + padding:
            raise ServingError(
                "FAILED_PRECONDITION",
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors",
            )
    ends = np.cumsum([task.size for task in batch.tasks])
    return [[output[end - task.size : end] for output in outputs] for task, end in zip(batch.tasks, ends, strict=True)]


def _merged(name: str, batch: Batch, padding: int) -> np.ndarray:
    """The concatenated values of the tasks, padded with copies of the last task's first row."""
    values = [task.feeds[name] for task in batch.tasks]
    if len({value.shape[1:] for value in values}) != 1:
        raise ServingError(
            "FAILED_PRECONDITION",
            f"Tensors with name '{name}' from different tasks have different shapes and padding is turned off. "
            "Set pad_variable_length_inputs to true, or ensure that all tensors with the same name have equal "
            "dimensions starting with the first dim.",
        )
    if len({value.dtype for value in values}) != 1:
        raise invalid("Cannot concatenate tensors that have different data types.")
    return np.concatenate([*values, *[values[-1][:1]] * padding])
