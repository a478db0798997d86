"""Spans of every service reach a collector, fit together, and a collector that is dead or hangs changes nothing."""

import json
import re
import shutil
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import conftest
import processes
import pytest
from troupe_bus import Client

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SECRET = "Xylophone"
SLACK_NS = 2_000_000  # clocks of a process are read one after the other
PHASES = {
    "tokenize": "troupe-tokenizer",
    "queue": "troupe-scheduler",
    "prefill": "troupe-scheduler",
    "decode": "troupe-scheduler",
    "postprocess": "troupe-postprocessor",
}


class Collector:
    """Takes POST /v1/traces on a free port. `answer` is the status, or None to never answer."""

    def __init__(self):
        self.answer, self.bodies, self.n_asked = 200, [], 0
        self.closing = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.n_asked += 1
                status = collector.answer
                if status is None:
                    collector.closing.wait()
                    return
                if status == 200:
                    assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/json"
                    collector.bodies.append(body)
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def spans(self, trace=None):
        """Every span that came, with the resource that it came under."""
        found = []
        for body in list(self.bodies):
            for group in json.loads(body)["resourceSpans"]:
                resource = attributes(group["resource"])
                for scope in group["scopeSpans"]:
                    assert scope["scope"]["name"] == "troupe"
                    found += [{**span, "resource": resource} for span in scope["spans"]]
        return [s for s in found if trace is None or s["traceId"] == trace]

    def wait_for(self, trace, names):
        names = sorted(names)
        processes.wait_until(
            lambda: sorted(s["name"] for s in self.spans(trace)) == names,
            f"spans {names}; there are {[(s['name'], s['traceId']) for s in self.spans()]}",
            20,
        )
        return {s["name"]: s for s in self.spans(trace)}


def attributes(holder):
    values = {}
    for item in holder["attributes"]:
        ((kind, value),) = item["value"].items()
        if kind == "intValue":
            assert isinstance(value, str)  # 64 bits
            value = int(value)
        elif kind == "arrayValue":
            value = [v["stringValue"] for v in value["values"]]
        values[item["key"]] = value
    return values


def times(span):
    return int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])


@pytest.fixture
def collector():
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def traced():
    """A cluster whose processes all export, and the collector."""
    made = Collector()

    class Traced(processes.Cluster):
        def troupe(self, command, *flags, **options):
            own = ("--otlp-endpoint", made.url, "--log-level", "debug", "--log-format", "json")
            return super().troupe(command, *flags, *own, **options)

    folder = Path(tempfile.mkdtemp(prefix="troupe-"))
    cluster = Traced(folder, "ipc")
    try:
        cluster.start_all()
        yield cluster, made
        cluster.stop()
    finally:
        conftest.kill_all(cluster)
        shutil.rmtree(folder, ignore_errors=True)
        made.close()


def ask(server, traceparent=None, **options):
    body = {"model": processes.MODEL_NAME, "prompt": f"{SECRET} is", "max_tokens": 8, "temperature": 0, **options}
    headers = {"traceparent": traceparent} if traceparent else {}
    return server.post("/v1/completions", json={"ignore_eos": True, **body}, headers=headers)


def test_the_spans_of_a_request_fit_together(traced):
    cluster, collector = traced
    before_ns = time.time_ns()
    answer = ask(cluster, f"00-{TRACE}-{PARENT}-01", stop=["no such text"]).json()
    spans = collector.wait_for(TRACE, ["completion", *PHASES])
    after_ns = time.time_ns()
    root = spans["completion"]
    assert root["parentSpanId"] == PARENT and root["kind"] == 2 and root["status"] == {}
    assert root["resource"]["service.name"] == "troupe-gateway"
    said = attributes(root)
    assert said["gen_ai.operation.name"] == "text_completion"
    assert said["gen_ai.request.model"] == processes.MODEL_NAME
    assert said["gen_ai.response.id"] == answer["id"]
    assert said["gen_ai.response.finish_reasons"] == ["length"]
    assert said["gen_ai.usage.input_tokens"] == answer["usage"]["prompt_tokens"]
    assert said["gen_ai.usage.output_tokens"] == answer["usage"]["completion_tokens"] == 8
    assert said["http.response.status_code"] == 200 and said["troupe.attempts"] == 1
    assert [e["name"] for e in root["events"]] == ["first token"]
    start, end = times(root)
    assert before_ns - SLACK_NS <= start < end <= after_ns + SLACK_NS
    for name, service in PHASES.items():
        span = spans[name]
        assert span["parentSpanId"] == root["spanId"] and span["kind"] == 1, name
        assert span["resource"]["service.name"] == service
        began, ended = times(span)
        assert start - SLACK_NS <= began <= ended, name
        if name != "postprocess":  # which closes its stream behind its last word
            assert ended <= end + SLACK_NS, name
    assert len({s["spanId"] for s in spans.values()}) == len(spans)
    assert len({s["resource"]["process.pid"] for s in spans.values()}) == 4
    assert times(spans["queue"])[1] == times(spans["prefill"])[0]
    assert times(spans["prefill"])[1] == times(spans["decode"])[0]
    assert times(spans["tokenize"])[1] <= times(spans["queue"])[0] + SLACK_NS
    assert attributes(spans["prefill"])["gen_ai.usage.input_tokens"] == answer["usage"]["prompt_tokens"]
    assert attributes(spans["decode"])["gen_ai.usage.output_tokens"] == 8
    run = attributes(spans["queue"])["troupe.run"]
    for name in ("gateway", "tokenizer", "scheduler", "postprocessor"):
        lines = [line for line in cluster.processes[name].lines() if line.get("run") == run]
        assert lines and {line.get("trace", TRACE) for line in lines} == {TRACE}, name  # deltas go by their run alone
    assert all(SECRET.encode() not in body for body in collector.bodies)


@pytest.mark.parametrize("header", [None, f"00-{TRACE.upper()}-{PARENT}-01"])
def test_without_a_valid_traceparent_a_new_trace_begins(traced, header):
    cluster, collector = traced
    answer = ask(cluster, header).json()
    found = processes.wait_until(
        lambda: [s for s in collector.spans() if attributes(s).get("gen_ai.response.id") == answer["id"]], "its span"
    )
    (root,) = found
    assert re.fullmatch("[0-9a-f]{32}", root["traceId"]) and root["traceId"] != TRACE and "parentSpanId" not in root
    collector.wait_for(root["traceId"], ["completion", *PHASES])


def test_a_trace_that_is_not_sampled_leaves_no_spans(traced):
    cluster, collector = traced
    quiet, loud = "1" * 32, "2" * 32
    assert ask(cluster, f"00-{quiet}-{PARENT}-00").status_code == 200
    assert ask(cluster, f"00-{loud}-{PARENT}-01").status_code == 200
    collector.wait_for(loud, ["completion", *PHASES])
    assert collector.spans(quiet) == []
    assert any(line.get("trace") == quiet for line in cluster.processes["gateway"].lines())


def test_a_request_that_is_refused_says_so(traced):
    cluster, collector = traced
    trace = "3" * 32
    refused = ask(cluster, f"00-{trace}-{PARENT}-01", max_tokens=9000)
    assert refused.status_code == 400
    root = collector.wait_for(trace, ["completion", "tokenize"])
    assert attributes(root["completion"])["http.response.status_code"] == 400
    assert root["tokenize"]["status"] == {"code": 2}


def test_a_killed_executor_is_an_event_of_the_request(traced):
    cluster, collector = traced
    trace = "4" * 32
    request = {"model": processes.MODEL_NAME, "prompt": "Once", "max_tokens": 60, "ignore_eos": True, "stream": True}
    headers = {"traceparent": f"00-{trace}-{PARENT}-01"}
    with cluster.http.stream("POST", cluster.url + "/v1/completions", json=request, headers=headers) as stream:
        lines = stream.iter_lines()
        next(lines)
        cluster.processes.pop("executor").kill()
        cluster.start_service("executor")
        assert [line for line in lines if line][-1] == "data: [DONE]"
    decode = collector.wait_for(trace, ["completion", *PHASES])["decode"]
    assert [e["name"] for e in decode["events"]] == ["executor lost", "resumed"]


def test_a_bus_client_brings_its_trace_in_the_envelope(traced):
    cluster, collector = traced
    trace = "5" * 32
    with Client(**cluster.bus_options(), timeout=120) as client:
        client.complete("Once", max_tokens=4, ignore_eos=True, traceparent=f"00-{trace}-{PARENT}-01").text()
        with pytest.raises(ValueError, match="traceparent"):
            client.chat([], traceparent=f"00-{trace}")
    root = collector.wait_for(trace, ["request", *PHASES])["request"]
    assert root["parentSpanId"] == PARENT
    assert attributes(root)["gen_ai.usage.output_tokens"] == 4
    assert attributes(root)["gen_ai.operation.name"] == "text_completion"


def test_a_collector_that_hangs_changes_nothing(collector, start_serve):
    collector.answer = None
    server = start_serve("--otlp-endpoint", collector.url)
    first = ask(server).json()["choices"][0]["text"]
    processes.wait_until(lambda: collector.n_asked > 0, "the collector is asked")
    assert ask(server).json()["choices"][0]["text"] == first
    server.wait_idle()
    server.stop()  # in time, with status 0
    assert collector.bodies == []


def test_a_collector_that_comes_back_gets_what_was_kept(collector, start_serve):
    collector.answer = 503
    server = start_serve("--otlp-endpoint", collector.url)
    assert ask(server, f"00-{TRACE}-{PARENT}-01").status_code == 200
    processes.wait_until(lambda: collector.n_asked > 0, "the collector is asked")
    collector.answer = 200
    spans = collector.wait_for(TRACE, ["completion", *PHASES])
    assert {s["resource"]["service.name"] for s in spans.values()} == {"troupe-gateway", *PHASES.values()}
    assert server.metric("troupe_spans_dropped_total") == 0
    processes.wait_until(lambda: server.metric("troupe_spans_exported_total") == len(spans), "they are counted")
    assert ask(server, f"00-{'6' * 32}-{PARENT}-01").status_code == 200
    server.stop()  # sends what is left
    assert {s["name"] for s in collector.spans("6" * 32)} == {"completion", *PHASES}
