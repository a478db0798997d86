"""The command line: help for people, clear errors for mistakes, one question and its answer."""

import subprocess

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
    for command in [*SERVICES, "health", "keys", "version"]:
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
    (["scheduler", "--bus-bind", "ipc:///tmp/x", "--store-url", "mongodb://x"], 1, "mongodb://x"),
    (["health"], 1, "--admin-port"),
    (["health", "--admin-port", "1"], 1, "nobody listens"),
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


def test_health_tells_whether_a_process_is_well(serve):
    port = serve.admin_ports["serve"]
    assert troupe("health", "--admin-port", port).returncode == 0
    assert troupe("health", "--admin-port", processes.free_port()).returncode == 1
