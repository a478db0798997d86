"""What chaos can do to the deployment of docker-compose.yml: what `docker` can do to containers, and `--scale`."""

import json
import os
import signal
import time

import httpx
import processes
from engine import PROJECT
from processes import ROOT, wait_until

URL = "http://127.0.0.1:8080"  # inside the engine's network
SERVICES = ("gateway", "scheduler", "tokenizer", "executor", "drafter", "postprocessor")
WORKERS = ("executor", "scheduler", "postprocessor", "tokenizer", "drafter")
ENDINGS = ("kill", "crash", "stop", "restart")
NETWORK = {"redis": "store"}  # which one is cut; that of all others is the bus
# Clients are on a gateway's connection: what ends it ends them. What only holds it up must not.
BLOWS = [
    *((service, what) for service in WORKERS for what in (*ENDINGS, "freeze", "cut")),
    *(("gateway", what) for what in ("freeze", "cut")),
    *(("redis", what) for what in ("kill", "freeze", "cut")),
]
OVERRIDE = """version: "3.8"
x-log: &log {logging: {driver: json-file, options: {max-size: 1g}}}
services: {gateway: *log, scheduler: *log, tokenizer: *log, executor: *log, drafter: *log, postprocessor: *log}
"""


class Containers(processes.Server):
    """A deployment on an engine. `folder`, beside the engine's own, gets the containers' logs, also of those that are
    removed."""

    blows, restarting = BLOWS, set(ENDINGS)
    reach_s = 1.5  # a command takes its time

    def __init__(self, engine, folder):
        super().__init__(folder)
        self.engine, self.url, self.logs = engine, URL, {}
        override = engine.folder / "override.yml"
        override.write_text(OVERRIDE)  # no log is cut
        engine.environment.update(COMPOSE_FILE=f"{ROOT}/docker-compose.yml:{override}", TROUPE_LOG_LEVEL="debug")

    def network(self):
        return self.engine.network()

    def up(self, **counts):
        """As many containers of each service as `counts` says, one where it says nothing."""
        scales = [word for service, n in counts.items() for word in ("--scale", f"{service}={n}")]
        self.engine.compose("up", "-d", "--no-build", *scales)
        self.open_logs()
        self.engine.wait_healthy((*SERVICES, "redis"))
        return self

    def start_all(self, **counts):
        self.up(**counts)
        wait_until(self.is_ready, "the gateway is ready")
        return self

    def is_ready(self):
        try:
            with self.network():
                return self.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    def names(self, service):
        return self.engine.containers(service)

    # ---- blows ----

    def strike(self, container, what, freeze_s, pause_s):
        """It is back at the end."""
        docker, since = self.engine.docker, f"{time.time():.3f}"
        if what == "crash":  # after `docker kill` the engine would not start it again
            os.kill(int(self.engine.inspect("{{.State.Pid}}", container)), signal.SIGKILL)
        elif what == "freeze":
            docker("pause", container)
            time.sleep(freeze_s)
            docker("unpause", container)
        elif what == "cut":
            self.cut(container, freeze_s)
        elif what == "restart":
            docker("restart", container)
        else:
            docker(what, container)
            time.sleep(pause_s)
            docker("start", container)
        self.wait_back(container, since if what in ENDINGS else None)

    def cut(self, container, hold_s):
        """Its cable is pulled, and comes back with the names that compose gave it."""
        service = self.engine.inspect('{{index .Config.Labels "com.docker.compose.service"}}', container)
        network = f"{PROJECT}_{NETWORK.get(service, 'bus')}"
        self.engine.docker("network", "disconnect", network, container)
        time.sleep(hold_s)
        self.engine.docker("network", "connect", "--alias", service, "--alias", container[:12], network, container)

    def wait_back(self, container, since):
        """Until it runs, and its peers know it when it was started after `since`."""
        name = self.engine.inspect("{{.Name}}", container)
        sign = "Ready to accept" if "redis" in name else "model loaded" if "executor" in name else "a peer came"

        def is_back():
            said = self.engine.run("docker", "logs", "--since", since, container)
            return sign in said.stdout + said.stderr

        if since:
            wait_until(is_back, f"{name} is back", processes.START_S, 0.2)
        time.sleep(0.3)

    # ---- what they say ----

    def metrics(self):
        with self.network():
            return super().metrics()

    def admin_urls(self):
        address = f"{{{{(index .NetworkSettings.Networks \"{PROJECT}_bus\").IPAddress}}}}"
        containers = [c for service in SERVICES for c in self.names(service)]
        return [f"http://{a}:9100" for a in self.engine.inspect(address, *containers).split()]

    def open_logs(self):
        """Every container's: what is open stays when the container goes."""
        for service in SERVICES:
            for container in self.names(service):
                if container not in self.logs:
                    path = self.engine.inspect("{{.LogPath}}", container)
                    self.logs[container] = (f"{service}.{len(self.logs)}.log", open(path, encoding="utf-8"))

    def write_logs(self):
        """What the services wrote, where history.py looks."""
        for name, log in self.logs.values():
            with log:
                (self.folder / name).write_text("".join(json.loads(line)["log"] for line in log))
        self.logs = {}

    def stop(self):
        """What drains in time ends with status 0."""
        self.engine.compose("stop", "-t", "40", *SERVICES)
        containers = [c for service in SERVICES for c in self.names(service)]
        ends = self.engine.inspect("{{.Name}} {{.State.ExitCode}}", *containers).splitlines()
        self.write_logs()
        assert all(end.endswith(" 0") for end in ends), ends
