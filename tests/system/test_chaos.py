"""The short form of ./dev chaos: processes are killed, frozen and aborted, Redis goes away, links are cut, and every
answer is what it would have been. Times are printed, not judged: this machine may be busy."""

import shutil
import tempfile
from pathlib import Path

import chaos
import pytest

STREAMS, SEED = 32, 7
FREEZE_S = 4  # longer than peers wait for heartbeats


@pytest.fixture
def trial():
    folder = Path(tempfile.mkdtemp(prefix="troupe-chaos-"))
    trials = []

    def start(**options):
        trials.append(chaos.Trial(folder, SEED, STREAMS, freeze_s=FREEZE_S, n_seeds=1, **options))
        return trials[0]

    yield start
    chaos.stop_all()
    shutil.rmtree(folder, ignore_errors=True)


def judge(trial):
    lines, wrong = trial.finish()
    print("\n".join(lines))
    assert not wrong, "\n".join(wrong)


def test_killed_frozen_and_aborted_processes_change_no_answer(trial):
    a = trial()
    a.under_load(lambda c: c.strike_processes(len(chaos.VICTIMS) * len(chaos.SIGNALS), pause_s=0.8))
    judge(a)
    assert sum(a.chaos.restarts.values()) == len(chaos.VICTIMS) * 2


def test_a_lost_redis_and_broken_links_change_no_answer(trial):
    a = trial(proxied=True)

    def strike(c):
        for what in chaos.REDIS_FAULTS:
            c.strike_redis(what, hold_s=0.5)
        c.strike_links(10, hold_s=0.5, pause_s=0.4)

    a.under_load(strike)
    judge(a)
