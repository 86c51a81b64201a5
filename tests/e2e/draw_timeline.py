"""Draw a timeline: `draw_timeline.py TIMELINE.json PICTURE.png`, in the load test's environment, which has matplotlib."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt


def draw(seen, path):
    """Pods, their CPU and the rate of requests over the same time; the autoscaler's events are vertical lines."""
    moments, told = seen["moments"], seen["autoscaler"]
    at = [moment["at_s"] for moment in moments]
    picture, (pods, cpu, rate) = plt.subplots(3, sharex=True, figsize=(8, 7), dpi=120)
    pods.step(at, [moment["wanted"] for moment in moments], where="post", color="#9aa4b2", label="wanted")
    pods.step(at, [moment["ready"] for moment in moments], where="post", color="#1f6feb", label="ready")
    pods.set(ylabel="pods", ylim=(0, told["most"] + 0.5), yticks=range(told["most"] + 1))
    measured = [moment for moment in moments if moment["cpu_m"] is not None]
    cpu.step(
        [one["at_s"] for one in measured],
        [one["cpu_m"] for one in measured],
        where="post",
        color="#1f6feb",
        label="all pods",
    )
    target = told["target_percent"] * told["request_m"] / 100
    cpu.step(at, [target * moment["wanted"] for moment in moments], where="post", color="#9aa4b2", linestyle=":",
             label=f"target: {told['target_percent']} % of {told['request_m']}m for each pod")  # fmt: skip
    cpu.set(ylabel="CPU (thousandths)", ylim=(0, None))
    rate.plot(
        [one["at_s"] for one in seen["rates"]],
        [one["per_s"] for one in seen["rates"]],
        color="#1f6feb",
        label="answered",
    )
    rate.set(ylabel="requests a second", xlabel="seconds", ylim=(0, None))
    for axes in (pods, cpu, rate):
        for event in seen["events"]:
            axes.axvline(event["at_s"], color="#bf8700", linewidth=0.8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper right")
    pods.set_title(
        f"{seen['where']}, {seen['began'][:10]}: {seen['requests']} requests, {seen['errors']} failed", fontsize=9
    )
    picture.tight_layout()
    picture.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2])
