"""The memory of a gateway that many clients stream from, idle or slow: `./dev bench clients [N] [--seconds S]`.

Half of the clients read nothing at all, the others a few bytes a second; most of their requests wait in the queue.
Prints the gateway's resident memory before, at its peak, and what that is a client."""

import argparse
import json
import re
import selectors
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "system"))

import processes  # noqa: E402

PROMPT = "Once upon a time, in a small village by the sea,"


def resident_mb(process):
    text = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) / 1024


class Gateway(processes.Cluster):
    """A cluster whose queues have room for all clients."""

    def start_all(self, n):
        self.start_redis()
        self.start_service("scheduler", "--max-num-queued-reqs", 2 * n, "--max-num-queued-tokens", 100 * n)
        room = ["--max-connections-per-peer", 0, "--max-connections", 2 * n]
        room += ["--max-waiting", 2 * n, "--max-requests", 2 * n]
        self.start_service("gateway", *room)
        self.start_service("postprocessor", "--max-num-streams", 2 * n)
        for name in ("executor", "tokenizer", "drafter"):
            self.start_service(name)
        arguments = self.processes["tokenizer"].popen.args  # a scheduler takes 1024 requests of each tokenizer
        at = arguments.index("--admin-port")
        for i in range(n // 1024):
            self.start(f"tokenizer-{i}", arguments[:at] + arguments[at + 2 :])
        return self.wait_ready(self.processes["gateway"])


def connect(port, seed, max_tokens):
    body = {"model": processes.MODEL_NAME, "prompt": PROMPT, "seed": seed, "max_tokens": max_tokens}
    text = json.dumps({**body, "stream": True, "ignore_eos": True})
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n{text}".encode())
    client.setblocking(False)
    return client


def status_of(client):
    try:
        return client.recv(12).decode()[9:] or "closed"
    except BlockingIOError:
        return "none yet"


def measure(cluster, n, seconds, max_tokens):
    gateway = cluster.processes["gateway"]
    port = int(cluster.url.rsplit(":", 1)[1])
    before = peak = resident_mb(gateway)
    clients = [connect(port, i, max_tokens) for i in range(n)]
    readers = selectors.DefaultSelector()
    for client in clients[::2]:
        readers.register(client, selectors.EVENT_READ)
    ended, end = 0, time.monotonic() + seconds
    most = 0
    while time.monotonic() < end:
        for key, _ in readers.select(0):
            if not key.fileobj.recv(16):
                readers.unregister(key.fileobj)
                ended += 1
        peak = max(peak, resident_mb(gateway))
        most = max(most, int(cluster.metric("troupe_num_requests_in_hand")))
        time.sleep(0.5)
    gone = cluster.metric("troupe_gateway_clients_gone_total")
    statuses = {}
    for client in clients[1::2]:
        status = status_of(client)
        statuses[status] = statuses.get(status, 0) + 1
        client.close()
    return {
        "clients": n,
        "in_hand_at_once": most,
        "closed_by_the_server": ended,
        "gone": int(gone),
        "statuses_of_those_that_read_nothing": statuses,
        "resident_mb_before": round(before, 1),
        "resident_mb_peak": round(peak, 1),
        "kb_a_client": round((peak - before) * 1024 / n, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, nargs="?", default=2000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--max-tokens", type=int, default=400)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="troupe-"))
    cluster = Gateway(folder, "ipc")
    try:
        cluster.start_all(arguments.n)
        print(json.dumps(measure(cluster, arguments.n, arguments.seconds, arguments.max_tokens), indent=1))
    finally:
        for process in list(cluster.processes.values()):
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
