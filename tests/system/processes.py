"""Real processes of Troupe on free loopback ports: all in one, or one a service with Redis beside them."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parent.parent.parent
TROUPE = Path(os.environ.get("TROUPE_BIN", ROOT / "build/bin/troupe"))
MODEL = ROOT / "models/SmolLM2-135M-Instruct-Q4_1.gguf"
MODEL_NAME = "demo"
START_S = 120  # sanitized builds on a busy machine are slow
STOP_S = 60
SANITIZERS = re.compile(r"(Address|Leak|Thread|Memory|UndefinedBehavior)Sanitizer|runtime error: |Assertion .* failed")

running = []  # every Process that was started and not stopped, for the logs of failing tests


def require_files():
    assert TROUPE.is_file(), f"{TROUPE} is missing: build it first, or name another with TROUPE_BIN"
    assert MODEL.is_file(), f"{MODEL} is missing: ./dev test fetches it"


def free_port():
    """Below those that the system gives to connections: it stays free while its process is away and comes back."""
    while True:
        with socket.socket() as s:
            port = random.randrange(12000, 32000)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def wait_until(condition, what, timeout_s=START_S, pause_s=0.05):
    """Waits until condition() is true and returns its value."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"still not true after {timeout_s} s: {what}"
        time.sleep(pause_s)


class Process:
    """One started program; its output goes to a file."""

    def __init__(self, name, arguments, folder, env=None):
        self.name = name
        n_before = len(list(folder.glob(f"{name}.*.log")))
        self.log_path = folder / f"{name}.{n_before}.log"
        log = open(self.log_path, "wb")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TROUPE_")}
        self.popen = subprocess.Popen(
            [str(a) for a in arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**environment, **(env or {})},
        )
        log.close()
        running.append(self)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def lines(self):
        """The JSON lines of its log."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def assert_alive(self):
        assert self.popen.poll() is None, f"{self.name} ended with {self.popen.returncode}:\n{self.log()[-4000:]}"

    def kill(self):
        """As a crash would end it."""
        self.popen.kill()
        self.popen.wait()
        running.remove(self)

    def stop(self):
        """SIGTERM: it must end in time with status 0, and no sanitizer may have said anything."""
        self.assert_alive()
        self.popen.send_signal(signal.SIGTERM)
        try:
            status = self.popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.name} did not end within {STOP_S} s of SIGTERM:\n{self.log()[-4000:]}"
            ) from None
        running.remove(self)
        found = SANITIZERS.search(self.log())
        assert not found, f"{self.name}:\n{self.log()[found.start() : found.start() + 6000]}"
        assert status == 0, f"{self.name} ended with {status}:\n{self.log()[-4000:]}"


class Server:
    """What tests ask: a base URL, the unmodified openai client, and the metrics of every process behind it."""

    scheme = "http"
    network = staticmethod(contextlib.nullcontext)  # where threads of clients must be

    def __init__(self, folder):
        self.folder = folder
        self.processes = {}
        self.admin_ports = {}
        self.url = None
        self.http = httpx.Client(
            verify=False, trust_env=False, timeout=120
        )  # one: each new one reads every certificate
        self.clients = {}
        self.gateway_endpoint, self.curve = None, False

    def start(self, name, arguments, env=None):
        self.processes[name] = Process(name, arguments, self.folder, env)
        return self.processes[name]

    def troupe(self, command, *flags, admin=True, name=None):
        arguments, name = [TROUPE, command, *flags], name or command
        if admin:
            self.admin_ports[name] = self.admin_ports.get(name) or free_port()
            arguments += ["--admin-port", self.admin_ports[name]]
        return self.start(name, arguments)

    def wait_ready(self, process):
        """Until the gateway in `process` listens and has everything behind it."""

        def port():
            process.assert_alive()
            return next((line["port"] for line in process.lines() if line["msg"] == "listens"), None)

        self.url = f"{self.scheme}://127.0.0.1:{wait_until(port, f'{process.name} listens')}"

        def ready():
            for p in self.processes.values():
                p.assert_alive()
            return self.get("/ready").status_code == 200

        wait_until(ready, "the server is ready")
        return self

    def client(self, **options):
        options = {"api_key": "none", "max_retries": 0, "timeout": 120, **options}
        key = (self.url, *sorted(options.items()))
        if key not in self.clients:
            self.clients[key] = OpenAI(base_url=f"{self.url}/v1", **options)
        return self.clients[key]

    def get(self, path, **options):
        return self.http.get(self.url + path, **options)

    def post(self, path, **options):
        return self.http.post(self.url + path, **options)

    def admin_urls(self):
        return [f"http://127.0.0.1:{port}" for port in self.admin_ports.values()]

    def metrics(self):
        """{(name, labels as sorted pairs): value}, summed over the processes."""
        sums = {}
        for url in self.admin_urls():
            text = self.http.get(f"{url}/metrics").text
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    key = (sample.name, tuple(sorted(sample.labels.items())))
                    sums[key] = sums.get(key, 0) + sample.value
        return sums

    def metric(self, name, **labels):
        """The sum of a metric over every label but those given."""
        wanted = set(labels.items())
        values = [value for (n, pairs), value in self.metrics().items() if n == name and wanted <= set(pairs)]
        assert values, f"no metric {name}{labels or ''}"
        return sum(values)

    def bus_options(self):
        """What troupe_bus.Client takes to connect to the gateway."""
        curve = {"key_file": self.folder / "client.key", "server_key_file": self.folder / "gateway.key.pub"}
        return {"endpoint": self.gateway_endpoint, **(curve if self.curve else {})}

    def wait_idle(self, timeout_s=30):
        """Until no request is anywhere in the server, and all that requests took is back."""
        gauges = "troupe_sequences_running troupe_sequences_waiting troupe_num_requests_in_hand".split()
        gauges += ["troupe_postprocessor_streams", "troupe_gateway_prompts_waiting"]
        gauges += ["troupe_kv_blocks_used", "troupe_bus_credits_spent"]  # without those kept for their prefix

        def idle():
            try:
                return not any(self.metric(g) for g in gauges)
            except httpx.TransportError:  # one that was started again does not listen yet
                return False

        wait_until(idle, f"{', '.join(gauges)} are 0", timeout_s)

    def stop(self):
        """Gateways first, as a deployment would; every process is stopped before the first failure is reported."""
        faults = []
        order = sorted(self.processes.values(), key=lambda p: (not p.name.startswith("gateway"), p.name == "redis"))
        for process in order:
            try:
                if process in running:
                    process.stop()
            except AssertionError as fault:
                faults.append(str(fault))
        self.processes = {}
        self.http.close()
        assert not faults, "\n\n".join(faults)


def weight_cache_flags(model):
    """Nothing is written beside the models that tests bring."""
    return ["--weight-cache", "off"] if ROOT / "tests/data" in Path(model).parents else []


def start_serve(folder, *flags, model_name=MODEL_NAME, model=MODEL):
    """Everything in one process, for HTTP and the bus."""
    require_files()
    server = Server(folder)
    server.gateway_endpoint = f"tcp://127.0.0.1:{free_port()}"
    bus = [] if "--bus-bind" in flags else ["--bus-bind", server.gateway_endpoint, "--bus-insecure"]
    name = ["--served-model-name", model_name] if model_name else []
    flags = [*weight_cache_flags(model), *flags]
    return server.wait_ready(server.troupe("serve", "--model", model, "--port", 0, *bus, *name, *flags))


# ---- one process a service -------------------------------------------------------------------------------------------

CALLERS = {  # whom they call
    "executor": ["scheduler"],
    "tokenizer": ["gateway", "scheduler"],
    "postprocessor": ["gateway", "scheduler"],
    "drafter": ["scheduler"],
}
ROLES = ["gateway", "scheduler", *CALLERS, "client"]
WITH_MODEL = ("executor", "tokenizer", "postprocessor")


def write_keys(folder):
    """A pair for each role and a file of who may connect. Gateway and scheduler share one pair: they are the servers
    that the others know by one public key."""
    lines = []
    for role in ROLES:
        if role != "scheduler":
            subprocess.run([TROUPE, "keys", folder / f"{role}.key"], check=True, capture_output=True)
            public = re.search(r'public-key = "(.{40})"', (folder / f"{role}.key.pub").read_text()).group(1)
            lines.append(f"{public} {role}\n")
    (folder / "peers").write_text("".join(lines))


def names_of(service, n):
    """"executor", "executor-2", ...: the processes of a service."""
    return [service if i == 0 else f"{service}-{i + 1}" for i in range(n)]


def service_of(name):
    return name.partition("-")[0]


class Cluster(Server):
    """Redis and one process a service, or as many as `counts` says. Gateways and schedulers listen; with CURVE when
    they do so on tcp. `flags` has further ones for a service."""

    def __init__(self, folder, transport, counts=None, flags=None, model=MODEL):
        super().__init__(folder)
        require_files()
        self.model = model
        self.curve = transport == "tcp"
        if self.curve:
            write_keys(folder)
        at = (
            (lambda name: f"tcp://127.0.0.1:{free_port()}")
            if self.curve
            else (lambda name: f"ipc://{folder}/{name}.sock")
        )
        self.counts, self.flags = counts or {}, flags or {}
        self.endpoints = {name: at(name) for service in ("gateway", "scheduler") for name in self.names(service)}
        self.gateway_endpoint = self.endpoints["gateway"]
        self.redis_port = free_port()
        self.store_port = self.redis_port  # where schedulers look for Redis

    def names(self, service):
        return names_of(service, self.counts.get(service, 1))

    def way(self, caller, name):
        """The endpoint under which a service calls the process `name`."""
        return self.endpoints[name]

    def start_redis(self):
        flags = ["--port", self.redis_port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.start("redis", ["redis-server", *flags, "--dir", self.folder])

        def answers():
            try:
                with socket.create_connection(("127.0.0.1", self.redis_port), 1) as s:
                    s.sendall(b"PING\r\n")
                    return s.recv(16).startswith(b"+PONG")
            except OSError:
                return False

        wait_until(answers, "redis-server answers")

    def start_service(self, name, *flags):
        service = service_of(name)

        def calls(called):
            return [f"--{called}", ",".join(self.way(service, n) for n in self.names(called))]

        flags += tuple(self.flags.get(service, ()))
        if service == "scheduler":
            flags += ("--bus-bind", self.endpoints[name], "--store-url", f"redis://127.0.0.1:{self.store_port}/0")
        elif service == "gateway":
            flags += ("--bus-bind", self.endpoints[name], *calls("scheduler"), "--port", 0)
            flags += ("--served-model-name", MODEL_NAME)
        else:
            flags += tuple(flag for called in CALLERS[service] for flag in calls(called))
        if service in WITH_MODEL:
            flags += ("--model", self.model)
        if service == "executor":
            flags += tuple(weight_cache_flags(self.model))
        if self.curve:
            key = self.folder / ("gateway.key" if service == "scheduler" else f"{service}.key")
            flags += ("--bus-secret-key", key, "--bus-server-key", self.folder / "gateway.key.pub")
            flags += ("--bus-peers", self.folder / "peers") if service in ("gateway", "scheduler") else ()
        return self.troupe(service, *flags, name=name)

    def start_all(self):
        self.start_redis()
        for service in ("scheduler", "gateway", *CALLERS):
            for name in self.names(service):
                self.start_service(name)
        return self.wait_ready(self.processes["gateway"])
