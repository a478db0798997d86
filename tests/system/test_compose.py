"""The deployment as an operator starts it: docker-compose.yml on an engine of this test's own, with images made from
the release build. No engine that was here before is ever asked anything."""
import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from openai import OpenAI

import processes
from processes import ROOT, wait_until

SERVICES = {"gateway", "tokenizer", "scheduler", "executor", "drafter", "postprocessor"}
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
URL = "http://127.0.0.1:8080"  # inside the engine's network
IMAGE, REDIS_IMAGE = "troupe:compose-test", "troupe-redis:compose-test"


def test_only_the_gateway_is_published_unless_asked_and_only_on_loopback():
    published = {name: s["ports"] for name, s in COMPOSE["services"].items() if "ports" in s}
    assert [name for name in published if "profiles" not in COMPOSE["services"][name]] == ["gateway"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_prometheus_is_asked_for_and_reaches_what_it_scrapes():
    service = COMPOSE["services"]["prometheus"]
    assert service["profiles"] == ["monitoring"]
    assert set(service["networks"]) == {"bus", "front"}  # an internal network publishes no port
    scraped = yaml.safe_load((ROOT / "ops/prometheus.yml").read_text())["scrape_configs"][0]["dns_sd_configs"][0]
    assert set(scraped["names"]) == SERVICES and scraped["port"] == COMPOSE["x-environment"]["TROUPE_ADMIN_PORT"]
    files = {v.split(":")[0] for v in service["volumes"] if v.startswith("./")}
    assert files == {"./ops/prometheus.yml", "./ops/alerts.yml"}


def test_the_bus_and_the_store_have_no_way_out():
    assert all(COMPOSE["networks"][name]["internal"] for name in ("bus", "store"))
    for name in SERVICES - {"gateway"}:
        assert "front" not in COMPOSE["services"][name]["networks"], name


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_a_service_has_no_more_rights_than_it_needs(name):
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    own = {"prometheus": "65534:65534", "grafana": "472:0"}  # those of their images
    assert service["user"] == own.get(name, "10001:10001")
    assert not {"privileged", "cap_add", "container_name", "pid", "ipc"} & set(service)


def test_a_service_reads_no_other_services_secret_key():
    for name in SERVICES:
        keys = [v for v in COMPOSE["services"][name]["volumes"] if v.startswith("keys-")]
        assert keys == [f"keys-{'server' if name in ('gateway', 'scheduler') else name}:/keys:ro"]


def test_every_setting_in_the_file_is_a_flag_of_its_service():
    for name in SERVICES:
        known = subprocess.run([processes.TROUPE, name, "--help"], check=True, capture_output=True, text=True).stdout
        settings = {v for v in COMPOSE["services"][name]["environment"] if v.startswith("TROUPE_")}
        assert settings <= set(re.findall(r"TROUPE_[A-Z_]+", known)), name


def test_docker_compose_takes_the_file():
    command = compose_command()
    if not command:
        pytest.skip("neither docker-compose nor docker compose is installed")
    done = subprocess.run([*command, "config"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert SERVICES <= set(yaml.safe_load(done.stdout)["services"])


# ---- on a real engine ------------------------------------------------------------------------------------------------


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


CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def enter_network(path):
    with open(path) as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")


class Engine:
    """A Docker daemon with folders, a socket and a network namespace of its own: nothing that it does to addresses,
    bridges and packet filters reaches this machine's."""

    def __init__(self, folder):
        self.folder = folder
        self.socket = f"unix://{folder}/docker.sock"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "COMPOSE_", "TROUPE_"))}
        self.environment.update(DOCKER_HOST=self.socket, COMPOSE_PROJECT_NAME="troupetest", TROUPE_IMAGE=IMAGE,
                                REDIS_IMAGE=REDIS_IMAGE)
        self.daemon = None

    def start(self):
        (self.folder / "daemon.json").write_text("{}")
        flags = ["--data-root", "data", "--exec-root", "exec", "--pidfile", "pid", "--config-file", "daemon.json"]
        flags = [str(self.folder / f) if i % 2 else f for i, f in enumerate(flags)]
        with open(self.folder / "dockerd.log", "wb") as log:
            inside = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec dockerd "$@"', "dockerd"]
            self.daemon = subprocess.Popen([*inside, "-H", self.socket, *flags], stdout=log, stderr=log,
                                           env=self.environment)

        def answers():
            return self.daemon.poll() is not None or self.run("docker", "info", check=False).returncode == 0

        wait_until(answers, "dockerd answers", 60, 0.2)
        return self.daemon.poll() is None

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

    def compose(self, *arguments, **options):
        return self.run(*compose_command(), *arguments, **options)

    def containers(self, service):
        return self.compose("ps", "-q", service).stdout.split()

    def inspect(self, container, template):
        return self.run("docker", "inspect", "-f", template, container).stdout.strip()

    def stop(self):
        if self.daemon and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                self.daemon.wait(60)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()

    def log(self):
        return (self.folder / "dockerd.log").read_text(errors="replace")[-3000:]


@pytest.fixture(scope="module")
def engine():
    lack = what_an_engine_lacks()
    if lack:
        pytest.skip(lack)
    folder = Path(tempfile.mkdtemp(prefix="troupe-engine-"))
    own = Engine(folder)
    try:
        if not own.start():
            pytest.skip(f"dockerd does not start on this machine: {own.log()}")
        yield own
    finally:
        own.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def deployment(engine):
    """Everything up and healthy."""
    processes.require_files()
    engine.run("bash", "ops/make_image.sh", IMAGE, REDIS_IMAGE)
    try:
        engine.compose("up", "-d", "--no-build")
        wait_healthy(engine)
        wait_until(lambda: is_ready(engine), "the gateway is ready", 120)
        yield engine
    except BaseException:
        print(engine.compose("logs", "--no-color", "--tail=30", check=False).stdout)
        raise
    finally:
        engine.compose("down", "-v", "-t", "5", check=False)


def is_ready(engine):
    try:
        with engine.network():
            return httpx.get(f"{URL}/ready").status_code == 200
    except httpx.TransportError:
        return False


def wait_healthy(engine):
    def healthy():
        containers = [c for s in SERVICES | {"redis"} for c in engine.containers(s)]
        return all(engine.inspect(c, "{{.State.Health.Status}}") == "healthy" for c in containers)

    wait_until(healthy, "every container is healthy", 180, 0.5)


def ask(engine, question="What is the capital of France?"):
    with engine.network(), OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0, timeout=120) as client:
        answer = client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": question}], max_tokens=24, temperature=0)
    return answer.choices[0].message.content


def test_the_deployment_answers(deployment):
    assert "Paris" in ask(deployment)


def test_the_bus_is_encrypted_and_strangers_are_refused(deployment):
    """A container of the same image without a key that the servers know gets no work."""
    log = deployment.compose("logs", "--no-color", "scheduler", "gateway").stdout
    assert "insecure" not in log
    name = "troupetest-stranger"
    keys = "troupe keys /tmp/key >/dev/null && exec troupe executor --model /models/" + processes.MODEL.name
    deployment.run(
        "docker", "run", "-d", "--name", name, "--network", "troupetest_bus", "--entrypoint", "sh", "--tmpfs", "/tmp",
        "-v", f"{ROOT}/models:/models:ro", "-v", "troupetest_keys-client:/other:ro",
        "-e", "TROUPE_SCHEDULER=tcp://scheduler:5571", "-e", "TROUPE_BUS_SECRET_KEY=/tmp/key",
        "-e", "TROUPE_BUS_SERVER_KEY=/other/server.pub", IMAGE, "-c", keys)
    try:
        wait_until(lambda: "refused a connection" in deployment.compose("logs", "--no-color", "scheduler").stdout,
                   "the scheduler says that it refused a connection", 60)
    finally:
        deployment.run("docker", "rm", "-f", name)


def test_containers_write_nothing_and_are_nobody(deployment):
    for service in SERVICES:
        container = deployment.containers(service)[0]
        assert deployment.inspect(container, "{{.HostConfig.ReadonlyRootfs}} {{.Config.User}}") == "true 10001:10001"
        assert deployment.run("docker", "exec", container, "sh", "-c", "echo x > /x", check=False).returncode != 0


def test_executors_scale(deployment):
    deployment.compose("up", "-d", "--no-build", "--scale", "executor=2")
    try:
        wait_healthy(deployment)
        assert len(deployment.containers("executor")) == 2
        wait_until(lambda: 'msg":"executor joined' in last_log(deployment, "scheduler"), "the second one joined", 60)
        assert "Paris" in ask(deployment)
    finally:
        deployment.compose("up", "-d", "--no-build", "--scale", "executor=1")


def last_log(engine, service):
    return "\n".join(engine.compose("logs", "--no-color", "--tail=5", service).stdout.splitlines())


def test_a_killed_executor_comes_back_and_the_client_notices_nothing(deployment):
    wait_until(lambda: is_ready(deployment), "ready", 60)
    before = ask(deployment)
    pid = deployment.inspect(deployment.containers("executor")[0], "{{.State.Pid}}")
    os.kill(int(pid), signal.SIGKILL)  # as a crash would: `docker kill` would also tell the engine not to restart it
    assert ask(deployment) == before


def test_redis_may_go_away(deployment):
    deployment.compose("kill", "redis")
    try:
        assert "Paris" in ask(deployment)
    finally:
        deployment.compose("start", "redis")


def test_sigterm_ends_every_container_in_time_with_status_0(deployment):
    start = time.monotonic()
    deployment.compose("stop", "-t", "40", *sorted(SERVICES))
    assert time.monotonic() - start < 60
    for service in SERVICES:
        for container in deployment.containers(service):
            assert deployment.inspect(container, "{{.State.ExitCode}}") == "0", service
