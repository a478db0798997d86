"""The script that a person runs: what it says when a server is ready, and when a deployment never will be."""

import os
import re
import select
import socket
import subprocess
import time

import processes
import pytest

DEV = processes.ROOT / "dev"


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False


@pytest.fixture
def first_words():
    """Starts ./dev run and returns what it says up to a line with these words."""
    started = []

    def run(words, *flags, timeout_s=120):
        command = [str(DEV), "run", *map(str, flags)]
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        started.append(running)
        said, end = b"", time.monotonic() + timeout_s
        while words.encode() not in said.rpartition(b"\n")[0]:
            left = end - time.monotonic()
            assert left > 0 and select.select([running.stderr], [], [], left)[0], f"no '{words}' in:\n{said.decode()}"
            piece = os.read(running.stderr.fileno(), 65536)
            assert piece, f"it ended; no '{words}' in:\n{said.decode()}"
            said += piece
        return said.decode()

    yield run
    for running in started:
        running.terminate()
        running.wait(60)
        running.stderr.close()


HELLO = """/v1/chat/completions --json '{"messages": [{"role": "user", "content": "Hello"}]}'"""


def test_run_says_when_it_is_ready(first_words):
    port = processes.free_port()
    said = first_words("Ready: ", "--host", "0.0.0.0", "--port", port)
    assert f"Ready: curl http://127.0.0.1:{port}{HELLO}\n" in said


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_run_says_an_ipv6_address_as_a_url_has_it(first_words):
    port = processes.free_port()
    assert f"Ready: curl http://[::1]:{port}{HELLO}\n" in first_words("Ready: ", "--host", "::1", "--port", port)


def test_run_asks_over_tls_when_it_serves_that(first_words, tmp_path):
    port = processes.free_port()
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subprocess.run([*make, *files], check=True, capture_output=True)
    tls = ["--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem"]
    said = first_words("Ready: ", "--port", port, *tls)
    assert f"Ready: curl --insecure https://127.0.0.1:{port}{HELLO}\n" in said


def test_run_on_any_free_port_says_which(first_words):
    said = first_words("listens", "--port", 0, "--log-format", "json")
    assert re.search(r'"msg":"listens",.*"port":[1-9]', said)


def test_up_gives_up_and_shows_what_runs(tmp_path):
    scripts = {"docker": "exit 1", "docker-compose": 'echo "compose did: $*"'}
    for name, what in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{what}\n")
        (tmp_path / name).chmod(0o755)
    settings = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TROUPE_IMAGE": "none", "TROUPE_UP_WAIT": "1"}
    settings["TROUPE_PUBLISHED_PORT"] = str(processes.free_port())
    command = [str(DEV), "up"]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "compose did: up -d" in done.stdout
    assert "compose did: ps" in done.stderr and "compose did: logs --no-color --tail=20" in done.stderr
    assert "not ready after 1 s" in done.stderr.splitlines()[-1]
