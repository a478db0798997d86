"""Every service is replaced in turn, by SIGTERM, while clients ask: nobody gets an error or another text.

Clients do what a load balancer and a client that honours Retry-After do: they take a gateway that is ready, and try
again when they read 503 or find a port closed."""

import itertools
import threading
import time

import httpx
import processes
import pytest
from test_gateway_loss import STORY, cluster  # noqa: F401: two gateways

CLIENTS = 4
TRIES = 200


class Load:
    """Clients that ask for the same few texts until they are told to end."""

    def __init__(self, cluster):
        self.cluster, self.ended = cluster, threading.Event()
        self.texts, self.faults, self.n_answers, self.n_tries_again = {}, [], 0, 0
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(CLIENTS)]

    def ask(self, seed):
        body = {"model": processes.MODEL_NAME, "prompt": STORY, "seed": seed, "max_tokens": 24, "ignore_eos": True}
        for name, _ in zip(itertools.cycle(self.cluster.urls), range(TRIES)):
            url = self.cluster.urls[name]
            try:
                with httpx.Client(trust_env=False, timeout=60) as client:
                    if client.get(f"{url}/ready").status_code != 200:
                        raise httpx.ConnectError("not ready")
                    answer = client.post(f"{url}/v1/completions", json=body)
            except httpx.ConnectError:
                answer = None
            if answer is not None and answer.status_code != 503:
                assert answer.status_code == 200, answer.text
                return answer.json()["choices"][0]["text"]
            self.n_tries_again += answer is not None
            time.sleep(0.1)
        raise AssertionError(f"refused {TRIES} times")

    def run(self, index):
        try:
            for turn in itertools.count():
                if self.ended.is_set():
                    return
                seed = (index + turn) % 3
                text = self.ask(seed)
                assert self.texts.setdefault(seed, text) == text
                self.n_answers += 1
        except Exception as fault:  # told by the test's own thread
            self.faults.append(repr(fault))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def wait_for_more(self):
        n = self.n_answers + 2 * CLIENTS
        processes.wait_until(lambda: self.n_answers >= n or self.faults, "clients get answers", 60)


@pytest.fixture(scope="module")
def load(cluster):  # noqa: F811
    with Load(cluster) as load:
        load.wait_for_more()
        yield load
    assert not load.faults and set(load.texts) == {0, 1, 2}


@pytest.mark.parametrize("name", ["executor", "tokenizer", "postprocessor", "drafter"])
def test_one_that_calls_is_replaced(cluster, load, name):  # noqa: F811
    old = cluster.processes.pop(name)
    at = old.popen.args.index("--admin-port")
    new = cluster.start(f"new-{name}", old.popen.args[:at] + old.popen.args[at + 2 :])
    log = "model loaded" if name == "executor" else ""
    processes.wait_until(lambda: log in new.log() and (log or '"msg"' in new.log()), f"the new {name} is there")
    time.sleep(0.3)
    old.stop()
    load.wait_for_more()
    assert not load.faults


def test_the_scheduler_is_replaced(cluster, load):  # noqa: F811
    cluster.processes.pop("scheduler").stop()
    cluster.start_service("scheduler")
    load.wait_for_more()
    assert not load.faults


@pytest.mark.parametrize("name", ["gateway", "gateway-2"])
def test_a_gateway_is_replaced(cluster, load, name):  # noqa: F811
    cluster.processes.pop(name).stop()
    cluster.start_service(name)
    gateway = cluster.processes[name]
    url = f"http://127.0.0.1:{processes.wait_until(lambda: port_of(gateway), 'it listens')}"
    cluster.urls[name] = url
    processes.wait_until(lambda: cluster.http.get(f"{url}/ready").status_code == 200, "it is ready")
    load.wait_for_more()
    assert not load.faults


def port_of(process):
    process.assert_alive()
    return next((line["port"] for line in process.lines() if line["msg"] == "listens"), None)
