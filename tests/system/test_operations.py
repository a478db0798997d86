"""What an operator relies on: dump, Prometheus, dashboard, manifests, lists of packages."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import processes
import pytest
import yaml
from processes import ROOT
from prometheus_client.parser import text_string_to_metric_families

OPS = ROOT / "ops"
PROMETHEUS = yaml.safe_load((OPS / "prometheus.yml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
ALERTS = [rule for group in yaml.safe_load((OPS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]

# ---- looking into a process ------------------------------------------------------------------------------------------


def test_each_request_is_one_line_of_json_in_the_log(serve):
    process = serve.processes["serve"]
    question = [{"role": "user", "content": "What is the capital of France?"}]
    options = {"model": processes.MODEL_NAME, "messages": question, "temperature": 0, "max_tokens": 5}
    answers = [serve.client().chat.completions.create(**options) for _ in range(3)]

    def lines_of(answer):
        return [line for line in process.lines() if line["msg"] == "request" and line["id"] == answer.id]

    processes.wait_until(lambda: all(lines_of(answer) for answer in answers), "each request has its line", 30)
    for answer in answers:
        (line,) = lines_of(answer)
        assert {"ts", "level", "service", "total_ms", "first_ms"} <= set(line)
        wanted = {"what": "chat", "via": "http", "status": 200, "finish": "length", "completion_tokens": 5}
        assert wanted.items() <= line.items() and line["prompt_tokens"] == answer.usage.prompt_tokens


def test_sigusr1_prints_what_every_actor_holds_and_disturbs_nobody(serve):
    process = serve.processes["serve"]
    serve.wait_idle()
    at = len(process.log())
    question = [{"role": "user", "content": "Tell me a very long story."}]
    options = {"model": processes.MODEL_NAME, "messages": question, "temperature": 0, "max_tokens": 150}
    stream = serve.client().chat.completions.create(**options, stream=True, extra_body={"ignore_eos": True})
    n_chunks = sum(1 for _ in [next(stream), next(stream)])
    process.popen.send_signal(signal.SIGUSR1)
    wanted = [
        r"^gateway: 1 requests in hand, ",
        r"^  chat ([0-9a-f]{32}) attempt 0 state \d+, 1 of 1 choices open, \d+ tokens of the first$",
        r"^scheduler: 1 requests, 0 sequences waiting$",
        r"^  executor-[0-9a-f]{16}: 1 running, \d plans in flight, \d+ of \d+ KV blocks free$",
        r"^    choice 0 state \d: \d+ tokens, \d+ computed, ",
        r"^postprocessor: 1 streams$",
        r"^  request ([0-9a-f]{32}) attempt 0 for gateway-[0-9a-f]{16}$",
        r"^    choice 0: \d+ tokens, \d+ held, goes on$",
    ]

    def found():
        return [re.search(pattern, process.log()[at:], re.M) for pattern in wanted]

    processes.wait_until(lambda: all(found()), f"the dump tells all of {wanted}", 30)
    ids = {match.group(1) for match in found() if match.groups()}
    assert len(ids) == 1, "gateway and postprocessor speak of one request"
    n_chunks += sum(1 for _ in stream)
    assert n_chunks > 100, "the answer went on to its end"


def test_nothing_that_a_client_said_is_in_a_log(start_serve, tmp_path):
    (tmp_path / "keys").write_text("key-zanzibar team\n")
    server = start_serve("--log-level", "debug", "--api-key-file", tmp_path / "keys")
    headers = {"authorization": "Bearer key-zanzibar"}
    body = {"model": processes.MODEL_NAME, "max_tokens": 8, "temperature": 0, "stop": ["stopzanzibar"]}
    asked = [
        ("/v1/completions", {**body, "prompt": "zanzibar", "echo": True}, 200),
        ("/v1/chat/completions", {**body, "messages": [{"role": "user", "content": "Repeat: zanzibar"}]}, 200),
        ("/v1/completions", {**body, "prompt": "zanzibar", "temperature": "zanzibar"}, 400),
        ("/zanzibar", body, 404),
    ]
    texts = []
    for path, request, status in asked:
        answer = server.post(path, json=request, headers=headers)
        assert answer.status_code == status, answer.text
        texts.append(answer.text)
    assert "zanzibar" in texts[0], "the answer has it too"
    assert server.post("/v1/completions", json=body, headers={"authorization": "Bearer zanzibarkey"}).status_code == 401
    process = server.processes["serve"]
    process.popen.send_signal(signal.SIGUSR1)
    processes.wait_until(lambda: "postprocessor: 0 streams" in process.log(), "the dump is there", 30)
    assert '"debug"' in process.log() and "zanzibar" not in process.log()


# ---- Prometheus ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def series(serve):
    """{name: labels that some series of it has} of a real answer."""
    labels = {}
    text = serve.http.get(f"http://127.0.0.1:{serve.admin_ports['serve']}/metrics").text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_an_alert_is_about_metrics_that_there_are(series, rule):
    names = set(re.findall(r"\btroupe_\w+", rule["expr"]))
    assert names or "up{" in rule["expr"]
    assert names <= set(series), rule["expr"]
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    given = {"instance", *(c["target_label"] for c in PROMETHEUS["scrape_configs"][0]["relabel_configs"])}
    assert used <= given.union(*(series[name] for name in names))


RUNBOOKS = sorted((OPS / "runbooks").glob("*.md"))
SOURCES = "\n".join(path.read_text() for folder in ("services", "libllm") for path in (ROOT / folder).rglob("*.c"))


@pytest.fixture(scope="module")
def flags():
    commands = ["serve", "gateway", "tokenizer", "scheduler", "executor", "drafter", "postprocessor", "replay"]
    helps = [subprocess.check_output([processes.TROUPE, command, "--help"], text=True) for command in commands]
    return set(re.findall(r"--[a-z][a-z0-9-]+", " ".join(helps)))


@pytest.mark.parametrize("page", RUNBOOKS, ids=[page.stem for page in RUNBOOKS])
def test_a_runbook_names_what_there_is(page, flags):
    text = page.read_text()
    metrics = {name.removesuffix("_bucket") for name in re.findall(r"`(troupe_\w+)", text)}
    assert metrics <= set(re.findall(r'"(troupe_\w+)"', SOURCES))
    assert set(re.findall(r"`(Troupe\w+)`", text)) <= {rule["alert"] for rule in ALERTS}
    assert set(re.findall(r"`(--[a-z][a-z0-9-]+)[` ]", text)) - {"--scale"} <= flags
    lines = re.findall(r'`"([^"`]+)"`', text)
    assert all(re.search(rf'log_\w+\([^;"]*"{re.escape(line)}"', SOURCES) for line in lines), lines
    for other in re.findall(r"\]\(([\w-]+\.md)\)", text):
        assert (page.parent / other).is_file(), other


def test_an_alert_names_the_page_for_it():
    pages = {rule["annotations"]["runbook"] for rule in ALERTS}
    assert pages <= {f"runbooks/{page.name}" for page in RUNBOOKS}


def test_prometheus_reads_the_alerts_and_asks_every_service():
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]
    (job,) = PROMETHEUS["scrape_configs"]
    assert all(f'job="{job["job_name"]}"' in rule["expr"] for rule in ALERTS if "up{" in rule["expr"])
    (targets,) = job["dns_sd_configs"]
    services = {name: s["environment"] for name, s in COMPOSE["services"].items() if "TROUPE_ADMIN_PORT" in str(s)}
    assert set(targets["names"]) == set(services)
    assert {str(environment["TROUPE_ADMIN_PORT"]) for environment in services.values()} == {str(targets["port"])}


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_configuration_and_the_alerts():
    promtool("check", "config", OPS / "prometheus.yml")


# ---- Grafana ---------------------------------------------------------------------------------------------------------

DASHBOARD = json.loads((OPS / "grafana/troupe.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def test_the_dashboard_is_what_its_script_writes():
    script = [sys.executable, OPS / "grafana/make_dashboard.py"]
    written = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    assert (OPS / "grafana/troupe.json").read_text() == written


def test_the_dashboard_is_about_metrics_that_there_are(series, tmp_path):
    assert len(EXPRESSIONS) > 20
    for expression in EXPRESSIONS:
        names = set(re.findall(r"\btroupe_\w+", expression))
        assert names and names <= set(series), expression
    rules = [
        {"record": f"panel:{i}", "expr": expression.replace("$__rate_interval", "1m")}
        for i, expression in enumerate(EXPRESSIONS)
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yml")


# ---- Kubernetes ------------------------------------------------------------------------------------------------------

KUBERNETES = OPS / "kubernetes"


def merged(base, patch):
    """A strategic merge as kustomize makes it: objects by key, lists of named things by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {key: merged(base.get(key), patch.get(key)) for key in [*base, *(k for k in patch if k not in base)]}
    if isinstance(base, list) and isinstance(patch, list) and all("name" in item for item in [*base, *patch]):
        by_name = {item["name"]: item for item in patch}
        own = [merged(item, by_name.pop(item["name"], None)) for item in base]
        return own + list(by_name.values())
    return base if patch is None else patch


def kubernetes_objects():
    """{kind/name: object} of everything that `kubectl apply -k` would send."""
    plan = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    (patch,) = plan["patches"]
    assert patch["target"] == {"kind": "Deployment", "labelSelector": "runs=troupe"}
    container = yaml.safe_load((KUBERNETES / patch["path"]).read_text())
    del container["metadata"]
    objects = {}
    for file in plan["resources"]:
        for item in yaml.safe_load_all((KUBERNETES / file).read_text()):
            patched = item["kind"] == "Deployment" and item["metadata"].get("labels") == {"runs": "troupe"}
            objects[f"{item['kind']}/{item['metadata']['name']}"] = merged(item, container) if patched else item
    return objects


OBJECTS = kubernetes_objects()
RUNNING = {name.split("/")[1]: item for name, item in OBJECTS.items() if name.startswith("Deployment/")}


def container_of(name):
    (container,) = RUNNING[name]["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("name", OBJECTS)
def test_kubernetes_accepts(name):
    kubernetes_validate.validate(OBJECTS[name], "1.31", strict=True)


def test_kubernetes_runs_what_compose_runs():
    services = {name: s for name, s in COMPOSE["services"].items() if name not in ("keys", "prometheus", "grafana")}
    assert set(RUNNING) == set(services)
    for name, service in services.items():
        container = container_of(name)
        command = [str(part) for part in service["command"] if part != "redis-server"]
        assert container["args"] == command, name
        own = {"TROUPE_LOG_LEVEL", "TROUPE_SERVED_MODEL_NAME", "TROUPE_PORT"}  # compose's own choices
        given = {variable["name"] for variable in container.get("env", [])}
        assert set(service.get("environment", {})) - own <= given, name


def test_kubernetes_lets_every_port_through_that_somebody_calls():
    for name, item in OBJECTS.items():
        if not name.startswith("Service/"):
            continue
        ports = {port["name"] for port in container_of(item["spec"]["selector"]["service"])["ports"]}
        assert {port["targetPort"] for port in item["spec"]["ports"]} <= ports, name
    hosts = re.findall(r"(?:tcp|redis)://([a-z-]+):", (KUBERNETES / "workers.yaml").read_text())
    assert hosts and {f"Service/{host}" for host in hosts} <= set(OBJECTS)


def test_keda_scales_by_a_metric_that_there_is(series):
    scaled = yaml.safe_load((KUBERNETES / "executor-scaling.yaml").read_text())
    assert scaled["spec"]["scaleTargetRef"]["name"] in RUNNING
    (trigger,) = scaled["spec"]["triggers"]
    names = set(re.findall(r"\btroupe_\w+", trigger["metadata"]["query"]))
    assert names and names <= set(series)


# ---- packages --------------------------------------------------------------------------------------------------------


def runtime_packages():
    return (OPS / "runtime-packages.txt").read_text().split()


def test_both_ways_to_an_image_install_the_same_packages():
    dockerfile, script = (OPS / "Dockerfile").read_text(), (OPS / "make_image.sh").read_text()
    last_stage = dockerfile.split("\nFROM ")[-1]
    assert "COPY ops/runtime-packages.txt /usr/share/troupe/" in last_stage
    assert "xargs -a /usr/share/troupe/runtime-packages.txt apt-get install" in last_stage
    assert last_stage.count("apt-get install") == 1
    assert 'mapfile -t packages <ops/runtime-packages.txt\nbase troupe "${packages[@]}"' in script
    assert runtime_packages() == sorted(set(runtime_packages()))


def test_the_image_is_built_from_packages_that_dev_installs():
    dockerfile = (OPS / "Dockerfile").read_text()
    lines = re.search(r"apt-get install -y --no-install-recommends (.*?)\nWORKDIR", dockerfile, re.S)
    dev = re.search(r"^BUILD_PACKAGES=\((.*?)\)", (ROOT / "dev").read_text(), re.S | re.M).group(1).split()
    build = lines.group(1).replace("\\\n", " ").split()
    assert build == sorted(build)
    assert set(dev) - set(build) == {"ca-certificates", "ccache", "curl", "python3-venv"}  # for people, not for images
    assert set(build) <= set(dev)


def test_the_runtime_packages_are_those_whose_libraries_the_program_needs():
    needed, loaded = (
        subprocess.run([*command, processes.TROUPE], check=True, capture_output=True, text=True).stdout
        for command in (["readelf", "-d"], ["ldd"])
    )
    names = set(re.findall(r"\(NEEDED\).*\[(.+?)\]", needed))
    places = dict(re.findall(r"^\s*(\S+) => (/\S+)", loaded, re.M))
    assert names <= set(places) | {"ld-linux-x86-64.so.2"}
    found = {path for name in names & set(places) for path in (places[name], str(Path(places[name]).resolve()))}
    found |= {path.removeprefix("/usr") for path in found}  # as packages of before the merge of /lib have it
    owners = subprocess.run(["dpkg", "-S", *sorted(found)], capture_output=True, text=True).stdout
    packages = {line.split(":")[0] for line in owners.splitlines()}
    owned = {line.rsplit(" ", 1)[1].rsplit("/", 1)[1].split(".so")[0] for line in owners.splitlines()}
    assert {name.split(".so")[0] for name in names & set(places)} <= owned
    base = {"libc6", "libgcc-s1", "libasan8", "libubsan1", "libtsan2"}  # in every system; of sanitized builds
    assert packages - base == set(runtime_packages()) - {"ca-certificates"}
