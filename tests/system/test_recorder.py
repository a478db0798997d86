"""The flight recorder: a server is killed, and what it recorded gives the same tokens again."""

import os
import re
import stat
import struct
import subprocess

import processes
import pytest
from processes import wait_until

MESSAGES = [{"role": "user", "content": "Tell me about the sea."}]
REQUESTS = {
    "greedy": {"temperature": 0, "max_tokens": 12},
    "unseeded": {"temperature": 1.0, "max_tokens": 8},
    "choices": {"temperature": 0.8, "seed": 3, "n": 2, "max_tokens": 8},
    "stopped": {"temperature": 0, "max_tokens": 40, "stop": ["sea"]},
}
RECORD_HEAD, FILE_HEAD = 48, 64


def replay(*arguments):
    command = [str(processes.TROUPE), "replay", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert not processes.SANITIZERS.search(done.stderr), done.stderr
    return done


def listed(folder):
    """[(id, prompt tokens, output tokens, finishes)]"""
    done = replay(folder)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    return [(row[0], row[2], int(row[3]), row[4]) for row in rows]


def run_ids(server):
    lines = [line for line in server.processes["serve"].lines() if line["msg"] == "request"]
    return [line["run"] for line in lines]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The folder of a killed server, and {name: run id}."""
    folder = tmp_path_factory.mktemp("recorded")
    server = processes.start_serve(folder, "--record", folder / "log", "--record-bytes", "4M")
    ids = {}
    for name, request in REQUESTS.items():
        server.client().chat.completions.create(model=processes.MODEL_NAME, messages=MESSAGES, **request)
        wait_until(lambda: len(run_ids(server)) == len(ids) + 1, "the request is logged")
        ids[name] = run_ids(server)[-1]
    last = ids["stopped"]
    wait_until(lambda: any(row[0] == last and "none" not in row[3] for row in listed(folder / "log")), "it is written")
    assert any("prompts and answers" in line["msg"] for line in server.processes["serve"].lines())
    server.processes["serve"].kill()
    server.processes = {}
    server.http.close()
    return folder / "log", ids


def test_the_files_are_private_and_the_list_has_every_request(recorded):
    folder, ids = recorded
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert files and all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in files)
    assert all(re.fullmatch(r"serve-[0-9a-f]{16}-\d{6}\.rec", f.name) for f in files)
    rows = {row[0]: row for row in listed(folder)}
    assert set(rows) == set(ids.values())
    assert rows[ids["greedy"]][2:] == (12, "length")
    assert rows[ids["choices"]][2:] == (16, "length,length")


@pytest.mark.parametrize("name", REQUESTS)
def test_a_killed_server_s_request_gives_the_same_tokens(recorded, name):
    folder, ids = recorded
    done = replay(folder, ids[name][:12], "--model", processes.MODEL)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = {"greedy": "same: 12 tokens\n", "choices": "same: 16 tokens of 2 choices\n"}
    assert done.stdout == expected.get(name, done.stdout) and re.match(r"same: [1-9]\d* tokens", done.stdout)


def records_of(data):
    """Offsets and lengths."""
    at = FILE_HEAD
    while at < len(data):
        size = struct.unpack_from("<I", data, at)[0]
        yield at, size
        at += size


def siphash(k0, k1, data):
    """SipHash-2-4, as libllm/base/hash.h has it."""
    mask = (1 << 64) - 1
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def turn(x, n):
        return (x << n | x >> (64 - n)) & mask

    def rounds(n):
        for _ in range(n):
            v[0] = v[0] + v[1] & mask
            v[1] = turn(v[1], 13) ^ v[0]
            v[0] = turn(v[0], 32)
            v[2] = v[2] + v[3] & mask
            v[3] = turn(v[3], 16) ^ v[2]
            v[0] = v[0] + v[3] & mask
            v[3] = turn(v[3], 21) ^ v[0]
            v[2] = v[2] + v[1] & mask
            v[1] = turn(v[1], 17) ^ v[2]
            v[2] = turn(v[2], 32)

    whole = len(data) // 8 * 8
    for (word,) in struct.iter_unpack("<Q", data[:whole]):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    last = int.from_bytes(data[whole:], "little") | (len(data) & 255) << 56
    v[3] ^= last
    rounds(2)
    v[0] ^= last
    v[2] ^= 255
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


CHECKSUM_KEY = 0x7265636F72646572


def change_tokens(folder, run, copy, n_old, old_body_end):
    """Copies the files; in every gen.tokens of `run` whose body ends in `old_body_end` the last byte is flipped."""
    copy.mkdir(mode=0o700)
    n_changed = 0
    for path in folder.iterdir():
        data = bytearray(path.read_bytes())
        for at, size in records_of(data):
            node, peer = data[at + 5], data[at + 6]
            envelope, body = struct.unpack_from("<II", data, at + 32)
            body_at = at + RECORD_HEAD + node + peer + envelope
            content = bytes(data[at:body_at])
            if bytes.fromhex(run) not in content or old_body_end not in data[body_at : body_at + body]:
                continue
            place = data.index(old_body_end, body_at)
            data[place + n_old] ^= 1
            key = struct.unpack_from("<Q", data, at)[0]
            struct.pack_into("<Q", data, at + 8, siphash(CHECKSUM_KEY, key, bytes(data[at + 16 : at + size])))
            n_changed += 1
        (copy / path.name).write_bytes(data)
    return n_changed


def test_a_changed_token_is_found_where_it_is(recorded, tmp_path):
    folder, ids = recorded
    # gen.tokens of index 5: a map with field 2 = 5 and field 3 = a bin of 4 bytes; the token follows.
    mark = bytes([2, 5, 3, 0xC4, 4])
    n = change_tokens(folder, ids["greedy"], tmp_path / "log", len(mark), mark)
    assert n >= 1
    done = replay(tmp_path / "log", ids["greedy"], "--model", processes.MODEL)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.fullmatch(r'differs: choice 0, token 5: recorded \d+ ".*", now \d+ ".*"\n', done.stdout), done.stdout
    recorded_token, now = map(int, re.findall(r"(?:recorded|now) (\d+)", done.stdout))
    assert recorded_token ^ now == 1


def test_another_model_is_told_and_differs(recorded, tmp_path):
    """The same file with some weights changed, near its end: the last layer's, and not enough to change every token."""
    folder, ids = recorded
    data = bytearray(processes.MODEL.read_bytes())
    for i in range(4096, 4096 + 40000):
        data[-i] ^= 0x11
    other = tmp_path / "other.gguf"
    other.write_bytes(data)
    done = replay(folder, ids["greedy"], "--model", other)
    assert "another model" in done.stderr
    assert done.returncode == 1 and re.match(r"differs: choice 0, token \d+: recorded \d+ ", done.stdout), done.stdout


@pytest.mark.parametrize("service", ["gateway", "scheduler", "postprocessor"])
def test_what_one_process_of_a_deployment_recorded(recorded, tmp_path, service):
    """The records of one actor, as its own process would have them. A postprocessor doesn't know what was asked."""
    folder, ids = recorded
    copy = tmp_path / "log"
    copy.mkdir()
    for path in folder.iterdir():
        data = path.read_bytes()
        its = [(at, size) for at, size in records_of(data) if data.startswith(service.encode(), at + RECORD_HEAD)]
        kept = [data[at : at + size] for at, size in its]
        (copy / path.name).write_bytes(data[:FILE_HEAD] + b"".join(kept))
    done = replay(copy, ids["choices"], "--model", processes.MODEL)
    if service == "postprocessor":
        assert done.returncode == 2 and "what was asked is not in the recording" in done.stderr
    else:
        assert (done.returncode, done.stdout) == (0, "same: 16 tokens of 2 choices\n"), done.stderr


def test_a_torn_tail_costs_only_the_last_record(recorded, tmp_path):
    folder, ids = recorded
    copy = tmp_path / "log"
    copy.mkdir()
    last = max(folder.iterdir())
    for path in folder.iterdir():
        data = path.read_bytes()
        (copy / path.name).write_bytes(data[:-3] if path == last else data)
    done = replay(copy)
    assert done.returncode == 0 and "not whole" in done.stderr
    assert ids["greedy"] in done.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "expected a folder"),
        (["/no/such/folder"], "/no/such/folder"),
        ([os.path.dirname(__file__)], "no file of the flight recorder"),
        (["LOG", "ffffffffffffffffffffffffffffffffff", "--model", processes.MODEL], "no such request"),
        (["LOG", "", "--model", processes.MODEL], "several"),
        (["LOG", "GREEDY"], "--model"),
    ],
)
def test_what_cannot_be_replayed_is_said(recorded, arguments, words):
    folder, ids = recorded
    done = replay(*[{"LOG": folder, "GREEDY": ids["greedy"]}.get(a, a) for a in arguments])
    assert done.returncode == 2 and words in done.stderr, done.stderr


def test_a_folder_that_others_may_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    command = [str(processes.TROUPE), "scheduler", "--bus-bind", "ipc:///tmp/troupe-never", "--record", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "others may write" in done.stderr, done.stderr
