#!/usr/bin/env python3
"""How decoding and prefill grow with batch, context and threads: kernels/speed.json, and kernels/speed.png from it.

Runs `bench_model --sweep` for one thread and for all, in Python environment .venv-bench (for matplotlib).

    tests/bench/plot_sweep.py [--threads N] [--model FILE] [--draw-only]
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

from bench_env import enter_with_matplotlib

ROOT = Path(__file__).resolve().parent.parent.parent
DATA, PICTURE = ROOT / "kernels/speed.json", ROOT / "kernels/speed.png"
AXES = {
    "batch": ("sequences, each 128 tokens long", "decode, tokens/s of all sequences", "batch"),
    "context": ("tokens before", "decode of one sequence, tokens/s", "context"),
    "prefill": ("tokens at once", "prefill, tokens/s", "context"),
}


def sweep(model, n_threads):
    command = [ROOT / "build/bin/bench_model", "--sweep", model, "cpu", "", n_threads]
    done = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True)
    return done.stderr.strip(), [json.loads(line) for line in done.stdout.splitlines()]


def measure(model, most_threads):
    points, about = [], ""
    for n_threads in sorted({1, most_threads}):
        about, more = sweep(model, n_threads)
        points += more
    DATA.write_text(json.dumps({"about": about, "points": points}, indent=1) + "\n")


def draw():
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    data = json.loads(DATA.read_text())
    figure, plots = pyplot.subplots(1, len(AXES), figsize=(13, 4))
    for plot, (axis, (below, beside, key)) in zip(plots, AXES.items()):
        for n_threads in sorted({p["threads"] for p in data["points"]}):
            points = [p for p in data["points"] if p["axis"] == axis and p["threads"] == n_threads]
            label = f"{n_threads} thread{'s' if n_threads > 1 else ''}"
            plot.plot([p[key] for p in points], [p["tokens_s"] for p in points], "o-", label=label)
        plot.set(xlabel=below, ylabel=beside, xscale="log", ylim=0)
        plot.set_xscale("log", base=2)
        plot.grid(alpha=0.3)
        plot.legend()
    figure.suptitle(data["about"].split(":")[0], fontsize=10)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct-Q4_1.gguf")
    parser.add_argument("--draw-only", action="store_true")
    args = parser.parse_args()
    enter_with_matplotlib()
    if not args.draw_only:
        measure(args.model, args.threads)
    draw()


if __name__ == "__main__":
    main()
