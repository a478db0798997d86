"""Kills, freezes and aborts parts of a deployment under load, cuts its links, takes its Redis away, scales it, and
compares every answer with the one that the same request had in peace. The deployment is a cluster of processes, or with
--compose the containers of docker-compose.yml. `./dev chaos` runs it for long, test_chaos.py and test_compose.py
shortly."""

import argparse
import contextlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import history
import load
import processes
from chaos_containers import WORKERS, Containers
from chaos_processes import COUNTS, LINK_FAULTS, REDIS_FAULTS, ChaosCluster
from engine import Engine, what_an_engine_lacks

REACH_S = 1  # a pause belongs to a blow when it began so soon before, or within the deployment's `reach_s` after


class Blow:
    """One thing that was done to the deployment; what is felt of it begins within `reach_s`, or until its end."""

    def __init__(self, where, what, reach_s):
        self.where, self.what, self.reach_s, self.begin, self.end = where, what, reach_s, time.monotonic(), None

    def last(self):
        return self.end if self.reach_s is None else self.begin + self.reach_s


class Chaos:
    """Strikes at seeded random moments; what was killed is started again a moment later."""

    def __init__(self, cluster, load, seed, freeze_s, say):
        self.cluster, self.load = cluster, load
        self.random, self.freeze_s, self.say = random.Random(seed), freeze_s, say
        self.blows, self.restarts, self.menders, self.faults = [], {}, [], []
        self.lock = threading.Lock()
        self.busy = set()  # services with a process that is away

    def note(self, where, what, lasts=False):
        blow = Blow(where, what, None if lasts else self.cluster.reach_s)
        self.blows.append(blow)
        self.say(f"{what} {where}")
        return blow

    def end(self, blow):
        blow.end = time.monotonic()
        if blow.what in self.cluster.restarting:
            with self.lock:
                self.restarts[blow.where] = self.restarts.get(blow.where, 0) + 1

    def later(self, work):
        def and_say_what_went_wrong():
            try:
                work()
            except Exception as fault:  # wait() raises it
                self.faults.append(fault)

        mender = threading.Thread(target=and_say_what_went_wrong)
        mender.start()
        self.menders.append(mender)

    def wait(self):
        for mender in self.menders:
            mender.join()
        self.menders = []
        if self.faults:
            raise self.faults[0]

    def strike(self, service, what):
        while service in self.busy:
            time.sleep(0.05)
        if service == "executor":
            self.wait_for_progress()
        name = self.random.choice(self.cluster.names(service))
        pause_s = self.random.uniform(0.1, 1)
        blow = self.note(service, what)

        def suffer():
            try:
                self.cluster.strike(name, what, self.freeze_s, pause_s)
                self.end(blow)
            finally:
                self.busy.discard(service)

        self.busy.add(service)
        self.later(suffer)

    def strike_instances(self, n, pause_s, blows=None):
        """Each service in turn, each blow in turn, in random orders."""
        plan, blows = [], blows or self.cluster.blows
        while len(plan) < n:
            plan += self.random.sample(blows, len(blows))
        for service, what in plan[:n]:
            time.sleep(self.random.uniform(0.5, 1.5) * pause_s)
            self.strike(service, what)
        self.wait()

    def wait_for_progress(self):
        """A request that is there when executors die, again and again before it gets any further, is taken for the one
        that kills them: on a slow machine that would be us."""
        last = max((b.begin for b in self.blows if b.where == "executor"), default=0)
        processes.wait_until(lambda: self.load.has_gone_on_since(last), "every request has gone on")

    def strike_redis(self, what, hold_s):
        blow = self.note("redis", what)
        self.cluster.strike_redis(what, hold_s)
        self.end(blow)

    def strike_link(self, link, what):
        blow = self.note(" to ".join(link), f"link {what}")

        def hold():
            self.cluster.links.strike(link, what, self.freeze_s)
            self.end(blow)

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

    def scale(self, what, pause_s, **counts):
        """As many of each service as `counts` says; then time for the load."""
        blow = self.note("all", what, lasts=True)
        self.cluster.up(**counts)
        self.end(blow)
        time.sleep(pause_s)


# ---- what it came to -------------------------------------------------------------------------------------------------


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def stalls(blow, results):
    """The longest pause of each stream that the blow found, in seconds."""
    found = []
    for result in results:
        gaps = [(a, b) for a, b in result.gaps() if blow.begin - REACH_S < a < blow.last()]
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
    """A deployment under load, and the judgement of what it wrote. Processes leave no core dumps."""

    def __init__(self, cluster, seed, streams, freeze_s=10, n_seeds=2, kinds=None, say=print):
        self.cluster = cluster
        self.load = load.Load(cluster, streams, seed, n_seeds, kinds)
        self.chaos = Chaos(cluster, self.load, seed, freeze_s, say)
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
        return self.judge()

    def judge(self):
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
    p.add_argument("--compose", action="store_true", help="containers, on an engine of its own; needs root")
    p.add_argument("--kills", type=int, default=200, help="processes that are killed, frozen or aborted (200)")
    p.add_argument("--links", type=int, default=24, help="links that are cut, delayed, muted or half closed (24)")
    p.add_argument("--scales", type=int, default=4, help="times that --compose scales up and down again (4)")
    p.add_argument("--seed", type=int, default=1, help="of the moments and the victims (1)")
    p.add_argument("--streams", type=int, default=32, help="concurrent requests (32)")
    p.add_argument("--freeze", type=float, default=10, metavar="S", help="seconds that a freeze lasts (10)")
    p.add_argument("--pause", type=float, default=2, metavar="S", help="seconds between two blows, in the mean (2)")
    p.add_argument("--schedulers", type=int, default=COUNTS["scheduler"], help="how many (2)")
    p.add_argument("--victims", help="services that are struck, separated by commas (all)")
    kinds = f"{kinds_of(ChaosCluster)}; of containers {kinds_of(Containers)}"
    p.add_argument("--blows", metavar="B,...", help=f"what they suffer: {kinds} (all)")
    p.add_argument("--no-redis", action="store_true", help="leave Redis alone")
    p.add_argument("--keep", action="store_true", help="keep the logs, and say where they are")
    return p.parse_args(arguments)


def kinds_of(deployment):
    return ", ".join(dict.fromkeys(what for _, what in deployment.blows))


def chosen(blows, options):
    """Those of a deployment's blows that the flags want."""
    victims, kinds = (names and names.split(",") for names in (options.victims, options.blows))
    if options.no_redis:
        blows = [(victim, what) for victim, what in blows if victim != "redis"]
    blows = [(v, w) for v, w in blows if (not victims or v in victims) and (not kinds or w in kinds)]
    if not blows and options.kills:
        raise SystemExit("chaos: --victims and --blows leave nothing to do; --help has their names")
    return blows


def strike_processes(chaos, options):
    chaos.strike_instances(options.kills, options.pause, chosen(chaos.cluster.blows, options))
    for what in [] if options.no_redis else REDIS_FAULTS:
        chaos.strike_redis(what, options.pause)
    chaos.strike_links(options.links, options.pause)


def strike_containers(chaos, options):
    chaos.strike_instances(options.kills, options.pause, chosen(chaos.cluster.blows, options))
    for _ in range(options.scales):
        chaos.scale("scaled up", options.pause, **{service: 3 for service in WORKERS})
        chaos.scale("scaled down", options.pause)


def start(folder, options):
    counts = {**COUNTS, "scheduler": options.schedulers}
    if not options.compose:
        return ChaosCluster(folder, counts, options.links > 0).start_all()
    return Containers(options.engine, folder).start_all(**counts)


def run(folder, options, say):
    trial = Trial(start(folder, options), options.seed, options.streams, options.freeze, say=say)
    strike = strike_containers if options.compose else strike_processes
    trial.under_load(lambda chaos: strike(chaos, options))
    return trial.finish()


@contextlib.contextmanager
def engine():
    """A new one; nothing is left of it at the end."""
    lack, new = what_an_engine_lacks(), None
    if lack:
        raise SystemExit(f"chaos: {lack}")
    try:
        new = Engine()
        if not new.start():
            raise SystemExit(f"chaos: dockerd does not start: {new.log()}")
        new.make_images()
        yield new
    finally:
        new.compose("down", "-v", "-t", "1", check=False)
        new.stop()


def main(arguments=None):
    options = parse(arguments)
    folder, begin = Path(tempfile.mkdtemp(prefix="troupe-chaos-")), time.monotonic()

    def say(line):
        print(f"{time.monotonic() - begin:7.1f} s  {line}", file=sys.stderr, flush=True)

    try:
        with engine() if options.compose else contextlib.nullcontext() as options.engine:
            lines, wrong = run(folder, options, say)
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
