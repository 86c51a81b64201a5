"""What `make bench-runtimes` has measured, as tables, and whether the goals are met. Nothing here measures."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Found = TypeVar("Found")
TENSORFLOW_GRAPH, ONNX_FLOAT32, ONNX_FLOAT16, ONNX_INT8 = (
    "TensorFlow", "ONNX Runtime", "ONNX Runtime, float16_weights", "ONNX Runtime, int8",
)  # fmt: skip
BARE = "ONNX Runtime, bare session"
STAND_IN, ONNX_SERVER = "TensorFlow's stand-in", "the ONNX server"
SQUARE = 2048  # side of the matrices of the large product
LARGE = {"ViT-B/16"}  # the models that RULES speaks of
RULES = """Every goal is judged for both models, with these exceptions. The ONNX server's CPU time over the bare session's, and the size with
float16_weights, are goals for a large model only: a request to digits-vit costs more to read and write than to compute, and its file is in
large part graph, biases and norms, which stay as they are. The bound of resident memory is lower for digits-vit, where the runtime itself is
nearly all of it. A goal of int8 is for an int8 that holds its bounds on a labelled set; below each model's tables is whether it did. ViT-B/16's
float16_weights and int8 are made by the exporter's code without its judgement: with random weights it has no labelled set, and may refuse both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcess:
    """A runtime in a process of its own, at one number of threads and one batch size, for an image."""

    runtime: str
    threads: int
    batch: int
    ms: tuple[tuple[float, ...], ...]  # of the clock: by round, by call
    cpu_ms: tuple[float, ...]  # of the processor: by round
    answer: tuple[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server at one batch size and number of connections."""

    server: str
    batch: int
    connections: int
    ms: tuple[tuple[float, ...], ...]  # of the clock: by round, by request
    cpu_ms: tuple[float, ...]  # of the server's processor time, for an image: by round
    per_s: tuple[float, ...]  # requests a second: by round


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a server takes: seconds until it answers, and MiB, by round."""

    server: str
    first_answer_s: tuple[float, ...]
    warm_mib: tuple[float, ...]  # after some requests of one image, one at a time
    loaded_mib: float  # after all loads


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All of one model."""

    model: str
    gflop: float  # of the products of an image
    threads: int  # of the servers
    in_process: tuple[InProcess, ...]
    gflop_per_s: Mapping[int, float]  # of a large product, for a second of one processor: by number of threads
    served: tuple[Served, ...]
    footprints: tuple[Footprint, ...]
    file_mb: Mapping[str, float]  # what a server serves: by precision and runtime
    int8: str  # what a labelled set says of its int8

    def run(self, runtime: str, threads: int, batch: int) -> InProcess:
        """What was measured in process. Raises ValueError if it was not."""
        found = [one for one in self.in_process if (one.runtime, one.threads, one.batch) == (runtime, threads, batch)]
        return self._only(found, f"{runtime}, {counted(threads, 'thread')}, batch {batch}")

    def load(self, server: str, batch: int, connections: int) -> Served:
        """What was measured of a server. Raises ValueError if it was not."""
        found = [one for one in self.served if (one.server, one.batch, one.connections) == (server, batch, connections)]
        return self._only(found, f"{server}, batch {batch}, {counted(connections, 'connection')}")

    def footprint(self, server: str) -> Footprint:
        """What a server takes. Raises ValueError if it was not measured."""
        return self._only([one for one in self.footprints if one.server == server], f"what {server} takes")

    def _only(self, found: Sequence[Found], what: str) -> Found:
        if len(found) != 1:
            raise ValueError(f"{self.model}: {what} was measured {len(found)} times, not once")
        return found[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A promise, and the ratios of all rounds that it is judged by."""

    what: str
    ratios: tuple[float, ...]
    most: float | None = None
    least: float | None = None

    @property
    def is_met(self) -> bool:
        """True if the median keeps the bound."""
        middle = statistics.median(self.ratios)
        return (self.most is None or middle <= self.most) and (self.least is None or middle >= self.least)


def products_gflop(config: Mapping[str, Any], labels: int) -> float:
    """What all products of a ViT's answer for one image take, in GFLOP."""
    width, layers, inner = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    patches = (config["image_size"] // config["patch_size"]) ** 2
    tokens = patches + 1
    layer = tokens * (4 * width**2 + 2 * width * inner + 2 * tokens * width)
    first = patches * width * config["num_channels"] * config["patch_size"] ** 2
    return float(2 * (layers * layer + first + width * labels) / 1e9)


def ratios(these: Sequence[float], those: Sequence[float]) -> tuple[float, ...]:
    """Each of these over that of the same round."""
    return tuple(one / other for one, other in zip(these, those, strict=True))


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def percentile(values: Sequence[float], share: int) -> float:
    """The smallest value that so many percent do not exceed."""
    return sorted(values)[math.ceil(len(values) * share / 100) - 1]


def flat(rounds: Sequence[Sequence[float]]) -> list[float]:
    """The values of all rounds."""
    return [value for one in rounds for value in one]


def plan_goals(models: Sequence[Figures]) -> list[Goal]:
    """All goals. Processor times are those with one thread. Raises ValueError if one of them was not measured."""
    found: list[Goal] = []
    for figures in models:
        found += _goals_of_time(figures)
        if figures.model in LARGE:
            found += [_goal_of_a_request(figures), _goal_of_size(figures)]
        found += [*_goals_of_footprint(figures), *_goals_of_loads(figures)]
    return found


def _goals_of_time(figures: Figures) -> Iterator[Goal]:
    bounds = {ONNX_FLOAT32: {1: 0.70, 8: 1.0}, ONNX_INT8: {1: 0.50, 8: 0.65}}
    for runtime, by_batch in bounds.items():
        for batch, most in by_batch.items():
            found, graph = figures.run(runtime, 1, batch), figures.run(TENSORFLOW_GRAPH, 1, batch)
            what = f"{figures.model}, batch {batch}: CPU time of {runtime} over TensorFlow's"
            yield Goal(what=what, ratios=ratios(found.cpu_ms, graph.cpu_ms), most=most)


def _goal_of_a_request(figures: Figures) -> Goal:
    bare, served = figures.run(BARE, figures.threads, 1), figures.load(ONNX_SERVER, 1, 1)
    what = f"{figures.model}: CPU time of a request to the ONNX server over the bare session's"
    return Goal(what=what, ratios=ratios(served.cpu_ms, bare.cpu_ms), most=1.10)


def _goal_of_size(figures: Figures) -> Goal:
    if ONNX_FLOAT16 not in figures.file_mb:
        raise ValueError(f"{figures.model}: the size of {ONNX_FLOAT16} was not measured")
    half = figures.file_mb[ONNX_FLOAT16] / figures.file_mb[ONNX_FLOAT32]
    what = f"{figures.model}: the model's files with float16_weights over float32"
    return Goal(what=what, ratios=(half,), most=0.51)


def _goals_of_footprint(figures: Figures) -> Iterator[Goal]:
    ours, theirs = figures.footprint(ONNX_SERVER), figures.footprint(STAND_IN)
    most = 0.5 if figures.model in LARGE else 0.2
    what = f"{figures.model}: resident memory of the ONNX server over the stand-in's"
    yield Goal(what=what, ratios=ratios(ours.warm_mib, theirs.warm_mib), most=most)
    what = f"{figures.model}: the stand-in's time from start to first answer over the ONNX server's"
    yield Goal(what=what, ratios=ratios(theirs.first_answer_s, ours.first_answer_s), least=3.0)


def _goals_of_loads(figures: Figures) -> Iterator[Goal]:
    for load in figures.served:
        if load.server == ONNX_SERVER:
            other = figures.load(STAND_IN, load.batch, load.connections)
            what = f"{figures.model}, batch {load.batch}, {counted(load.connections, 'connection')}: requests/s of the ONNX server over the stand-in's"
            yield Goal(what=what, ratios=ratios(load.per_s, other.per_s), least=1.0)


def counted(count: int, word: str) -> str:
    """So many of them."""
    return f"{count} {word}{'s' if count > 1 else ''}"


def render(models: Sequence[Figures], goals: Sequence[Goal], *, where: str, versions: str, note: str) -> str:
    """Goals and tables as Markdown."""
    rounds = len(models[0].footprints[0].first_answer_s)
    lines = [
        f"`make bench-runtimes` on {where}. {versions}.",
        *([note] if note else []),
        "",
        f"Runtimes and servers took turns in each of {rounds} rounds, in reversed order in every second one. A ratio is the median of the",
        "ratios of the same round (least to most). The servers ran on this machine, without a container; the stand-in is not TensorFlow",
        "Serving: its graph and its runtime are TensorFlow's, its REST server is this project's.",
        "",
        *RULES.splitlines(),
        "",
        *render_goals(goals),
    ]
    for figures in models:
        lines += [
            "",
            f"### {figures.model}",
            "",
            *render_in_process(figures),
            "",
            *render_served(figures),
            "",
            *render_sizes(figures),
        ]
    return "\n".join(lines)


def render_goals(goals: Sequence[Goal]) -> Iterator[str]:
    """A row for each goal."""
    yield "| goal | bound | measured | met |"
    yield "| --- | ---: | ---: | --- |"
    for goal in goals:
        bound = f"at most {goal.most:.2f}" if goal.most is not None else f"at least {goal.least:.2f}"
        yield f"| {goal.what} | {bound} | {spread(goal.ratios)} | {'yes' if goal.is_met else '**no**'} |"


def render_in_process(figures: Figures) -> Iterator[str]:
    """A row for each runtime, number of threads and batch size; the bare session computes from pixels."""
    yield "In process, from the image file to label and confidence, for one image:"
    yield ""
    yield (
        "| runtime | threads | batch | p50 ms | p95 ms | images/s | CPU ms | CPU time over TensorFlow's | clock over TensorFlow's "
        "| of the processor's limit | label | confidence |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |"
    for one in figures.in_process:
        graph = figures.run(TENSORFLOW_GRAPH, one.threads, one.batch)
        cpu = statistics.median(one.cpu_ms)
        limit = figures.gflop / figures.gflop_per_s[one.threads] * 1000
        middles, others = ([statistics.median(ms) for ms in found.ms] for found in (one, graph))
        cells = (
            one.runtime, one.threads, one.batch, *latencies(one.ms), short(1000 / statistics.median(flat(one.ms))), short(cpu),
            spread(ratios(one.cpu_ms, graph.cpu_ms)), spread(ratios(middles, others)),
            f"{limit / cpu:.0%}", *((one.answer[0], f"{one.answer[1]:.5f}") if one.answer else ("-", "-")),
        )  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""
    for threads, rate in figures.gflop_per_s.items():
        yield (
            f"With {counted(threads, 'thread')}, a product of two float32 matrices of {SQUARE} x {SQUARE} runs at {rate:.0f} GFLOP "
            f"for a second of one processor; at that rate all products of an image ({figures.gflop:.3g} GFLOP) take "
            f"{short(figures.gflop / rate * 1000)} ms: the processor's limit in float32."
        )


def render_served(figures: Figures) -> Iterator[str]:
    """A row for each server, batch size and number of connections."""
    yield f"Through the servers over REST, {figures.threads} threads each, the batch in one request:"
    yield ""
    yield "| server | batch | connections | p50 ms | p95 ms | requests/s | images/s | CPU ms for an image | requests/s over the stand-in's |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for one in figures.served:
        rate = statistics.median(one.per_s)
        other = figures.load(STAND_IN, one.batch, one.connections)
        cells = (
            one.server, one.batch, one.connections, *latencies(one.ms), short(rate), short(rate * one.batch),
            short(statistics.median(one.cpu_ms)), spread(ratios(one.per_s, other.per_s)),
        )  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"


def render_sizes(figures: Figures) -> Iterator[str]:
    """What servers and files take."""
    yield "| server | start to first answer, s | resident, MiB | resident after all loads, MiB |"
    yield "| --- | ---: | ---: | ---: |"
    for one in figures.footprints:
        cells = (spread(one.first_answer_s), f"{statistics.median(one.warm_mib):.0f}", f"{one.loaded_mib:.0f}")
        yield f"| {one.server} | {' | '.join(cells)} |"
    yield ""
    sizes = ", ".join(f"{name} {megabytes:.3g} MB" for name, megabytes in figures.file_mb.items())
    yield f"What a server loads: {sizes}. {figures.int8}"


def latencies(rounds: Sequence[Sequence[float]]) -> tuple[str, str]:
    """The median and the 95th percentile of all calls."""
    return short(statistics.median(flat(rounds))), short(percentile(flat(rounds), 95))


def short(value: float) -> str:
    """Three digits."""
    form: Callable[[float], str] = "{:.0f}".format if value >= 100 else "{:.3g}".format  # noqa: PLR2004
    return form(value)
