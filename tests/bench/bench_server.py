#!/usr/bin/env python3
"""Speed of the server through HTTP, beside its peers from PyPI on the same GGUF file: one table, and JSON.

Each round measures all, one after the other, in changing order, so that whatever else the machine does hits all;
the figures are medians over the rounds, and `ratio` that of ours over the better peer's in the same round. Beside them
stand the bare forward pass and what the machine allows: the multiply-adds of a prefill at the peak of bench_limits,
and for each token that is decoded one read of all weights, keys and values at the speed of memory. Peers share a
Python environment, .venv-bench; each computes in its own process without HTTP. A peer's figures are used only when its
answers are sane; those that can't be had are left out.

    tests/bench/bench_server.py [--rounds N] [--threads N] [--model FILE] [--json FILE] [--no-peer]
"""

import argparse
import concurrent.futures
import http.client
import json
import math
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/system"))

import processes  # noqa: E402

PEERS = {  # name: its script, and packages. llama.cpp from source, for this CPU: a figure of another would mislead
    "llama.cpp": ("peer_llama.py", ["llama-cpp-python==0.3.36", "numpy==2.4.6"]),
    "openvino": ("peer_openvino.py", ["openvino-genai==2026.4.1.0", "numpy==2.4.6"]),
}
PEER_BUILD = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF", "CMAKE_BUILD_PARALLEL_LEVEL": "2"}
PEER_BUILD_S = 600
STREAMS, PROMPT, ANSWER, PREFILL = 32, 128, 64, 512
CONTEXTS, CONTEXT_ANSWER = {"one_1024": 1024, "one_4096": 4096}, 32
TEXT = (
    "The sea was calm that morning, and the fishermen had already left the harbour. An old woman walked along the "
    "beach with her dog and looked for shells. She had done so every day since her husband died, and the children of "
    "the village knew that she kept the most beautiful ones in a wooden box under her bed."
)


class Ours:
    """The server as a user has it: OpenAI's completions, streamed."""

    name = "troupe"

    def __init__(self, model, n_threads, folder):
        self.server = processes.start_serve(folder, "--threads", n_threads, model=model)

    def encode(self, text):
        return self.server.post("/tokenize", json={"prompt": text}).json()["tokens"]

    def text_of(self, tokens):
        return self.server.post("/detokenize", json={"tokens": tokens}).json()["prompt"]

    def run(self, prompt, n):
        """Seconds to the first token and to the last of one stream, read by a client that costs next to nothing."""
        body = {"model": processes.MODEL_NAME, "prompt": prompt, "max_tokens": n, "temperature": 0}
        body |= {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
        begin = time.perf_counter()
        connection = http.client.HTTPConnection(self.server.url.removeprefix("http://"))
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        first, text = None, []
        while piece := response.read1(65536):
            first = first or time.perf_counter() - begin
            text.append(piece)
        end = time.perf_counter() - begin
        usage = re.findall(rb'"completion_tokens":(\d+)', b"".join(text))
        assert usage and int(usage[-1]) == n, f"{usage} tokens came, {n} were asked for"
        return first, end

    def next_token(self, prompt):
        completions = self.server.client().completions
        body = {"model": processes.MODEL_NAME, "prompt": prompt, "max_tokens": 1, "temperature": 0}
        return completions.create(**body, extra_body={"ignore_eos": True}).choices[0].text

    def decode(self, prompts, n):
        begin = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            ends = list(pool.map(lambda p: self.run(p, n), prompts))
        return ends[0][0], time.perf_counter() - begin

    def perplexity(self, tokens):
        answer = self.server.client().completions.create(
            model=processes.MODEL_NAME, prompt=tokens, max_tokens=0, echo=True, logprobs=1
        )
        scores = answer.choices[0].logprobs.token_logprobs[1:]
        return math.exp(-sum(scores) / len(scores))

    def close(self):
        self.server.stop()


class Peer:
    """Another engine behind a script that reads commands: see peer_llama.py."""

    def __init__(self, name, model, n_threads, python):
        self.name = name
        command = [python, ROOT / "tests/bench" / PEERS[name][0], model, str(n_threads), str(STREAMS)]
        self.process = subprocess.Popen(
            [str(c) for c in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.about = self.ask(do="about")

    def ask(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with {self.process.wait()}")
        return json.loads(line)

    def decode(self, prompts, n):
        reply = self.ask(do="decode", prompts=prompts, n=n)
        return reply["first_s"], reply["total_s"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)

    def sanity(self, ours):
        """None, or why its figures must not be used: a broken build is often a fast one."""
        prompt = ours.encode("The capital of France is")
        answer = ours.text_of(self.ask(do="decode", prompts=[prompt], n=12)["tokens"][0])
        if len(re.findall(r"[A-Za-z]{2,}", answer)) < 3:
            return f"it continues 'The capital of France is' with {answer!r}"
        tokens = ours.encode(TEXT)
        there = self.ask(do="perplexity", tokens=tokens)["perplexity"]
        if there is None:
            return self.agreement(ours, [tokens[:n] for n in range(4, len(tokens), 2)])
        here = ours.perplexity(tokens)
        print(f"perplexity of a plain English text: {here:.2f} (troupe), {there:.2f} ({self.name})")
        if not math.isfinite(there) or not 0.9 < there / here < 1.1:
            return f"its perplexity of a plain text is {there}, ours {here}"
        return None

    def agreement(self, ours, prompts):
        """None, or why not, by the share of next tokens that are ours: rounded otherwise, near ties fall otherwise; of
        broken weights hardly any agree."""
        theirs = [ours.text_of(self.ask(do="decode", prompts=[p], n=1)["tokens"][0]) for p in prompts]
        agreed = sum(a == ours.next_token(p) for a, p in zip(theirs, prompts))
        print(f"next tokens of a plain English text as ours: {agreed} of {len(prompts)} ({self.name})")
        return None if 2 * agreed >= len(prompts) else f"only {agreed} of {len(prompts)} of its next tokens are ours"


def run_for(seconds, command, **options):
    """Runs a command; past its time everything it started ends with it."""
    process = subprocess.Popen([str(c) for c in command], start_new_session=True, **options)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise OSError(f"it took more than {seconds} s") from None
    if status != 0:
        raise OSError(f"{command[0]} ended with {status}")


def peer_python(name):
    """The interpreter of .venv-bench with the peer in it, or None."""
    folder, packages = ROOT / ".venv-bench", PEERS[name][1]
    python, stamp, wanted = folder / "bin/python", folder / f"packages-{name}", " ".join(packages)
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"building {name} in {folder}, at most {PEER_BUILD_S // 60} minutes ...", file=sys.stderr, flush=True)
    try:
        run_for(120, [sys.executable, "-m", "venv", folder])
        pip = [python, "-m", "pip", "install", "--quiet", *packages]
        run_for(PEER_BUILD_S, pip, env={**os.environ, **PEER_BUILD})
    except OSError as fault:
        print(f"{name} can't be had here, so it is left out: {fault}")
        return None
    stamp.write_text(wanted)
    return python


def start_peer(name, ours, model, n_threads):
    python = peer_python(name)
    if not python:
        return None
    try:
        peer = Peer(name, model, n_threads, python)
        why = peer.sanity(ours)
    except (RuntimeError, OSError, ValueError) as fault:
        print(f"{name} does not run here, so it is left out: {fault}")
        return None
    if why:
        print(f"{name}'s figures are not used: {why}")
        peer.close()
        return None
    return peer


class Prompts:
    """Texts of a given number of tokens that share no beginning, so that no cache helps anyone."""

    def __init__(self, ours):
        self.words = re.findall(r"[A-Za-z]+", TEXT)
        self.ours = ours

    def make(self, seed, n_tokens):
        random_of = random.Random(seed)
        text = " ".join(random_of.choice(self.words) for _ in range(n_tokens))
        return self.ours.encode(text)[:n_tokens]

    def several(self, seed, n, n_tokens):
        return [self.make(f"{seed}/{i}", n_tokens) for i in range(n)]


def measure(engine, prompts):
    """Tokens per second of each case."""
    first_s, _ = engine.decode([prompts["prefill"]], 1)
    one_first_s, one_total_s = engine.decode([prompts["one"]], ANSWER)
    _, many_s = engine.decode(prompts["many"], ANSWER)
    figures = {
        "prefill": PREFILL / first_s,
        "one": (ANSWER - 1) / (one_total_s - one_first_s),
        "many": STREAMS * ANSWER / many_s,
        "first_ms": one_first_s * 1e3,
    }
    for case in CONTEXTS:
        first_s, total_s = engine.decode([prompts[case]], CONTEXT_ANSWER)
        figures[case] = (CONTEXT_ANSWER - 1) / (total_s - first_s)
    return figures


CASES = {
    "prefill": f"prefill, {PREFILL} tokens (tokens/s)",
    "one": f"decode, 1 stream (tokens/s)",
    **{case: f"decode, 1 stream after {n} (tokens/s)" for case, n in CONTEXTS.items()},
    "many": f"{STREAMS} streams, {PROMPT} in, {ANSWER} out (tokens out/s)",
    "first_ms": f"first token after {PROMPT} (ms)",
}


def summary(results):
    """{case: {engine: median, "better": the better peer, "ratio": median of ours over its in the same round}}."""
    table = {}
    for case in CASES:
        medians = {name: statistics.median(r[case] for r in rounds) for name, rounds in results.items()}
        table[case] = dict(medians)
        if len(results) > 1:
            name = (min if case == "first_ms" else max)(list(results)[1:], key=medians.get)
            pairs = zip(results[Ours.name], results[name])
            table[case] |= {"better": name, "ratio": statistics.median(a[case] / b[case] for a, b in pairs)}
    return table


def output_of(program, *arguments):
    command = [ROOT / "build/bin" / program, *arguments]
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True)


def bare_engine(model, n_threads):
    """The forward pass without scheduler, sampling and HTTP: tokens/s of the cases it has, and the model's sizes."""
    done = output_of("bench_model", model, "cpu", "", n_threads)
    sizes = re.search(
        r"on (cpu .*?): ([\d.]+) M parameters, ([\d.]+) M of them embedding, ([\d.]+) MB packed, (\d+) bytes",
        done.stderr,
    )
    speeds = {m[1].strip(): float(m[2]) for m in re.finditer(r"^(.*?) +([\d.]+) tokens/s", done.stdout, re.M)}
    engine = {
        "prefill": speeds["prefill 512"],
        "one": speeds["decode, 1 sequence, context 16"],
        "one_1024": speeds["decode, 1 sequence, context 1024"],
        "one_4096": speeds["decode, 1 sequence, context 4096"],
        "many": speeds[f"{STREAMS} sequences, {PROMPT} in, {ANSWER}"],
    }
    about = {
        "device": sizes[1],
        "layer_parameters": (float(sizes[2]) - float(sizes[3])) * 1e6,
        "weight_bytes": float(sizes[4]) * 1e6,
        "kv_bytes": int(sizes[5]),
    }
    return engine, about


def limits(n_threads, about):
    """What the machine itself can do, and the tokens/s that this allows. Activations are 16-bit integers."""
    machine = json.loads(output_of("bench_limits", n_threads).stdout)
    rates = [rate for name, rate in machine.items() if name.startswith("int16")]
    allowed = {"prefill": max(rates) * 1e9 / about["layer_parameters"]} if rates else {}
    for case, context in {"one": PROMPT + ANSWER / 2, **CONTEXTS}.items():
        allowed[case] = machine["memory_gb_s"] * 1e9 / (about["weight_bytes"] + context * about["kv_bytes"])
    return machine, allowed


def print_table(table, names):
    more = ("better", "ratio", "engine", "limit", "share")
    heads = [*names, *(head for head in more if any(head in row for row in table.values()))]
    print(f"\n{'':45}" + "".join(f"{head:>12}" for head in heads))
    for case, title in CASES.items():
        digits = {"ratio": 2, "share": 2}
        cells = (table[case].get(head, "") for head in heads)
        texts = (f"{c:.{digits.get(h, 1)}f}" if isinstance(c, float) else c for h, c in zip(heads, cells))
        print(f"{title:45}" + "".join(f"{text:>12}" for text in texts))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", type=Path, default=processes.MODEL)
    parser.add_argument("--json", type=Path, default=ROOT / "build/bench-server.json")
    parser.add_argument("--no-peer", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that what was started is stopped too
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(args.model, args.threads, Path(folder))
        peers = []
        try:
            for name in () if args.no_peer else PEERS:
                peers += [peer for peer in [start_peer(name, ours, args.model, args.threads)] if peer]
            engines = [ours, *peers]
            results = {e.name: [] for e in engines}
            source = Prompts(ours)
            for i in range(args.rounds + 1):
                prompts = {
                    "prefill": source.make(f"prefill {i}", PREFILL),
                    "one": source.make(f"alone {i}", PROMPT),
                    "many": source.several(f"many {i}", STREAMS, PROMPT),
                    **{case: source.make(f"{case} {i}", n) for case, n in CONTEXTS.items()},
                }
                for engine in engines if i % 2 else reversed(engines):
                    figures = measure(engine, prompts)
                    if i > 0:  # the first round warms up
                        results[engine.name].append(figures)
                print(f"round {i} of {args.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        finally:
            for peer in peers:
                peer.close()
            ours.close()
    table = summary(results)
    engine, sizes = bare_engine(args.model, args.threads)
    machine, allowed = limits(args.threads, sizes)
    for case, row in table.items():
        row |= {"engine": engine[case]} if case in engine else {}
        row |= {"limit": allowed[case], "share": row["troupe"] / allowed[case]} if case in allowed else {}
    print(f"{args.model.name}, {args.threads} threads, {args.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    for peer in peers:
        print(f"peer: {peer.name} in {PEERS[peer.name][1][0]}, without HTTP; {', '.join(peer.about['features'])}")
    print(f"this machine: {json.dumps(machine)}")
    print_table(table, list(results))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    about = {"model": args.model.name, "threads": args.threads, "peers": {p.name: p.about for p in peers}}
    about |= {"device": sizes["device"], "machine": machine}
    args.json.write_text(json.dumps({**about, "rounds": results, "medians": table}, indent=1) + "\n")
    print(f"\nall rounds are in {args.json}")


if __name__ == "__main__":
    main()
