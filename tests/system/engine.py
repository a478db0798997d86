"""A Docker engine of the tests' own, with the deployment of docker-compose.yml in it: images made from the release
build. No engine that was here before is ever asked anything."""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import processes
from processes import ROOT, wait_until

IMAGE, REDIS_IMAGE, PROJECT = "troupe:compose-test", "troupe-redis:compose-test", "troupetest"
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def compose_command():
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    plugin = shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True)
    return ["docker", "compose"] if plugin and plugin.returncode == 0 else None


def what_an_engine_lacks():
    missing = [p for p in ("dockerd", "docker", "debootstrap", "iptables", "containerd", "runc") if not shutil.which(p)]
    if os.geteuid() != 0:
        return "an engine of the test's own needs root"
    if missing or not compose_command():
        return f"an engine of the test's own needs {', '.join(missing or ['docker-compose'])}"
    return None


def enter_network(path):
    with open(path) as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")


class Engine:
    """A Docker daemon with folders, a socket and a network namespace of its own: nothing that it does to addresses,
    bridges and packet filters reaches this machine's."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="troupe-engine-"))
        self.socket = f"unix://{self.folder}/docker.sock"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "COMPOSE_", "TROUPE_"))}
        self.environment.update(
            DOCKER_HOST=self.socket, COMPOSE_PROJECT_NAME=PROJECT, TROUPE_IMAGE=IMAGE, REDIS_IMAGE=REDIS_IMAGE
        )
        self.daemon = None

    def start(self):
        """Whether it runs; its log says why not."""
        (self.folder / "daemon.json").write_text("{}")
        flags = ["--data-root", "data", "--exec-root", "exec", "--pidfile", "pid", "--config-file", "daemon.json"]
        flags = [str(self.folder / f) if i % 2 else f for i, f in enumerate(flags)]
        with open(self.folder / "dockerd.log", "wb") as log:
            inside = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec dockerd "$@"', "dockerd"]
            self.daemon = subprocess.Popen(
                [*inside, "-H", self.socket, *flags], stdout=log, stderr=log, env=self.environment
            )

        def answers():
            return self.daemon.poll() is not None or self.run("docker", "info", check=False).returncode == 0

        wait_until(answers, "dockerd answers", 60, 0.2)
        return self.daemon.poll() is None

    def make_images(self):
        processes.require_files()
        self.run("bash", "ops/make_image.sh", IMAGE, REDIS_IMAGE)

    @contextmanager
    def network(self):
        """Sockets that this thread makes meanwhile belong to the engine's network, where its loopback is."""
        home = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        with open(home) as back:
            enter_network(f"/proc/{self.daemon.pid}/ns/net")
            try:
                yield
            finally:
                if libc.setns(back.fileno(), CLONE_NEWNET) != 0:
                    os.abort()  # every later test would talk to the wrong network

    def run(self, *command, check=True, timeout=600):
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout}\n{done.stderr}"
        return done

    def docker(self, *arguments, **options):
        return self.run("docker", *arguments, **options).stdout.strip()

    def compose(self, *arguments, **options):
        return self.run(*compose_command(), *arguments, **options)

    def containers(self, service, status=False):
        """Their ids, running or not, in the order of their numbers; with what the engine says of each when asked."""
        shown = '{{.ID}} {{.Label "com.docker.compose.container-number"}} {{.Status}}'
        label = "label=com.docker.compose."
        mine = ["--filter", f"{label}project={PROJECT}", "--filter", f"{label}service={service}"]
        lines = self.docker("ps", "-a", "--no-trunc", *mine, "--format", shown).splitlines()
        parts = sorted((line.split(" ", 2) for line in lines), key=lambda part: int(part[1]))
        found = [(container, said) for container, _, said in parts]
        return found if status else [container for container, _ in found]

    def wait_healthy(self, services):
        def healthy():
            said = [said for service in services for _, said in self.containers(service, status=True)]
            return all("(healthy)" in s for s in said)

        wait_until(healthy, "every container is healthy", 180, 0.3)

    def inspect(self, template, *containers):
        """A line for each."""
        return self.docker("inspect", "-f", template, *containers)

    def stop(self):
        if self.daemon and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                self.daemon.wait(60)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self):
        return (self.folder / "dockerd.log").read_text(errors="replace")[-3000:]
