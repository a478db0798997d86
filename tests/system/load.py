"""Concurrent streams of mixed requests whose answers depend on the request alone, and the times of their text."""

import http.client
import itertools
import json
import random
import threading
import time
from urllib.parse import urlsplit

import processes

LONG = "The lighthouse keeper counted the boats that came home before the storm. " * 40  # some 550 tokens
LIST = "one two three four five six seven eight nine ten. " * 4
CLIENT_TIMEOUT_S = 300


def completion(prompt, **options):
    return "/v1/completions", {"prompt": prompt, "max_tokens": 40, "ignore_eos": True, **options}


def chat(question, **options):
    messages = [{"role": "user", "content": question}]
    return "/v1/chat/completions", {"messages": messages, "max_tokens": 40, "ignore_eos": True, **options}


def mix(seed):
    """One request of each kind, with a seed of its own where it draws."""
    drawn = {"temperature": 1, "seed": seed}
    tale = f"Tale {seed}. Once upon a time, in a small village by the sea,"
    return {
        "greedy": chat(f"Tell me {seed} things about the sea.", temperature=0),
        "seeded": completion(tale, **drawn),
        "top-k": chat("Why is the sky blue?", top_k=20, min_p=0.02, **drawn),
        "logprobs": chat("Name a colour.", logprobs=True, top_logprobs=3, **drawn),
        "text logprobs": completion(tale, logprobs=2, **drawn),
        "stop strings": completion(tale, stop=[" and the", ". The", "\n\n"], max_tokens=64, **drawn),
        "stop and logprobs": completion(tale, stop=[" and the", ". The"], logprobs=1, max_tokens=64, **drawn),
        "n = 3": completion(tale, n=3, max_tokens=24, **drawn),
        "long prompt": completion(LONG + tale, max_tokens=16, **drawn),
        "speculative": completion(LIST, draft_tokens=4, max_tokens=48, temperature=0),
        "penalties": completion(tale, repetition_penalty=1.2, frequency_penalty=0.3, **drawn),
        "echo": completion(tale, echo=True, logprobs=1, max_tokens=12, **drawn),
        "not streamed": chat("What is a ship?", stream=False, **drawn),
        "beams": completion(tale, use_beam_search=True, n=2, max_tokens=12, temperature=0),
    }


class Failed(Exception):
    pass


def add_logprobs(kept, piece):
    """Of completions (parallel lists) or of chats (a list)."""
    for key, values in (piece or {}).items():
        if values is not None:
            kept.setdefault(key, []).extend(values)


class Answer:
    """What a client has at the end, however it was cut into pieces."""

    def __init__(self):
        self.id, self.usage, self.choices, self.times = None, None, {}, []

    def take(self, body):
        if "error" in body:
            raise Failed(f"error: {body['error'].get('message')}")
        self.id = body["id"]
        if body.get("usage"):  # how much of a prompt was cached is the server's luck
            self.usage = {k: v for k, v in body["usage"].items() if isinstance(v, int)}
        for piece in body["choices"]:
            choice = self.choices.setdefault(
                piece["index"], {"text": "", "finish": None, "stop_reason": None, "logprobs": {}}
            )
            if choice["finish"]:
                raise Failed(f"choice {piece['index']} went on after its end")
            said = piece.get("delta") or piece.get("message") or {"content": piece.get("text")}
            choice["text"] += said.get("content") or ""
            choice["finish"] = piece.get("finish_reason")
            choice["stop_reason"] = piece.get("stop_reason")
            add_logprobs(choice["logprobs"], piece.get("logprobs"))

    def seal(self):
        for index, choice in self.choices.items():
            if not choice["finish"]:
                raise Failed(f"choice {index} has no end")
        return {"usage": self.usage, "choices": self.choices}


def read_events(response, answer):
    done = False
    for line in response:
        line = line.decode().rstrip("\n")
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            done = True
            continue
        answer.take(json.loads(line[6:]))
        answer.times.append(time.monotonic())
    if not done:
        raise Failed("the stream ended without [DONE]")


def ask(url, path, body, answer):
    """Sends one request and fills the answer; raises Failed with what went wrong. Nothing is tried again."""
    body = {"model": processes.MODEL_NAME, "stream": True, **body}
    if body["stream"]:
        body["stream_options"] = {"include_usage": True}
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=CLIENT_TIMEOUT_S)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise Failed(f"status {response.status}: {response.read(400).decode(errors='replace')}")
        if body["stream"]:
            read_events(response, answer)
        else:
            answer.take(json.loads(response.read()))
        answer.seal()
    except (OSError, http.client.HTTPException) as fault:
        raise Failed(f"{type(fault).__name__}: {fault}") from None
    finally:
        connection.close()


class Result:
    """One request of the load: when, what came of it."""

    def __init__(self, key):
        self.key, self.begin, self.end = key, time.monotonic(), None
        self.answer, self.fault, self.change = Answer(), None, None

    def gaps(self):
        """(begin, end) between two pieces of text."""
        return list(itertools.pairwise(self.answer.times))


class Load:
    """`n_streams` clients that ask a server again and again, each answer compared with the first one to the same
    request."""

    def __init__(self, server, n_streams, seed, n_seeds=4, kinds=None):
        self.url, self.network = server.url, server.network
        self.n_streams, self.random = n_streams, random.Random(seed)
        self.requests = {
            (kind, s): request
            for s in range(1, n_seeds + 1)
            for kind, request in mix(s).items()
            if not kinds or kind in kinds
        }
        self.expected, self.results, self.running = {}, [], set()
        self.lock, self.stopping = threading.Lock(), threading.Event()

    def run_one(self, key):
        result = Result(key)
        with self.lock:
            self.running.add(result)
        try:
            ask(self.url, *self.requests[key], result.answer)
            said = result.answer.seal()
            with self.lock:
                wanted = self.expected.setdefault(key, said)
            if said != wanted:
                result.change = describe_change(wanted, said)
        except Failed as fault:
            result.fault = str(fault)
        result.end = time.monotonic()
        with self.lock:
            self.running.discard(result)
            self.results.append(result)

    def in_threads(self, work):
        def work_there(i):
            with self.network():
                work(i)

        threads = [threading.Thread(target=work_there, args=(i,), daemon=True) for i in range(self.n_streams)]
        for thread in threads:
            thread.start()
        return threads

    def undisturbed(self):
        """Asks everything once: these are the right answers. Returns the results."""
        left = list(self.requests)

        def work(_):
            while True:
                with self.lock:
                    if not left:
                        return
                    key = left.pop()
                self.run_one(key)

        for thread in self.in_threads(work):
            thread.join()
        results, self.results = self.results, []
        assert len(self.expected) == len(self.requests), [r.fault for r in results if r.fault]
        return results

    def start(self):
        self.stopping.clear()
        keys = sorted(self.requests)
        orders = [self.random.sample(keys, len(keys)) for _ in range(self.n_streams)]

        def work(i):
            for key in itertools.cycle(orders[i]):
                if self.stopping.is_set():
                    return
                self.run_one(key)

        self.threads = self.in_threads(work)

    def has_gone_on_since(self, moment):
        """Whether every request of that moment has had text or its end since then."""
        with self.lock:
            return not any(r.begin < moment and max([0, *r.answer.times[-1:]]) < moment for r in self.running)

    def stop(self):
        """Lets what runs come to its end; returns the results since the start."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(CLIENT_TIMEOUT_S)
            assert not thread.is_alive(), "a client still waits"
        results, self.results = self.results, []
        return results


def describe_change(wanted, said):
    for name in ("usage",):
        if wanted[name] != said[name]:
            return f"{name}: {said[name]} instead of {wanted[name]}"
    for index, choice in wanted["choices"].items():
        other = said["choices"].get(index)
        if other is None:
            return f"choice {index} is missing"
        for name in choice:
            if choice[name] != other[name]:
                return f"choice {index}: {name} is {str(other[name])[:1500]} instead of {str(choice[name])[:1500]}"
    return "more choices"
