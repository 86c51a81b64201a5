"""Draw which step of a refresh runs when, for each way: `refresh_plot.py PICTURE < SPANS.json`. Runs in the load test's environment."""

import json
import sys

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {
    "export": "#34a853", "build_image": "#fbbc04", "smoke_test": "#f9ab00", "push": "#fde293", "preview": "#4285f4",
    "wait_for_preview": "#8ab4f8", "preview_gate": "#1967d2", "apply": "#ea4335", "wait_for_rollout": "#f28b82",
    "wait_for_address": "#fad2cf", "gate": "#b31412",
}  # fmt: skip
OTHER = "#9aa0a6"
LETTER_S = 0.26  # of a bar that has room for its name, for each letter

spans = json.load(sys.stdin)
figure, axes = plt.subplots(figsize=(12, 4.2))
place, ticks = 0.0, {}
for way, steps in reversed(spans.items()):
    lanes: list[float] = []  # until when each lane is taken
    drawn = []
    for step, (begin, end) in sorted(steps.items(), key=lambda item: item[1][0]):
        lane = next((number for number, until in enumerate(lanes) if until <= begin + 0.05), len(lanes))
        lanes[lane : lane + 1] = [end]
        drawn.append((step, begin, end, lane))
    for step, begin, end, lane in drawn:
        axes.barh(
            place + lane * 0.42, end - begin, left=begin, height=0.38, color=COLOURS.get(step, OTHER), edgecolor="white"
        )
        name = step.replace("_", " ")
        if end - begin > LETTER_S * len(name):
            axes.text((begin + end) / 2, place + lane * 0.42, name, ha="center", va="center", fontsize=7, color="black")
    ticks[place + (len(lanes) - 1) * 0.21] = way
    place += 0.42 * len(lanes) + 0.35
axes.set_yticks(list(ticks), list(ticks.values()))
axes.set_xlabel("seconds since the refresh was asked for")
axes.spines[["top", "right", "left"]].set_visible(False)
axes.tick_params(axis="y", length=0)
axes.grid(axis="x", color="#e8eaed")
axes.set_axisbelow(True)
figure.tight_layout()
figure.savefig(sys.argv[1], dpi=120)
