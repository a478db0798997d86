#!/usr/bin/env python3
"""Draws what bench_overload.py measured: the picture lies beside its data."""

import json
import sys
from pathlib import Path

from bench_env import enter_with_matplotlib


def draw(path):
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    data = json.loads(path.read_text())
    factors = [p["factor"] for p in data["points"]]
    share = [100 * p["good_per_s"] / p["capacity_per_s"] for p in data["points"]]
    figure, plot = pyplot.subplots(figsize=(6, 4))
    plot.plot(factors, share, "o-", label="answered in full within the deadline")
    plot.plot(factors, [100 * min(1, f) for f in factors], "k:", label="the most that is possible")
    plot.set(xlabel="requests that come, as a multiple of the capacity", ylabel="% of the capacity")
    plot.set(xscale="log", ylim=0)
    plot.set_xticks(factors, [f"{f:g}x" for f in factors])
    plot.minorticks_off()
    plot.grid(alpha=0.3)
    plot.legend(loc="lower right")
    figure.suptitle(f"{data['tokens']} tokens an answer, deadline {data['deadline_s']:g} s", fontsize=10)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=80)


if __name__ == "__main__":
    enter_with_matplotlib()
    draw(Path(sys.argv[1]))
