"""Every option of every command is an environment variable too."""

import re

import processes
import pytest
from test_cli import SERVICES, troupe

NUMBERS = {"N", "S", "SECONDS", "T", "BYTES"}


def options_of(command):
    """{variable: (flag, what its value is called)} as the help tells; None is a switch."""
    text = troupe(command, "--help").stdout
    row = re.compile(r"^  (--\S+)(?: (\S+))?\s.*?\[(?:default \S+; )?(TROUPE_\w+)\]", re.M | re.S)
    found = {variable: (flag, value) for flag, value, variable in row.findall(text)}
    assert len(found) == len(re.findall(r"^  --", text, re.M))
    return found


@pytest.mark.parametrize("command", SERVICES)
def test_every_number_switch_and_choice_is_read_from_its_environment_variable(command):
    """Each is set to what it can't be, and the sentence begins with the variable's name."""
    options = options_of(command)
    for variable, (flag, value) in options.items():
        assert variable == "TROUPE_" + flag[2:].upper().replace("-", "_")
        if not value or value in NUMBERS or "|" in value:
            done = troupe(command, env={variable: "seven!"})
            assert done.returncode == 1 and done.stderr.startswith(f'troupe: {variable}: "seven!" is '), done.stderr


# What a text does when it is read: the command, its value, what else it takes for that, and the words of the complaint.
KEY = {"TROUPE_BUS_BIND": "ipc:///tmp/x"}
GATEWAY = {"TROUPE_PORT": "0", "TROUPE_BUS_BIND": "ipc:///tmp/x", "TROUPE_SCHEDULER": "ipc:///tmp/y"}
MODEL = {"TROUPE_MODEL": str(processes.MODEL), "TROUPE_GATEWAY": "ipc:///tmp/x", "TROUPE_SCHEDULER": "ipc:///tmp/y"}
TEXTS = {
    "TROUPE_ADMIN_HOST": ("drafter", "256.0.0.1", {**MODEL, "TROUPE_ADMIN_PORT": "9"}, "256.0.0.1"),
    "TROUPE_API_KEY_FILE": ("gateway", "/no/keys", GATEWAY, "/no/keys"),
    "TROUPE_BUS_BIND": ("scheduler", "smoke://signals", {}, "smoke://signals"),
    "TROUPE_BUS_PEERS": ("scheduler", "/no/peers", KEY, "/no/peers"),
    "TROUPE_BUS_SECRET_KEY": ("scheduler", "/no/secret", KEY, "/no/secret"),
    "TROUPE_BUS_SERVER_KEY": ("scheduler", "/no/server", KEY, "/no/server"),
    "TROUPE_CHAT_TEMPLATE": ("tokenizer", "/no/template", MODEL, "--chat-template /no/template"),
    "TROUPE_CPU_VARIANT": ("executor", "abacus", MODEL, "abacus"),
    "TROUPE_DEVICE": ("executor", "abacus", MODEL, "abacus"),
    "TROUPE_FRONT_RULES": ("gateway", "/no/rules", GATEWAY, "/no/rules"),
    "TROUPE_GATEWAY": ("tokenizer", "smoke://gateway", {**MODEL, "TROUPE_GATEWAY": ""}, "smoke://gateway"),
    "TROUPE_HOST": ("gateway", "256.0.0.2", GATEWAY, "256.0.0.2"),
    "TROUPE_KV_BIND": ("executor", "smoke://kv", MODEL, "smoke://kv"),
    "TROUPE_KV_OFFLOAD_DIR": ("executor", "/no/folder", {**MODEL, "TROUPE_KV_OFFLOAD_DISK": "64M"}, "/no/folder"),
    "TROUPE_LOG_LEVEL": ("scheduler", "loud", KEY, "--log-level loud"),
    "TROUPE_LOG_LEVEL_FILE": ("scheduler", "/no/level", KEY, "/no/level"),
    "TROUPE_MODEL": ("executor", "/no/model", {**MODEL, "TROUPE_MODEL": ""}, "/no/model"),
    "TROUPE_OTLP_ENDPOINT": ("scheduler", "https://x", KEY, "--otlp-endpoint https://x"),
    "TROUPE_OUTPUT_FILTER": ("postprocessor", "/no/filter", MODEL, "/no/filter"),
    "TROUPE_RECORD": ("scheduler", "/no/recordings/at-all", KEY, "/no/recordings/at-all"),
    "TROUPE_SCHEDULER": ("drafter", "smoke://scheduler", {}, "smoke://scheduler"),
    "TROUPE_STORE_PASSWORD_FILE": ("scheduler", "/no/word", {**KEY, "TROUPE_STORE_URL": "redis://x"}, "/no/word"),
    "TROUPE_STORE_URL": ("scheduler", "mongodb://x", KEY, "mongodb://x"),
    "TROUPE_TLS_CERT": ("gateway", "/no/cert", {**GATEWAY, "TROUPE_TLS_KEY": "/no/key"}, "/no/cert"),
    "TROUPE_TLS_KEY": ("gateway", "/no/key", GATEWAY, "--tls-cert"),
}
# Any text is well; others see to them.
FREE = {"TROUPE_ONCE", "TROUPE_SYSTEM", "TROUPE_SERVED_MODEL_NAME", "TROUPE_WEIGHT_CACHE"}


def test_every_text_is_read_from_its_environment_variable():
    wanted = set()
    for command in SERVICES:
        kinds = {variable: value for variable, (_, value) in options_of(command).items()}
        wanted |= {v for v, value in kinds.items() if value and value not in NUMBERS and "|" not in value}
    assert wanted == set(TEXTS) | FREE
    for variable, (command, text, others, words) in TEXTS.items():
        done = troupe(command, env={**others, variable: text})
        assert done.returncode == 1 and words in done.stderr, (variable, done.stderr)


def test_chat_reads_its_question_from_the_environment():
    question = "What is the capital of France?"
    model = {"TROUPE_MODEL": str(processes.MODEL), "TROUPE_MAX_TOKENS": "32"}
    plain = troupe("chat", env={**model, "TROUPE_ONCE": question})
    told = troupe("chat", env={**model, "TROUPE_ONCE": question, "TROUPE_SYSTEM": "You are a pirate. Say arr."})
    assert plain.returncode == told.returncode == 0, plain.stderr + told.stderr
    assert "Paris" in plain.stdout and told.stdout and told.stdout != plain.stdout
