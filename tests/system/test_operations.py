"""What an operator relies on: the dump, the rules of Prometheus, the lists of packages."""

import re
import signal
import subprocess
from pathlib import Path

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


def test_prometheus_reads_the_alerts_and_asks_every_service():
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]
    (job,) = PROMETHEUS["scrape_configs"]
    assert all(f'job="{job["job_name"]}"' in rule["expr"] for rule in ALERTS if "up{" in rule["expr"])
    (targets,) = job["dns_sd_configs"]
    services = {name: s["environment"] for name, s in COMPOSE["services"].items() if "TROUPE_ADMIN_PORT" in str(s)}
    assert set(targets["names"]) == set(services)
    assert {str(environment["TROUPE_ADMIN_PORT"]) for environment in services.values()} == {str(targets["port"])}


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
