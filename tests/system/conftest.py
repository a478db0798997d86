"""Fixtures: servers that are started once and asked by many tests, and servers of a test's own."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "schemas/python"))

import processes  # noqa: E402

LOG_TAIL = 20


@pytest.fixture(scope="session")
def serve(tmp_path_factory):
    server = processes.start_serve(tmp_path_factory.mktemp("serve"))
    yield server
    server.stop()


def run_cluster(transport, **options):
    folder = Path(tempfile.mkdtemp(prefix="troupe-"))  # short: the path of a unix socket has at most 107 bytes
    cluster = processes.Cluster(folder, transport, **options)
    try:
        cluster.start_all()
        yield cluster
        cluster.stop()
    finally:
        kill_all(cluster)
        shutil.rmtree(folder, ignore_errors=True)


def kill_all(server):
    for process in list(server.processes.values()):
        if process in processes.running:
            process.kill()


@pytest.fixture(scope="session")
def cluster():
    """Six processes over tcp with CURVE."""
    yield from run_cluster("tcp")


@pytest.fixture(scope="session")
def ipc_cluster():
    yield from run_cluster("ipc")


@pytest.fixture
def start_serve(tmp_path):
    """Starts a server with flags of the test's own."""
    servers = []

    def start(*flags, **options):
        folder = tmp_path / f"serve-{len(servers)}"
        folder.mkdir()
        servers.append(processes.start_serve(folder, *flags, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for process in processes.running:
            tail = process.log().splitlines()[-LOG_TAIL:]
            report.sections.append((f"last lines of {process.name} (pid {process.popen.pid})", "\n".join(tail)))


def pytest_sessionfinish(session):
    """Whatever a crashed fixture left behind."""
    for process in list(processes.running):
        process.kill()
