"""The command line: help for people, clear errors for mistakes, one question and its answer."""

import os
import resource
import signal
import subprocess
import time

import processes
import pytest

SERVICES = ["serve", "chat", "scheduler", "gateway", "executor", "tokenizer", "postprocessor", "drafter"]


def troupe(*arguments, timeout_s=120, env=None):
    processes.require_files()
    command = [str(processes.TROUPE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, env=env)


@pytest.mark.parametrize("command", SERVICES)
def test_every_command_explains_its_flags(command):
    done = troupe(command, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"troupe {command}: ")
    flags = [line for line in done.stdout.splitlines() if line.startswith("  --")]
    assert len(flags) > 5 and "--log-level" in done.stdout and "TROUPE_LOG_LEVEL" in done.stdout
    names = [line.split()[0] for line in flags]
    assert len(names) == len(set(names)), "a flag is explained twice"
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"]])
def test_the_program_lists_its_commands(arguments):
    done = troupe(*arguments)
    assert done.returncode == 0
    for command in [*SERVICES, "health", "keys", "replay", "version"]:
        assert f"troupe {command}" in done.stdout


def test_version_is_one_line():
    done = troupe("version")
    assert done.returncode == 0 and done.stdout.startswith("troupe ") and len(done.stdout.splitlines()) == 1


MISTAKES = [
    (["frobnicate"], 2, "there is no command frobnicate"),
    (["serve", "--nope"], 1, "--nope"),
    (["serve", "--port", "99999"], 1, "--port"),
    (["serve", "--port", "seven"], 1, "--port"),
    (["serve", "--port"], 1, "--port"),
    (["serve", "--scheduling-policy", "chaotic"], 1, "--scheduling-policy"),
    (["serve", "--log-level", "loud", "--port", "0"], 1, "--log-level loud"),
    (["serve", "--port", "0"], 1, "--model is missing"),
    (["serve", "--port", "0", "--model", "/no/such/file.gguf"], 1, "/no/such/file.gguf"),
    (["serve", "--port", "0", "--model", __file__], 1, "test_cli.py"),
    (["executor", "--scheduler", "ipc://x"], 1, "--model is missing"),
    (["executor", "--model", "x.gguf"], 1, "--bus-secret-key"),
    (["gateway", "--port", "0", "--bus-bind", "tcp://127.0.0.1:9"], 1, "--bus-insecure"),
    (["gateway", "--port", "0", "--bus-bind", "smoke://signals"], 1, "smoke://signals"),
    (["gateway", "--bus-insecure", "--port", "0", "--tls-cert", "a.pem"], 1, "--tls-key"),
    (["serve", "--port", "0", "--bus-bind", "tcp://127.0.0.1:9"], 1, "--bus-insecure"),
    (["scheduler", "--bus-bind", "ipc:///tmp/x", "--store-url", "mongodb://x"], 1, "mongodb://x"),
    (["health"], 1, "--admin-port"),
    (["health", "--admin-port", "1"], 1, "nobody listens"),
    (["serve", "--port", "0", "--record-bytes", "1K"], 1, "--record-bytes"),
    (["replay"], 2, "expected a folder"),
    (["keys"], 1, "the file to write"),
    (["keys", "/no/such/folder/key"], 1, "/no/such/folder/key"),
]


@pytest.mark.parametrize("arguments, status, words", MISTAKES, ids=[" ".join(m[0])[:60] for m in MISTAKES])
def test_a_mistake_is_named_in_one_sentence(arguments, status, words):
    done = troupe(*arguments)
    assert done.returncode == status, done.stderr
    assert words in done.stderr.split("\n\n")[0], done.stderr
    assert not processes.SANITIZERS.search(done.stderr), done.stderr


def test_keys_are_private_and_never_overwritten(tmp_path):
    key = tmp_path / "node.key"
    assert troupe("keys", key).returncode == 0
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    again = troupe("keys", key)
    assert again.returncode == 1 and str(key) in again.stderr
    assert key.read_bytes() == before
    public = (tmp_path / "node.key.pub").read_text()
    assert "public-key" in public and "secret-key" not in public


def test_chat_answers_one_question():
    done = troupe("chat", "--model", processes.MODEL, "--once", "What is the capital of France?")
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert not processes.SANITIZERS.search(done.stderr), done.stderr


NO_TEXT = b"\xff\xfe".decode(errors="surrogateescape")


@pytest.mark.parametrize("flags", [["--once", NO_TEXT], ["--once", "Hi", "--system", NO_TEXT]])
def test_chat_refuses_at_once_what_is_no_text(flags):
    begin = time.monotonic()
    done = troupe("chat", "--model", processes.MODEL, *flags)
    assert done.returncode == 1 and "not UTF-8" in done.stderr, done.stderr
    assert time.monotonic() - begin < 15


def chat_about(tmp_path, turns, *flags):
    processes.require_files()
    (tmp_path / "turns.txt").write_bytes(turns)
    with open(tmp_path / "turns.txt") as source:
        command = [str(processes.TROUPE), "chat", "--model", str(processes.MODEL), "--max-tokens", "8", *flags]
        return subprocess.run(command, stdin=source, capture_output=True, timeout=120)


def test_chat_cuts_a_line_that_is_too_long_between_characters(tmp_path):
    done = chat_about(tmp_path, b"x" * 65535 + "é\n".encode(), "--max-model-len", "256")
    assert b"refused: the prompt leaves no room" in done.stderr, done.stderr  # it was sent


def test_chat_leaves_out_a_line_that_is_no_text(tmp_path):
    done = chat_about(tmp_path, b"\xff\nSay hello.\n")
    assert done.returncode == 0 and b"not UTF-8" in done.stderr and done.stdout.strip(), done.stderr


@pytest.mark.parametrize("last", ["\n", "", "\n/quit\n"])
def test_chat_takes_its_turns_from_a_file(tmp_path, last):
    processes.require_files()
    turns = tmp_path / "turns.txt"
    turns.write_text("Hi there\n\nWhat is the capital of France?" + last)
    with open(turns) as source:
        command = [str(processes.TROUPE), "chat", "--model", str(processes.MODEL), "--max-tokens", "40"]
        done = subprocess.run(command, stdin=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == 2 and "Paris" in answers[1]


@pytest.mark.parametrize("command", ["tokenizer", "serve"])
def test_a_process_that_still_loads_its_model_ends_when_told(tmp_path, command):
    processes.require_files()
    os.mkfifo(tmp_path / "template")  # to be opened for ever
    flags = ["--model", processes.MODEL, "--chat-template", tmp_path / "template"]
    if command == "tokenizer":
        flags += ["--scheduler", f"ipc://{tmp_path}/s", "--gateway", f"ipc://{tmp_path}/g"]
    else:
        flags += ["--port", "0"]
    with subprocess.Popen([processes.TROUPE, command, *flags], stderr=subprocess.DEVNULL) as loading:
        time.sleep(2)
        assert loading.poll() is None
        loading.terminate()
        try:
            assert loading.wait(5) == -signal.SIGTERM
        finally:
            loading.kill()


@pytest.mark.parametrize("soft, hard, warns", [(256, 16384, False), (256, 512, True)])
def test_the_limit_of_open_files_is_raised_or_warned_about(tmp_path, soft, hard, warns):
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    processes.require_files()
    flags = ["--port", "0", "--bus-bind", f"ipc://{tmp_path}/g", "--scheduler", f"ipc://{tmp_path}/s"]
    command = [str(processes.TROUPE), "gateway", "--log-format", "json", *flags]
    with subprocess.Popen(command, preexec_fn=limit, stderr=subprocess.PIPE, text=True) as gateway:
        lines = []
        while not lines or '"listens"' not in lines[-1]:
            lines.append(gateway.stderr.readline())
            assert lines[-1], "it ended"
        limits = open(f"/proc/{gateway.pid}/limits").read()
        gateway.terminate()
    assert f" {hard} " in next(line for line in limits.splitlines() if line.startswith("Max open files"))[:40]
    assert any("limit of open files" in line for line in lines) == warns, lines


def test_health_tells_whether_a_process_is_well(serve):
    port = serve.admin_ports["serve"]
    assert troupe("health", "--admin-port", port).returncode == 0
    assert troupe("health", "--admin-port", port, "--admin-host", "0.0.0.0").returncode == 0
    assert troupe("health", "--admin-port", port, "--admin-host", "127.0.0.2").returncode == 1
    assert troupe("health", "--admin-port", processes.free_port()).returncode == 1
