"""The examples of README.md, run as they stand there but for addresses."""

import os
import re
import subprocess
import sys

import processes
from processes import ROOT

README = (ROOT / "README.md").read_text()


def example(language, words):
    """The one block of code in that language with these words in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)
    (found,) = [block for block in blocks if words in block]
    return found


def run(*command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "schemas/python")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl_asks_for_the_capital_of_france(serve):
    command = example("sh", "8080/v1/chat/completions").replace("http://127.0.0.1:8080", serve.url)
    assert serve.url in command and "Paris" in run("bash", "-c", command)


def test_curl_asks_for_embeddings(start_serve):
    server = start_serve(model=ROOT / "tests/data/models/bert")
    command = example("sh", "/v1/embeddings").splitlines()[-1].replace("http://127.0.0.1:8080", server.url)
    assert server.url in command and run("bash", "-c", command).count('"object":"embedding"') == 2


def test_the_openai_package_streams_a_joke(serve):
    program = example("python", "OpenAI(").replace("http://127.0.0.1:8080", serve.url)
    program = program.replace("stream=True", "stream=True, temperature=0")  # else it may say next to nothing
    assert serve.url in program and len(run(sys.executable, "-c", program).split()) > 3


def test_the_python_client_asks_over_the_bus(ipc_cluster):
    program = example("python", "troupe_bus").replace("tcp://127.0.0.1:5570", ipc_cluster.gateway_endpoint)
    told = run(sys.executable, "-c", program)
    assert "Paris" in told and re.search(r"^finish: stop usage: .*completion_tokens", told, re.M), told


def test_front_rules_answer_as_the_example_says(start_serve, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(example("yaml", "opening-hours"))
    server = start_serve("--front-rules", rules)
    question = [{"role": "user", "content": "When are you open?"}]
    answer = server.client().chat.completions.create(model=processes.MODEL_NAME, messages=question)
    assert answer.choices[0].message.content == "We are open from 9 to 17."


def test_every_command_and_flag_that_is_shown_is_one_of_the_program():
    known = run(processes.TROUPE, "help")
    shown = re.findall(r"build/bin/troupe ([a-z]+)([^\n]*)", README)
    assert {command for command, _ in shown} > {"chat", "serve", "scheduler", "gateway"}
    for command, rest in shown:
        assert f"troupe {command} " in known
        flags = set(re.findall(r"(?<=\s)--[a-z-]+", rest)) - {"--help"}
        assert flags <= set(re.findall(r"--[a-z-]+", run(processes.TROUPE, command, "--help"))), (command, rest)
