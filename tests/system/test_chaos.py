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
    try:
        yield chaos.Trial(folder, SEED, STREAMS, proxied=True, freeze_s=FREEZE_S, n_seeds=1)
    finally:
        chaos.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


def test_what_is_killed_frozen_or_cut_off_changes_no_answer(trial):
    def strike(c):
        c.strike_processes(len(chaos.VICTIMS) * len(chaos.SIGNALS), pause_s=0.7)
        for what in chaos.REDIS_FAULTS:
            c.strike_redis(what, hold_s=0.5)
        c.strike_links(len(chaos.LINK_FAULTS) * 2, pause_s=0.5)

    trial.under_load(strike)
    lines, wrong = trial.finish()
    print("\n".join(lines))
    assert not wrong, "\n".join(wrong)
    assert sum(trial.chaos.restarts.values()) == len(chaos.VICTIMS) * 2 + 1
