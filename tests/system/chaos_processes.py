"""What chaos can do to a cluster of plain processes: signals, a Redis that goes away, and links through a proxy."""

import resource
import signal
import socket
import time

import processes
from link_proxy import LinkProxies

SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "abort": signal.SIGABRT}
VICTIMS = ["executor", "scheduler", "postprocessor", "tokenizer", "drafter"]
LINK_FAULTS = ["cut", "delay", "mute", "half-close"]
REDIS_FAULTS = ["redis killed", "redis frozen", "redis flushed", "redis full"]
COUNTS = {"scheduler": 2, "executor": 2, "tokenizer": 2, "postprocessor": 2}
FLAGS = {
    "executor": ("--threads", 1, "--kv-cache-memory", "96M"),
    "gateway": ("--resume-wait", 60),  # a loaded machine starts processes slowly
}


class ChaosCluster(processes.Cluster):
    """Its links go through proxies when `proxied`. Processes leave no core dumps."""

    blows = [(victim, what) for victim in VICTIMS for what in SIGNALS]
    restarting = {"kill", "abort", "redis killed"}
    reach_s = 0.5

    def __init__(self, folder, counts=None, proxied=False, log_level="debug"):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        flags = {s: (*FLAGS.get(s, ()), "--log-level", log_level) for s in (*processes.CALLERS, "gateway", "scheduler")}
        super().__init__(folder, "tcp", {**COUNTS, **(counts or {})}, flags)
        self.links = LinkProxies() if proxied else None

    def way(self, caller, name):
        straight = super().way(caller, name)
        if not self.links:
            return straight
        return f"tcp://127.0.0.1:{self.links.port(caller, name, int(straight.rpartition(':')[2]))}"

    def stop(self):
        super().stop()
        if self.links:
            self.links.stop()

    def strike(self, name, what, freeze_s, pause_s):
        """A process; it is back at the end."""
        process = self.processes[name]
        process.popen.send_signal(SIGNALS[what])
        if what == "freeze":
            time.sleep(freeze_s)
            process.popen.send_signal(signal.SIGCONT)
        else:
            process.popen.wait()
            processes.running.remove(process)
            time.sleep(pause_s)
            self.start_service(name)
        self.wait_back(name)

    def wait_back(self, name):
        """Until the process has started and its peers know it."""
        process, since = self.processes[name], time.monotonic()
        sign = "model loaded" if name.startswith("executor") else "a peer came"
        while sign not in process.log() and time.monotonic() - since < processes.START_S:
            time.sleep(0.1)
        time.sleep(0.3)

    # ---- Redis ----

    def redis(self, *words):
        with socket.create_connection(("127.0.0.1", self.redis_port), 5) as s:
            s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
            answer = s.recv(256)
        assert answer.startswith(b"+OK"), answer

    def strike_redis(self, what, hold_s):
        process = self.processes["redis"]
        if what == "redis killed":
            process.kill()
            time.sleep(hold_s)
            self.start_redis()
        elif what == "redis frozen":
            process.popen.send_signal(signal.SIGSTOP)
            time.sleep(hold_s)
            process.popen.send_signal(signal.SIGCONT)
        elif what == "redis flushed":
            self.redis("FLUSHALL")
            time.sleep(hold_s)
        else:
            self.redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
            self.redis("CONFIG", "SET", "maxmemory", "1mb")
            time.sleep(hold_s)
            self.redis("CONFIG", "SET", "maxmemory", "0")
