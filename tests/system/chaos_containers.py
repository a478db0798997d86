"""What chaos can do to the deployment of docker-compose.yml: what `docker` can do to containers, and `--scale`."""

import json
import os
import signal
import time

import httpx
import processes
from engine import PROJECT
from processes import ROOT, wait_until

SERVICES = ("gateway", "scheduler", "tokenizer", "executor", "drafter", "postprocessor")
WORKERS = ("executor", "scheduler", "postprocessor", "tokenizer", "drafter")
ENDINGS = ("kill", "crash", "stop", "restart")
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
        self.engine, self.logs = engine, {}
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
        self.url = self.url_of(self.names("gateway")[0])
        wait_until(self.is_ready, "the gateway is ready")
        return self

    def url_of(self, gateway):
        """Where it is published, inside the engine's network."""
        return "http://" + self.engine.docker("port", gateway, "8080").splitlines()[0]

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
        """Off the bus, Redis off its own network, and back with the names that compose gave it."""
        networks = json.loads(self.engine.inspect("{{json .NetworkSettings.Networks}}", container))
        network = next(n for n in (f"{PROJECT}_bus", f"{PROJECT}_store") if n in networks)
        aliases = [word for alias in networks[network]["Aliases"] for word in ("--alias", alias)]
        self.engine.docker("network", "disconnect", network, container)
        time.sleep(hold_s)
        self.engine.docker("network", "connect", *aliases, network, container)

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
