"""The examples of schemas/python/examples, in the places that they are made for."""

import json
import os
import subprocess
import sys

import processes
import pytest
from processes import ROOT
from troupe_bus import Client, Worker

EXAMPLES = ROOT / "schemas/python/examples"
STORY = "Once upon a time, in a small village by the sea,"
ADDRESSES = ("ann@example.org", "bob@example.com")
LETTER = "Write to ann@example.org or bob@example.com.\n" * 3 + "Write to"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A deployment over tcp with CURVE whose drafter and postprocessor are the examples."""
    cluster = processes.Cluster(tmp_path_factory.mktemp("examples"), "tcp")
    cluster.start_redis()
    for name in ("scheduler", "gateway", "tokenizer", "executor"):
        cluster.start_service(name)
    start_drafter(cluster)
    start_filter(cluster)
    yield cluster.wait_ready(cluster.processes["gateway"])
    cluster.stop()


def start_drafter(cluster):
    start_example(cluster, "drafter", "drafter.py")


def start_filter(cluster):
    asks = ("--gateway", cluster.gateway_endpoint, "--client-key-file", cluster.folder / "client.key")
    start_example(cluster, "postprocessor", "filter.py", *asks)


def start_example(cluster, role, script, *flags):
    keys = ("--key-file", cluster.folder / f"{role}.key", "--server-key-file", cluster.folder / "gateway.key.pub")
    command = [sys.executable, EXAMPLES / script, "--scheduler", cluster.endpoints["scheduler"], *flags, *keys]
    cluster.start(role, command, env={**os.environ, "PYTHONPATH": str(ROOT / "schemas/python")})


@pytest.fixture(scope="module")
def client(mixed):
    with Client(**mixed.bus_options(), timeout=120) as c:
        yield c


def test_the_drafter_drafts_a_second_answer_from_the_first(mixed, client):
    plain = client.complete(STORY, max_tokens=40, temperature=0).text()
    for _ in range(2):
        answer = client.complete(STORY, max_tokens=40, temperature=0, draft_tokens=4)
        assert answer.text() == plain
    verified, right = mixed.metric("troupe_draft_tokens_total"), mixed.metric("troupe_draft_tokens_accepted_total")
    assert verified >= right > 20


@pytest.mark.parametrize("prompt, has_addresses", [(STORY, False), (LETTER, True)])
def test_the_filter_hands_out_what_the_service_does_but_addresses(serve, client, prompt, has_addresses):
    options = {"prompt": prompt, "max_tokens": 24, "temperature": 0}
    usual = serve.client().completions.create(model=processes.MODEL_NAME, **options).choices[0].text
    assert any(address in usual for address in ADDRESSES) == has_addresses
    for address in ADDRESSES:
        usual = usual.replace(address, "[address]")
    pieces = list(client.complete(**options))
    assert "".join(pieces) == usual and len(pieces) > 3


def test_the_filter_ends_each_of_several_choices(client):
    answer = client.complete(STORY, max_tokens=9, seed=4, n=3, ignore_eos=True)
    assert len(set(answer.texts())) == 3 and answer.finish == ["length"] * 3
    assert [u["completion_tokens"] for u in answer.usage] == [9] * 3


def test_an_answer_goes_on_when_the_filter_is_killed(mixed, client):
    whole = client.complete(STORY, max_tokens=200, temperature=0, ignore_eos=True).text()
    answer = iter(client.complete(STORY, max_tokens=200, temperature=0, ignore_eos=True))
    pieces = [next(answer) for _ in range(5)]
    mixed.processes["postprocessor"].kill()
    start_filter(mixed)
    assert "".join([*pieces, *answer]) == whole


def test_a_batch_is_answered_and_goes_on_where_it_was(mixed, tmp_path):
    lines = [{"id": f"a{i}", "prompt": f"{STORY} {i}", "max_tokens": 4, "temperature": 0} for i in range(12)]
    lines.append({"id": "wrong", "prompt": STORY, "max_tokens": 4, "tempreature": 0})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "out.jsonl").write_text(json.dumps({"id": "a3", "text": "it was here"}) + "\n")
    keys = ["--key-file", mixed.folder / "client.key", "--server-key-file", mixed.folder / "gateway.key.pub"]
    command = [EXAMPLES / "batch.py", "--gateway", mixed.gateway_endpoint, *keys]
    subprocess.run(
        [sys.executable, *command, tmp_path / "in.jsonl", tmp_path / "out.jsonl"],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "schemas/python")},
        timeout=120,
    )
    records = {record["id"]: record for record in map(json.loads, (tmp_path / "out.jsonl").open())}
    assert records.keys() == {line["id"] for line in lines} and records["a3"]["text"] == "it was here"
    assert "tempreature" in records["wrong"]["error"]
    assert all(r["text"] and r["finish"] == ["length"] for id_, r in records.items() if id_ not in ("a3", "wrong"))


def test_a_worker_names_what_it_can_not_do():
    with pytest.raises(ValueError, match="no message draft.wish"):
        Worker("drafter", ["tcp://127.0.0.1:1"], {"draft.wish": print})
    with pytest.raises(ValueError, match="need each other"):
        Worker("drafter", ["tcp://127.0.0.1:1"], {}, key_file="x")
