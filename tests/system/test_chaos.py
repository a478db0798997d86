"""The short form of ./dev chaos: processes are killed, frozen and aborted, Redis goes away, links are cut, and every
answer is what it would have been. Times are printed, not judged: this machine may be busy."""

import json
import shutil
import tempfile
from pathlib import Path

import chaos
import chaos_processes
import history
import load
import processes
import pytest

STREAMS, SEED = 32, 7
FREEZE_S = 4  # longer than peers wait for heartbeats


@pytest.fixture
def trial():
    folder, others = Path(tempfile.mkdtemp(prefix="troupe-chaos-")), list(processes.running)
    try:
        cluster = chaos_processes.ChaosCluster(folder, proxied=True).start_all()
        yield chaos.Trial(cluster, SEED, STREAMS, freeze_s=FREEZE_S, n_seeds=1)
    finally:
        chaos.stop_all(others)
        shutil.rmtree(folder, ignore_errors=True)


def test_what_is_killed_frozen_or_cut_off_changes_no_answer(trial):
    def strike(c):
        c.strike_instances(len(c.cluster.blows), pause_s=0.7)
        for what in chaos_processes.REDIS_FAULTS:
            c.strike_redis(what, hold_s=0.5)
        c.strike_links(len(chaos_processes.LINK_FAULTS) * 2, pause_s=0.5)

    trial.under_load(strike)
    lines, wrong = trial.finish()
    print("\n".join(lines))
    assert not wrong, "\n".join(wrong)
    assert sum(trial.chaos.restarts.values()) == len(chaos_processes.VICTIMS) * 2 + 1


# ---- the judge -------------------------------------------------------------------------------------------------------


def delta(index, attempt=0, tokens=1, finish="none", choice=0):
    line = {"msg": "took a delta", "run": "r", "choice": choice, "prompt": 0}
    return {**line, "attempt": attempt, "index": index, "tokens": tokens, "finish": finish}


def obeys(epoch, node="a"):
    return {"msg": "obeys a scheduler", "node": node, "epoch": epoch}


END = {"msg": "request", "ts": "2026-01-01T00:00:00.123Z", "id": "a", "completion_tokens": 2}
HISTORIES = {  # name: (log, its lines, what is said of them)
    "a resumed answer": ("gateway.0.log", [delta(0), delta(1, attempt=1), delta(2, 1, finish="stop"), END], ""),
    "two choices": ("gateway.0.log", [delta(0), delta(0, choice=1), delta(1), delta(1, choice=1), END], ""),
    "a hole": ("gateway.0.log", [delta(0), delta(2), END], "goes on at 2, 1 tokens are there"),
    "a token twice": ("gateway.0.log", [delta(0), delta(0), END], "goes on at 0, 1 tokens are there"),
    "an old attempt": ("gateway.0.log", [delta(0, 1), delta(1, 0), END], "attempt 0 was heard after attempt 1"),
    "two ends of a choice": ("gateway.0.log", [delta(0, finish="stop"), delta(1, finish="stop"), END], "after its end"),
    "two ends of a request": ("gateway.0.log", [END, END], "ended 2 times"),
    "lines that are missing": ("gateway.0.log", [{**delta(0), "dropped": 7}, END], "7 lines are missing"),
    "a scheduler that follows": ("executor.0.log", [obeys(5), obeys(6), obeys(4, "b"), obeys(6)], ""),
    "a scheduler that is over": ("executor.0.log", [obeys(6), obeys(5)], "obeyed epoch 5 of a after 6"),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_the_history_checker_finds(tmp_path, name):
    log, lines, wanted = HISTORIES[name]
    (tmp_path / log).write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut')
    found = history.check(tmp_path, [])
    assert (found == []) if not wanted else (len(found) == 1 and wanted in found[0]), found


def test_an_answer_without_an_end_in_the_log_is_found(tmp_path):
    answer = load.Answer()
    answer.id, answer.usage = "a", {"completion_tokens": 3}
    (tmp_path / "gateway.0.log").write_text(json.dumps(END) + "\n")
    assert "count tokens differently" in history.check(tmp_path, [answer])[0]
    answer.id = "b"
    assert "no line" in history.check(tmp_path, [answer])[0]
