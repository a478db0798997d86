"""Reads what clients and services wrote, and says what can't be true of a system that neither loses nor doubles."""

import json
from datetime import datetime

LOG_BURST = 20  # lines of one kind that a service logs in a second at most, but for those for debugging


def lines_of(folder):
    """{file: JSON lines} of every log; a killed process may leave a last line that is cut."""
    logs = {}
    for path in sorted(folder.glob("*.log")):
        lines = logs[path.name] = []
        for line in path.read_text(errors="replace").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
    return logs


def check(folder, answers):
    logs = lines_of(folder)
    gateways = [line for name, lines in logs.items() if name.startswith("gateway") for line in lines]
    return [
        *check_ends(gateways, answers),
        *check_indices(gateways),
        *check_epochs(logs),
    ]


def check_ends(gateways, answers):
    """Each request has one terminal event at the gateway, and each client one answer."""
    ends = {}
    for line in gateways:
        if line["msg"] == "request":
            ends.setdefault(line["id"], []).append(line)
    wrong = [f"request {i} ended {len(lines)} times" for i, lines in ends.items() if len(lines) != 1 and i != "-"]
    times = sorted(datetime.fromisoformat(line["ts"].rstrip("Z")) for lines in ends.values() for line in lines)
    was_cut = any((b - a).total_seconds() < 2 for a, b in zip(times, times[LOG_BURST - 1 :]))
    seen = set()
    for answer in answers:
        if answer.id in seen:
            wrong.append(f"two clients have the answer {answer.id}")
        seen.add(answer.id)
        if answer.id not in ends:
            if not was_cut:
                wrong.append(f"answer {answer.id} has no line in the gateway's log")
        elif answer.usage and ends[answer.id][0]["completion_tokens"] != answer.usage["completion_tokens"]:
            wrong.append(f"answer {answer.id}: the gateway and its client count tokens differently")
    return wrong


def check_indices(gateways):
    """What the gateway took of a choice is contiguous, ends once, and never comes from an attempt before the last."""
    wrong, choices = [], {}
    for line in gateways:
        if line["msg"] != "took a delta" or line["prompt"]:
            continue
        if "dropped" in line:
            wrong.append(f"{line['dropped']} lines are missing from the gateway's log")
        key = (line["run"], line["choice"])
        index, attempt, ended = choices.get(key, (0, 0, False))
        if ended:
            wrong.append(f"choice {key} went on after its end")
        if line["attempt"] < attempt:
            wrong.append(f"choice {key}: attempt {line['attempt']} was heard after attempt {attempt}")
        if line["index"] != index:
            wrong.append(f"choice {key} goes on at {line['index']}, {index} tokens are there")
        choices[key] = (line["index"] + line["tokens"], line["attempt"], line["finish"] != "none")
    return wrong


def check_epochs(logs):
    """Nobody obeys an old lease of a scheduler after a newer one."""
    wrong = []
    for name, lines in logs.items():
        newest = {}
        for line in lines if name.startswith("executor") else []:
            if line["msg"] != "obeys a scheduler":
                continue
            before = newest.get(line["node"], 0)
            if line["epoch"] < before:
                wrong.append(f"{name} obeyed epoch {line['epoch']} of {line['node']} after {before}")
            newest[line["node"]] = max(before, line["epoch"])
    return wrong
