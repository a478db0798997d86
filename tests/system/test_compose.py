"""The deployment as an operator starts it: docker-compose.yml on an engine of this test's own, with images made from
the release build. No engine that was here before is ever asked anything."""

import re
import subprocess
import time

import chaos
import processes
import pytest
import yaml
from chaos_containers import Containers
from engine import IMAGE, PROJECT, Engine, compose_command, what_an_engine_lacks
from openai import OpenAI
from processes import ROOT, wait_until

SERVICES = {"gateway", "tokenizer", "scheduler", "executor", "drafter", "postprocessor"}
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SEED, STREAMS, HOLD_S = 7, 4, 2
KINDS = ("greedy", "seeded", "stop and logprobs", "n = 3", "speculative", "not streamed")
BLOWS = ["scheduler kill", "postprocessor cut", "executor crash", "tokenizer restart", "redis kill", "gateway cut"]
BLOWS += ["drafter stop", "executor freeze"]


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


@pytest.fixture(scope="module")
def engine():
    lack = what_an_engine_lacks()
    if lack:
        pytest.skip(lack)
    own = Engine()
    try:
        if not own.start():
            pytest.skip(f"dockerd does not start on this machine: {own.log()}")
        own.make_images()
        yield own
    finally:
        own.stop()


@pytest.fixture(scope="module")
def deployment(engine, tmp_path_factory):
    """Everything up and healthy."""
    engine.environment["TROUPE_PUBLISHED_PORT"] = "8080-8083"  # for more gateways than one
    containers = Containers(engine, tmp_path_factory.mktemp("logs"))
    try:
        yield containers.start_all()
    except BaseException:
        print(engine.compose("logs", "--no-color", "--tail=30", check=False).stdout)
        raise
    finally:
        engine.compose("down", "-v", "-t", "5", check=False)


def ask(deployment, question="What is the capital of France?"):
    options = {"base_url": f"{deployment.url}/v1", "api_key": "none", "max_retries": 0, "timeout": 120}
    with deployment.network(), OpenAI(**options) as client:
        answer = client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": question}], max_tokens=24, temperature=0)
    return answer.choices[0].message.content


def test_the_deployment_answers(deployment):
    assert "Paris" in ask(deployment)


def test_the_bus_is_encrypted_and_strangers_are_refused(deployment):
    """A container of the same image without a key that the servers know gets no work."""
    compose, docker = deployment.engine.compose, deployment.engine.docker
    assert "insecure" not in compose("logs", "--no-color", "scheduler", "gateway").stdout
    name = f"{PROJECT}-stranger"
    keys = "troupe keys /tmp/key >/dev/null && exec troupe executor --model /models/" + processes.MODEL.name
    docker(
        "run", "-d", "--name", name, "--network", f"{PROJECT}_bus", "--entrypoint", "sh", "--tmpfs", "/tmp",
        "-v", f"{ROOT}/models:/models:ro", "-v", f"{PROJECT}_keys-client:/other:ro",
        "-e", "TROUPE_SCHEDULER=tcp://scheduler:5571", "-e", "TROUPE_BUS_SECRET_KEY=/tmp/key",
        "-e", "TROUPE_BUS_SERVER_KEY=/other/server.pub", IMAGE, "-c", keys)
    try:
        wait_until(lambda: "refused a connection" in compose("logs", "--no-color", "scheduler").stdout,
                   "the scheduler says that it refused a connection", 60)
    finally:
        docker("rm", "-f", name)


def test_containers_write_nothing_and_are_nobody(deployment):
    for service in SERVICES:
        container = deployment.names(service)[0]
        shown = deployment.engine.inspect("{{.HostConfig.ReadonlyRootfs}} {{.Config.User}}", container)
        assert shown == "true 10001:10001"
        written = deployment.engine.run("docker", "exec", container, "sh", "-c", "echo x > /x", check=False)
        assert written.returncode != 0


def test_what_is_scaled_killed_frozen_or_cut_off_changes_no_answer(deployment):
    """The short form of `./dev chaos --compose`."""
    trial = chaos.Trial(deployment, SEED, STREAMS, HOLD_S, n_seeds=1, kinds=KINDS)

    def strike(c):
        c.scale("scaled up", 0.5, executor=3, tokenizer=2, scheduler=2, gateway=2)
        assert len({deployment.url_of(gateway) for gateway in deployment.names("gateway")}) == 2
        for blow in BLOWS:
            c.strike(*blow.split())
            time.sleep(0.3)
        c.wait()
        c.scale("scaled down", 0.5)

    trial.under_load(strike)
    deployment.wait_idle()
    deployment.write_logs()
    lines, wrong = trial.judge()
    print("\n".join(lines))
    assert not wrong, "\n".join(wrong)
    assert all(len(deployment.names(service)) == 1 for service in SERVICES)


def test_sigterm_ends_every_container_in_time_with_status_0(deployment):
    deployment.stop()
