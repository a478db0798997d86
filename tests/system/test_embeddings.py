"""Embeddings and reranking through real processes, beside what transformers gives (tests/data/models/make_bert.py)."""

import base64
import concurrent.futures
import json
import math
import struct

import conftest
import openai
import processes
import pytest

DATA = processes.ROOT / "tests/data/models"
TOLERANCE = 1e-4


def reference(folder):
    return json.loads((DATA / folder / "reference.json").read_text())


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    server = processes.start_serve(tmp_path_factory.mktemp("encoder"), model=DATA / "bert")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    server = processes.start_serve(tmp_path_factory.mktemp("scorer"), model=DATA / "bert_score")
    yield server
    server.stop()


def embed(server, texts, **options):
    return server.client().embeddings.create(model=processes.MODEL_NAME, input=texts, **options)


def assert_near(found, expected):
    assert len(found) == len(expected)
    assert max(abs(f - e) for f, e in zip(found, expected)) < TOLERANCE


@pytest.mark.parametrize("encoding", ["float", "base64", None], ids=["float", "base64", "the client's default"])
def test_embeddings_are_those_of_transformers(encoder, encoding):
    texts = reference("bert")
    options = {"encoding_format": encoding} if encoding else {}
    answer = embed(encoder, [t["text"] for t in texts], **options)
    assert answer.object == "list" and answer.model == processes.MODEL_NAME
    assert [d.index for d in answer.data] == list(range(len(texts)))
    for datum, text in zip(answer.data, texts):
        found = datum.embedding
        if encoding == "base64":
            found = struct.unpack(f"<{len(base64.b64decode(found)) // 4}f", base64.b64decode(found))
        assert_near(found, text["embedding"])
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(t["n_tokens"] for t in texts)


def test_one_text_and_its_tokens_give_the_same(encoder):
    text = reference("bert")[0]
    assert_near(embed(encoder, text["text"]).data[0].embedding, text["embedding"])
    tokens = encoder.post("/tokenize", json={"prompt": text["text"]}).json()["tokens"]
    answer = embed(encoder, [tokens, tokens[:3]])
    assert_near(answer.data[0].embedding, text["embedding"])
    assert answer.usage.prompt_tokens == len(tokens) + 3
    assert embed(encoder, tokens).data[0].embedding == answer.data[0].embedding


def test_dimensions_are_the_first_ones_at_length_1(encoder):
    text = reference("bert")[0]
    found = embed(encoder, text["text"], dimensions=8).data[0].embedding
    norm = math.hypot(*text["embedding"][:8])
    assert_near(found, [x / norm for x in text["embedding"][:8]])


def test_a_text_has_one_embedding_in_whatever_company(encoder):
    text = reference("bert")[2]["text"]
    alone = embed(encoder, text).data[0].embedding
    many = embed(encoder, [text if i % 3 == 0 else f"the dog {i}" for i in range(300)])
    assert len(many.data) == 300
    assert all(d.embedding == alone for d in many.data if d.index % 3 == 0)


def test_documents_are_ranked_as_transformers_scores_them(scorer):
    expected = reference("bert_score")
    answer = scorer.post("/v1/rerank", json={"query": expected["query"], "documents": expected["documents"]}).json()
    order = sorted(range(3), key=lambda i: -expected["scores"][i])
    assert [r["index"] for r in answer["results"]] == order
    for result in answer["results"]:
        assert abs(result["relevance_score"] - expected["scores"][result["index"]]) < TOLERANCE
        assert result["document"] == {"text": expected["documents"][result["index"]]}
    assert answer["usage"]["prompt_tokens"] == expected["n_tokens"]
    best = {"query": expected["query"], "documents": expected["documents"], "top_n": 1, "return_documents": False}
    assert scorer.post("/v1/rerank", json=best).json()["results"] == [
        {k: v for k, v in answer["results"][0].items() if k != "document"}
    ]


CHAT = {"messages": [{"role": "user", "content": "hello"}]}
EMBEDDINGS = {"input": "the cat"}
RERANK = {"query": "cat", "documents": ["the cat"]}


@pytest.mark.parametrize(
    ("model", "path", "body", "field", "says"),
    [
        ("encoder", "/v1/chat/completions", CHAT, "model", "generates no text"),
        ("encoder", "/v1/completions", {"prompt": "a"}, "model", "generates no text"),
        ("encoder", "/v1/rerank", RERANK, "model", "a cross-encoder"),
        ("encoder", "/v1/embeddings", {"input": "cat " * 100}, "input", "longer than the 64 tokens"),
        ("encoder", "/v1/embeddings", {"input": ["a", ""]}, "input", "is empty"),
        ("encoder", "/v1/embeddings", {"input": "a", "dimensions": 33}, None, "have 32, not 33"),
        ("scorer", "/v1/embeddings", EMBEDDINGS, "model", "gives no embeddings"),
        ("scorer", "/v1/chat/completions", CHAT, "model", "generates no text"),
        ("scorer", "/v1/rerank", {**RERANK, "documents": ["cat " * 100]}, "documents", "longer than the 64 tokens"),
        ("serve", "/v1/embeddings", EMBEDDINGS, "model", "--pooling mean or last"),
        ("serve", "/v1/rerank", RERANK, "model", "a cross-encoder"),
    ],
)
def test_what_a_model_is_not_made_for_is_refused(request, model, path, body, field, says):
    answer = request.getfixturevalue(model).post(path, json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert says in error["message"] and error["param"] == field


def test_the_client_reads_a_refusal(encoder):
    with pytest.raises(openai.BadRequestError, match="generates no text"):
        encoder.client().chat.completions.create(model=processes.MODEL_NAME, **CHAT)


def test_a_model_that_generates_embeds_too_when_it_is_told_how(start_serve):
    server = start_serve("--pooling", "mean")
    texts = ["A cat sits on the mat.", "A kitten is sitting on a rug.", "The stock market fell sharply today."]
    vectors = [d.embedding for d in embed(server, texts).data]
    cosine = [sum(a * b for a, b in zip(vectors[0], v)) for v in vectors]
    assert abs(cosine[0] - 1) < 1e-5 and cosine[1] > cosine[2]
    answer = server.client().completions.create(model=processes.MODEL_NAME, prompt="Hello", max_tokens=4)
    assert answer.usage.completion_tokens > 0


@pytest.fixture(scope="module")
def encoder_cluster():
    yield from conftest.run_cluster("ipc", model=DATA / "bert")


@pytest.mark.parametrize("victim", ["executor", "scheduler", "tokenizer"])
def test_embeddings_outlive_what_is_killed_under_them(encoder_cluster, victim):
    texts = [f"the dog {i} " * 8 for i in range(500)]
    whole = [d.embedding for d in embed(encoder_cluster, texts).data]
    before = encoder_cluster.metric("troupe_gateway_requests_total")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(embed, encoder_cluster, texts)
        in_hand = lambda: encoder_cluster.metric("troupe_gateway_requests_total") > before
        processes.wait_until(in_hand, "the gateway has the texts", pause_s=0)
        encoder_cluster.processes.pop(victim).kill()
        successor = encoder_cluster.start_service(victim)
        processes.wait_until(lambda: "a peer came" in successor.log(), "it is connected")
        assert [d.embedding for d in answer.result().data] == whole
    encoder_cluster.wait_idle()
