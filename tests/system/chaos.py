"""Kills, freezes and aborts processes of a cluster under load, cuts its links, takes its Redis away, and compares
every answer with the one that the same request had in peace. `./dev chaos` runs it for long, test_chaos.py shortly."""

import argparse
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import history
import load
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
REACH_S = (1, 0.5)  # a pause belongs to a blow that it began so soon before or after


class ChaosCluster(processes.Cluster):
    """Its links go through proxies when `proxied`."""

    def __init__(self, folder, counts, proxied, log_level="debug"):
        flags = {s: (*FLAGS.get(s, ()), "--log-level", log_level) for s in (*processes.CALLERS, "gateway", "scheduler")}
        super().__init__(folder, "tcp", counts, flags)
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


class Blow:
    """One thing that was done to the cluster."""

    def __init__(self, where, what):
        self.where, self.what, self.begin, self.end = where, what, time.monotonic(), None


class Chaos:
    """Strikes at seeded random moments; what was killed is started again a moment later."""

    def __init__(self, cluster, load, seed, freeze_s, say):
        self.cluster, self.load = cluster, load
        self.random, self.freeze_s, self.say = random.Random(seed), freeze_s, say
        self.blows, self.restarts, self.menders = [], {}, []
        self.lock = threading.Lock()
        self.busy = set()  # services with a process that is away

    def note(self, where, what):
        blow = Blow(where, what)
        self.blows.append(blow)
        self.say(f"{what} {where}")
        return blow

    def later(self, work):
        mender = threading.Thread(target=work)
        mender.start()
        self.menders.append(mender)

    def wait(self):
        for mender in self.menders:
            mender.join()
        self.menders = []

    # ---- processes ----

    def strike_process(self, service, what):
        name = self.random.choice(self.cluster.names(service))
        pause_s = self.random.uniform(0.1, 1)
        process = self.cluster.processes[name]
        blow = self.note(service, what)
        process.popen.send_signal(SIGNALS[what])

        def thaw():
            time.sleep(self.freeze_s)
            process.popen.send_signal(signal.SIGCONT)

        def restart():
            process.popen.wait()
            processes.running.remove(process)
            time.sleep(pause_s)
            self.cluster.start_service(name)
            with self.lock:
                self.restarts[service] = self.restarts.get(service, 0) + 1

        def mend():
            (thaw if what == "freeze" else restart)()
            self.wait_back(name)
            blow.end = time.monotonic()
            self.busy.discard(service)

        self.busy.add(service)
        self.later(mend)

    def wait_back(self, name):
        """Until the process has started and its peers know it."""
        process, since = self.cluster.processes[name], time.monotonic()
        sign = "model loaded" if name.startswith("executor") else "a peer came"
        while sign not in process.log() and time.monotonic() - since < processes.START_S:
            time.sleep(0.1)
        time.sleep(0.3)

    def strike_processes(self, n, pause_s, victims=VICTIMS, signals=tuple(SIGNALS)):
        """Each service in turn, each signal in turn, in random orders."""
        plan = []
        while len(plan) < n:
            plan += self.random.sample([(v, s) for v in victims for s in signals], len(victims) * len(signals))
        for service, what in plan[:n]:
            time.sleep(self.random.uniform(0.5, 1.5) * pause_s)
            while service in self.busy:
                time.sleep(0.05)
            if service == "executor":
                self.wait_for_progress()
            self.strike_process(service, what)
        self.wait()

    def wait_for_progress(self):
        """A request that is there when executors die, again and again before it gets any further, is taken for the one
        that kills them: on a slow machine that would be us."""
        last = max((b.begin for b in self.blows if b.where == "executor"), default=0)
        processes.wait_until(lambda: self.load.has_gone_on_since(last), "every request has gone on")

    # ---- Redis ----

    def redis(self, *words):
        with socket.create_connection(("127.0.0.1", self.cluster.redis_port), 5) as s:
            s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
            answer = s.recv(256)
        assert answer.startswith(b"+OK"), answer

    def strike_redis(self, what, hold_s):
        process = self.cluster.processes["redis"]
        blow = self.note("redis", what)
        if what == "redis killed":
            process.kill()
            time.sleep(hold_s)
            self.cluster.start_redis()
            self.restarts["redis"] = self.restarts.get("redis", 0) + 1
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
        blow.end = time.monotonic()

    # ---- links ----

    def strike_link(self, link, what):
        blow = self.note(" to ".join(link), f"link {what}")

        def hold():
            self.cluster.links.strike(link, what, self.freeze_s)
            blow.end = time.monotonic()

        self.later(hold)

    def strike_links(self, n, pause_s):
        plan = []
        while len(plan) < n:
            pairs = [(link, what) for link in self.cluster.links.names() for what in LINK_FAULTS]
            plan += self.random.sample(pairs, len(pairs))
        for link, what in plan[:n]:
            time.sleep(self.random.uniform(0.5, 1.5) * pause_s)
            self.strike_link(link, what)
        self.wait()


# ---- what it came to -------------------------------------------------------------------------------------------------


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def stalls(blow, results):
    """The longest pause of each stream that the blow found, in seconds."""
    found = []
    for result in results:
        gaps = [(a, b) for a, b in result.gaps() if -REACH_S[0] < a - blow.begin < REACH_S[1]]
        touched = [b - a for a, b in gaps if b > blow.begin]
        found += [max(touched)] if touched else []
    return found


def during(blow, results):
    return [r for r in results if r.begin < (blow.end or r.begin) and r.end > blow.begin]


def table(chaos, results, peace):
    """Lines by place and blow. A failure is counted at each blow that the request saw."""
    head = ("where", "what", "blows", "failed", "changed", "p50 s", "p99 s", "max s")
    rows = []
    for where, what in dict.fromkeys((b.where, b.what) for b in chaos.blows):
        blows = [b for b in chaos.blows if (b.where, b.what) == (where, what)]
        seen = {id(r): r for b in blows for r in during(b, results)}.values()
        waits = [s for b in blows for s in stalls(b, results)]
        numbers = [percentile(waits, share) for share in (0.5, 0.99, 1)]
        faults, changes = sum(bool(r.fault) for r in seen), sum(bool(r.change) for r in seen)
        rows.append((where, what, len(blows), faults, changes, *(f"{n:.2f}" for n in numbers)))
    quiet = [b - a for r in peace for a, b in r.gaps()]
    rows.append(("-", "in peace", 0, 0, 0, *(f"{percentile(quiet, share):.2f}" for share in (0.5, 0.99, 1))))
    widths = [max(len(str(row[i])) for row in (head, *rows)) for i in range(len(head))]
    return ["  ".join(str(cell).ljust(w) for cell, w in zip(row, widths)).rstrip() for row in (head, *rows)]


def report(chaos, results, peace):
    faults, changes = [r for r in results if r.fault], [r for r in results if r.change]
    lines = table(chaos, results, peace)
    lines.append(
        f"{len(results)} requests under {len(chaos.blows)} blows: {len(faults)} failed, {len(changes)} changed; "
        f"restarts: {', '.join(f'{n} {s}' for s, n in sorted(chaos.restarts.items())) or 'none'}"
    )
    lines += [f"FAILED {r.key}: {r.fault}" for r in faults[:20]]
    lines += [f"CHANGED {r.key}: {r.change}" for r in changes[:20]]
    return lines


class Trial:
    """A cluster under load, from its start to the judgement of what it wrote. Its processes leave no core dumps."""

    def __init__(
        self, folder, seed, streams, counts=None, proxied=False, freeze_s=10, n_seeds=2, kinds=None, say=print
    ):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        self.cluster = ChaosCluster(folder, {**COUNTS, **(counts or {})}, proxied).start_all()
        self.load = load.Load(self.cluster.url, streams, seed, n_seeds, kinds)
        self.chaos = Chaos(self.cluster, self.load, seed, freeze_s, say)
        self.peace, self.results = self.load.undisturbed(), []

    def under_load(self, work):
        """Calls work(chaos) while the clients ask, and waits for their last answers."""
        self.load.start()
        try:
            work(self.chaos)
        finally:
            self.results += self.load.stop()

    def finish(self):
        """Everything drained and stopped; the lines of the report and those of what is wrong."""
        self.chaos.wait()
        self.cluster.wait_idle(processes.START_S)
        self.cluster.stop()
        wrong = history.check(self.cluster.folder, [r.answer for r in self.peace + self.results if not r.fault])
        wrong += [f"{r.key}: {r.fault or r.change}" for r in self.results if r.fault or r.change]
        return report(self.chaos, self.results, self.peace), wrong


def stop_all(before=()):
    """Ends every process but those of `before`, which somebody else started."""
    for process in [p for p in processes.running if p not in before]:
        process.popen.send_signal(signal.SIGCONT)
        process.kill()


def parse(arguments):
    p = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    p.add_argument("--kills", type=int, default=200, help="processes that are killed, frozen or aborted (200)")
    p.add_argument("--links", type=int, default=24, help="links that are cut, delayed, muted or half closed (24)")
    p.add_argument("--seed", type=int, default=1, help="of the moments and the victims (1)")
    p.add_argument("--streams", type=int, default=32, help="concurrent requests (32)")
    p.add_argument("--freeze", type=float, default=10, metavar="S", help="seconds that a freeze lasts (10)")
    p.add_argument("--pause", type=float, default=2, metavar="S", help="seconds between two blows, in the mean (2)")
    p.add_argument("--schedulers", type=int, default=COUNTS["scheduler"], help="how many (2)")
    p.add_argument("--victims", default=",".join(VICTIMS), help="services that are struck, separated by commas")
    p.add_argument("--signals", default=",".join(SIGNALS), help="what they get: kill, freeze, abort")
    p.add_argument("--no-redis", action="store_true", help="leave Redis alone")
    p.add_argument("--keep", action="store_true", help="keep the logs, and say where they are")
    return p.parse_args(arguments)


def run(trial, options):
    def strike(chaos):
        chaos.strike_processes(options.kills, options.pause, options.victims.split(","), options.signals.split(","))
        for what in [] if options.no_redis else REDIS_FAULTS:
            chaos.strike_redis(what, options.pause)
        chaos.strike_links(options.links, options.pause)

    trial.under_load(strike)
    return trial.finish()


def main(arguments=None):
    options = parse(arguments)
    folder = Path(tempfile.mkdtemp(prefix="troupe-chaos-"))
    start, trial = time.monotonic(), None

    def say(line):
        print(f"{time.monotonic() - start:7.1f} s  {line}", file=sys.stderr, flush=True)

    try:
        counts = {"scheduler": options.schedulers}
        trial = Trial(folder, options.seed, options.streams, counts, options.links > 0, options.freeze, say=say)
        lines, wrong = run(trial, options)
    finally:
        stop_all()
        if options.keep:
            print(f"logs: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(lines + [f"WRONG {line}" for line in wrong[:40]]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
