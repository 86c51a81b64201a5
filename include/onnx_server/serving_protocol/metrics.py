"""The metrics of the real server by their own names, and the page that Prometheus reads."""

import bisect
import threading
from collections import defaultdict

PATH = "/monitoring/prometheus/metrics"  # util/prometheus_exporter.cc:156
LATENCY_US = [10 * 1.8**power for power in range(33)]
QUEUING_US = [100 * 1.2**power for power in range(52)]

_lock = threading.Lock()


class Counter:
    """A counter for each combination of label values."""

    def __init__(self, name: str, *labels: str) -> None:
        """Set the name on the page and the names of the labels."""
        self.name = name
        self._labels = labels
        self._counts: dict[tuple[str, ...], int] = defaultdict(int)

    def add(self, *values: str, count: int = 1) -> None:
        """Add to the counter of these label values."""
        with _lock:
            self._counts[values] += count

    def lines(self) -> list[str]:
        """The lines of this metric on the page."""
        rows = [f"{self.name}{{{_text(self._labels, values)}}} {count}" for values, count in self._counts.items()]
        return [f"# TYPE {self.name} counter", *rows]


class Sampler:
    """A histogram for each combination of label values."""

    def __init__(self, name: str, *labels: str, limits: list[float]) -> None:
        """Set the names. `limits` are the upper bounds of all buckets except the last."""
        self.name = name
        self._labels = labels
        self._limits = limits
        self._samples: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = defaultdict(float)

    def add(self, value: float, *values: str) -> None:
        """Count one sample for these label values."""
        with _lock:
            buckets = self._samples.setdefault(values, [0] * (len(self._limits) + 1))
            buckets[bisect.bisect_right(self._limits, value)] += 1
            self._sums[values] += value

    def lines(self) -> list[str]:
        """The lines of this metric on the page: cumulative buckets, sum and count."""
        rows = [f"# TYPE {self.name} histogram"]
        limits = [*(f"{limit:.6g}" for limit in self._limits), "+Inf"]
        for values, buckets in self._samples.items():
            text, total = _text(self._labels, values), 0
            for limit, count in zip(limits, buckets, strict=True):
                total += count
                rows.append(f'{self.name}_bucket{{{text}{"," if text else ""}le="{limit}"}} {total}')
            rows += [f"{self.name}_sum{{{text}}} {self._sums[values]:.6g}", f"{self.name}_count{{{text}}} {total}"]
        return rows


def _text(labels: tuple[str, ...], values: tuple[str, ...]) -> str:
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return ",".join(f'{label}="{value}"' for label, value in zip(labels, escaped, strict=True))


REQUESTS = Counter(":tensorflow:serving:request_count", "model_name", "status")
REQUEST_LATENCY = Sampler(":tensorflow:serving:request_latency", "model_name", "API", "entrypoint", limits=LATENCY_US)
RUNTIME_LATENCY = Sampler(":tensorflow:serving:runtime_latency", "model_name", "API", "runtime", limits=LATENCY_US)
WARMUP_LATENCY = Sampler(":tensorflow:serving:model_warmup_latency", "model_path", "status", limits=LATENCY_US)
WARMUP_RECORDS = Counter(":tensorflow:serving:model_warmup_records_read", "model_path", "status")
QUEUING_LATENCY = Sampler(":tensorflow:serving:batching_session:queuing_latency", "thread_pool_name", limits=QUEUING_US)
BATCHED_RUNS = Counter(":tensorflow:serving:batching_session:wrapped_run_count")
ALL = (REQUESTS, REQUEST_LATENCY, RUNTIME_LATENCY, WARMUP_LATENCY, WARMUP_RECORDS, QUEUING_LATENCY, BATCHED_RUNS)


def page() -> bytes:
    """All metrics in Prometheus' text format."""
    with _lock:
        return ("\n".join(line for metric in ALL for line in metric.lines()) + "\n").encode()
