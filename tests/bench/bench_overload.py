#!/usr/bin/env python3
"""Goodput under overload: services/gateway/overload.json, and overload.png from it.

The capacity is what a few clients get, in answers a second, who ask again as soon as they are answered: before and
after each point, as a machine with other work changes. Between them requests come at random, whether earlier ones are
answered or not, at a multiple of it. Good is an answer in full within the deadline that the request names; the rest
should be refused at once, with Retry-After.

    tests/bench/bench_overload.py [--seconds S] [--deadline S] [--draw-only] [-- FLAGS of troupe serve]
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/system"))

import processes  # noqa: E402

DATA = ROOT / "services/gateway/overload.json"
FACTORS = [0.5, 1, 2, 5, 10]
CLOSED_CLIENTS, ANSWER_TOKENS = 8, 16


async def ask(port, seed, deadline_s):
    """(status, seconds, whether a refusal says when to try again, when); status 0: no whole answer."""
    body = {"model": processes.MODEL_NAME, "prompt": "Once upon a time", "max_tokens": ANSWER_TOKENS, "seed": seed}
    text = json.dumps({**body, "ignore_eos": True, "timeout": deadline_s})
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    begin = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}Content-Length: {len(text)}\r\n\r\n{text}".encode())
        reply = (await asyncio.wait_for(reader.read(), 10 * deadline_s)).decode()
        writer.close()
    except (OSError, asyncio.TimeoutError):
        reply = ""
    end = time.monotonic()
    return int(reply[9:12] or 0), end - begin, "\r\nRetry-After: " in reply, end


async def capacity(port, seconds, deadline_s):
    end, n = time.monotonic() + seconds, 0

    async def client(seed):
        nonlocal n
        while time.monotonic() < end:
            status, *_ = await ask(port, seed, deadline_s)
            n += status == 200 and time.monotonic() < end

    await asyncio.gather(*(client(seed) for seed in range(CLOSED_CLIENTS)))
    return n / seconds


async def offer(port, rate, seconds, deadline_s):
    """Requests of a Poisson process; good are those that end in the last `seconds`, when it has filled up."""
    chance, tasks = random.Random(7), []
    begin = at = time.monotonic()
    while at < begin + deadline_s + seconds:
        await asyncio.sleep(max(0, at - time.monotonic()))
        tasks.append(asyncio.create_task(ask(port, len(tasks), deadline_s)))
        at += chance.expovariate(rate)
    replies = await asyncio.gather(*tasks)
    since, until = begin + deadline_s, begin + deadline_s + seconds
    good = sorted(t for status, t, _, end in replies if status == 200 and t <= deadline_s and since <= end < until)
    waits = sorted(t for status, t, *_ in replies if status in (429, 503))
    refused = [(took, says) for status, took, says, _ in replies if status in (429, 503)]
    return {
        "offered_per_s": round(len(replies) / (seconds + deadline_s), 2),
        "good_per_s": round(len(good) / seconds, 2),
        "late": sum(status == 200 and took > deadline_s for status, took, *_ in replies),
        "timed_out": sum(status == 408 for status, *_ in replies),
        "refused": len(refused),
        "refused_without_retry_after": sum(not says for _, says in refused),
        "refused_after_s_p99": round(waits[int(len(waits) * 0.99)], 3) if waits else 0,
        "others": sum(status not in (200, 408, 429, 503) for status, *_ in replies),
        "good_s_median": round(good[len(good) // 2], 2) if good else None,
    }


async def measure(port, seconds, deadline_s):
    await capacity(port, 3, deadline_s)  # warm
    points = []
    for factor in FACTORS:
        before = await capacity(port, seconds / 2, deadline_s)
        point = await offer(port, factor * before, seconds, deadline_s)
        after = await capacity(port, seconds / 2, deadline_s)
        points.append({"factor": factor, "capacity_per_s": round((before + after) / 2, 2), **point})
        print(json.dumps(points[-1]), file=sys.stderr)
    return {"deadline_s": deadline_s, "tokens": ANSWER_TOKENS, "points": points}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--deadline", type=float, default=5)
    parser.add_argument("--json", type=Path, default=DATA)
    parser.add_argument("--draw-only", action="store_true")
    parser.add_argument("flags", nargs="*")
    arguments = parser.parse_args()
    if not arguments.draw_only:
        with tempfile.TemporaryDirectory() as folder:
            server = processes.start_serve(Path(folder), "--max-connections-per-peer", 0, *arguments.flags)
            port = int(server.url.rsplit(":", 1)[1])
            result = asyncio.run(measure(port, arguments.seconds, arguments.deadline))
            server.stop()
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    subprocess.run([sys.executable, ROOT / "tests/bench/plot_overload.py", arguments.json], check=True)


if __name__ == "__main__":
    main()
