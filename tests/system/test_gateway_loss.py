"""A gateway may be lost: a client with an Idempotency-Key asks another one and gets the same response, or the rest."""

import json
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import conftest
import httpx
import processes
import pytest

STORY = "Once upon a time, in a small village by the sea,"


class Gateways(processes.Cluster):
    """A cluster with two gateways in front of it, which share Redis."""

    def __init__(self, folder, transport):
        super().__init__(folder, transport, counts={"gateway": 2})
        self.flags["gateway"] = ["--store-url", f"redis://127.0.0.1:{self.redis_port}/0"]
        self.urls = {}

    def start_all(self):
        self.start_redis()
        for service in ("scheduler", "gateway", *processes.CALLERS):
            for name in self.names(service):
                self.start_service(name)
        for name in self.names("gateway"):
            self.wait_gateway(name)
        return self

    def wait_gateway(self, name):
        self.wait_ready(self.processes[name])
        self.urls[name] = self.url

    def ask(self, name, key, event=None, **options):
        """A streamed response: its client is the caller's, to be closed or not."""
        options = {"temperature": 1, "max_tokens": 60, "ignore_eos": True, **options}
        headers = {"Idempotency-Key": key, **({"Last-Event-ID": event} if event else {})}
        body = {"model": processes.MODEL_NAME, "prompt": STORY, **options}
        client = httpx.Client(trust_env=False, timeout=60)
        return client.stream("POST", f"{self.urls[name]}/v1/completions", headers=headers, json=body)

    def whole(self, name, key, event=None, **options):
        with self.ask(name, key, event, **options) as response:
            assert response.status_code == 200, response.read()
            return response.read().decode()


@pytest.fixture(scope="module")
def cluster():
    folder = Path(tempfile.mkdtemp(prefix="troupe-"))
    cluster = Gateways(folder, "ipc")
    try:
        cluster.start_all()
        yield cluster
        cluster.stop()
    finally:
        conftest.kill_all(cluster)
        shutil.rmtree(folder, ignore_errors=True)


def events_of(text):
    """Whole events without comments, and the id of the last one."""
    whole = text[: text.rfind("\n\n") + 2] if "\n\n" in text else ""
    events = [event for event in whole.split("\n\n")[:-1] if not event.startswith(":")]
    ids = [line.removeprefix("id: ") for event in events for line in event.split("\n") if line.startswith("id: ")]
    return "".join(event + "\n\n" for event in events), ids[-1] if ids else None


def text_of(events):
    """Of the first choice."""
    lines = [line.removeprefix("data: ") for line in events.split("\n") if line.startswith("data: {")]
    return "".join(json.loads(line)["choices"][0]["text"] for line in lines)


def read_some(pieces, n_events):
    """What has come when there are so many events."""
    text = ""
    for piece in pieces:
        text += piece
        if text.count("\n\n") >= n_events:
            return text
    raise AssertionError(f"the stream ended early:\n{text}")


@pytest.mark.parametrize("choices", [1, 2])
def test_a_killed_gateways_stream_goes_on_at_another(cluster, choices):
    key = f"killed-{choices}"
    with cluster.ask("gateway", key, stream=True, n=choices, logprobs=1) as response:
        begun = read_some(response.iter_text(), 12)
        cluster.processes["gateway"].kill()
    first, last = events_of(begun)
    rest = cluster.whole("gateway-2", key, last, stream=True, n=choices, logprobs=1)
    whole = cluster.whole("gateway-2", key, stream=True, n=choices, logprobs=1)
    assert first + events_of(rest)[0] == events_of(whole)[0]
    assert "goes on with a reply" in cluster.processes["gateway-2"].log()
    assert whole.endswith("data: [DONE]\n\n") and whole.count("data: ") > 20 * choices
    cluster.start_service("gateway")
    cluster.wait_gateway("gateway")
    assert cluster.whole("gateway", key, stream=True, n=choices, logprobs=1) == whole


def test_the_tokens_are_those_of_an_undisturbed_response(cluster):
    """With a seed of the client's, under another key, and without any."""
    with cluster.ask("gateway", "cut", stream=True, seed=5) as response:
        begun = read_some(response.iter_text(), 10)
    rest = cluster.whole("gateway-2", "cut", events_of(begun)[1], stream=True, seed=5)
    calm = cluster.whole("gateway-2", "calm", stream=True, seed=5)
    plain = cluster.client().completions.create(
        model=processes.MODEL_NAME, prompt=STORY, temperature=1, max_tokens=60, seed=5, extra_body={"ignore_eos": True}
    )
    assert text_of(events_of(begun)[0]) + text_of(rest) == text_of(calm) == plain.choices[0].text


def test_a_killed_gateways_whole_answer_comes_from_another(cluster):
    answers = []

    def ask():
        try:
            answers.append(cluster.whole("gateway", "collected", max_tokens=120))
        except httpx.TransportError:
            answers.append(None)

    waiting = threading.Thread(target=ask)
    waiting.start()
    url = cluster.urls["gateway"]

    def in_hand():
        return "troupe_num_requests_in_hand 1" in cluster.http.get(f"{url}/metrics").text

    processes.wait_until(in_hand, "the gateway has it", 30)
    cluster.processes["gateway"].kill()
    waiting.join()
    assert answers == [None]
    answer = cluster.whole("gateway-2", "collected", max_tokens=120)
    cluster.start_service("gateway")
    cluster.wait_gateway("gateway")
    assert cluster.whole("gateway", "collected", max_tokens=120) == answer
    assert '"completion_tokens":120' in answer


def test_a_gateway_that_was_frozen_writes_nothing_when_it_comes_back(cluster):
    options = {"stream": True, "max_tokens": 150}
    with cluster.ask("gateway", "frozen", **options) as response:
        pieces = response.iter_text()
        begun = read_some(pieces, 12)
        cluster.processes["gateway"].popen.send_signal(signal.SIGSTOP)
        rest = cluster.whole("gateway-2", "frozen", events_of(begun)[1], **options)
        cluster.processes["gateway"].popen.send_signal(signal.SIGCONT)
        late = begun
        try:
            for piece in pieces:
                late += piece
        except httpx.TransportError:  # told to ask again: its stream ends without [DONE]
            pass
    whole = cluster.whole("gateway-2", "frozen", **options)
    assert events_of(begun)[0] + events_of(rest)[0] == events_of(whole)[0]
    told = [event for event in events_of(late)[0].split("\n\n") if event.startswith("id: ")]
    assert whole.startswith("\n\n".join(told)), "what it still said is what had been logged"
    assert "[DONE]" not in late and "ask again with the same Idempotency-Key" in late
    cluster.wait_gateway("gateway")


def test_without_redis_a_response_goes_on(cluster):
    options = {"stream": True, "max_tokens": 100}
    with cluster.ask("gateway", "outage", **options) as response:
        assert response.headers["X-Troupe-Resumable"] == "yes"
        pieces = response.iter_text()
        text = read_some(pieces, 10)
        cluster.processes.pop("redis").kill()
        text += "".join(pieces)
    assert text.endswith("data: [DONE]\n\n")
    with cluster.ask("gateway-2", "outage", **options) as response:
        assert response.headers["X-Troupe-Resumable"] == "no"
        assert text_of(response.read().decode()) == text_of(text), "the seed is the key's"
    cluster.start_redis()
