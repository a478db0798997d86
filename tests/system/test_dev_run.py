"""What README promises first: `./dev run`, and that a second start is quick."""

import subprocess
import time

import processes
import pytest
from openai import OpenAI
from processes import ROOT

QUESTION = "What is the capital of France?"
FIRST_TOKEN_S = 1.0
TRIES = 10  # the quickest counts: others may keep the machine busy


@pytest.fixture(scope="module", autouse=True)
def built():
    """The first run builds, and looks at packages and model."""
    done = subprocess.run([ROOT / "dev", "run", "--help"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    processes.require_files()


def seconds_to_first_token():
    """Of one run that answers well and ends with 0."""
    begin = time.monotonic()
    command = [ROOT / "dev", "run", "--once", QUESTION]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        first = run.stdout.read(1)
        seconds = time.monotonic() - begin
        rest, complaints = run.communicate(timeout=120)
    assert run.returncode == 0, complaints.decode()
    assert "Paris" in (first + rest).decode(), complaints.decode()
    return seconds


def test_a_second_start_takes_less_than_a_second_to_its_first_token():
    seconds = [seconds_to_first_token()]
    while min(seconds) >= FIRST_TOKEN_S and len(seconds) < TRIES:
        seconds.append(seconds_to_first_token())
    assert min(seconds) < FIRST_TOKEN_S, seconds


def test_dev_run_says_when_it_is_ready_and_answers(tmp_path):
    port = processes.free_port()
    name = {"TROUPE_SERVED_MODEL_NAME": "little"}
    server = processes.Process("dev", [ROOT / "dev", "run", "--port", port], tmp_path, name)

    def ready():
        server.assert_alive()
        return f"Ready: curl http://127.0.0.1:{port}/v1/chat/completions" in server.log()

    processes.wait_until(ready, "./dev run says Ready")
    with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
        assert [m.id for m in client.models.list().data] == ["little"]
        question = [{"role": "user", "content": QUESTION}]
        answer = client.chat.completions.create(model="little", messages=question, max_tokens=32, temperature=0)
    assert "Paris" in answer.choices[0].message.content
    server.stop()  # the script became the server: the signal and the status are its own


def test_flags_of_dev_run_are_those_of_the_program():
    helps = [
        subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=120).stdout
        for command in ([ROOT / "dev", "run"], [ROOT / "build/bin/troupe", "serve"])
    ]
    assert helps[0] == helps[1] and "--port" in helps[0]
