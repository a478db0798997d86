"""Loaded by schemathesis: its requests cost little, and those meant to be valid keep the rules that a JSON schema can't
say, so that they are answered."""

import json

import schemathesis
from schemathesis.generation import GenerationMode

GENERATIONS = ("/v1/chat/completions", "/v1/completions")
MAX_TOKENS, CHOICES, INPUTS, TOKENS_OF_TEST_MODELS = 1, 2, 2, 40
LIMITS = {  # ours, and the server's
    "max_tokens": (MAX_TOKENS, 1 << 20),
    "max_completion_tokens": (MAX_TOKENS, 1 << 20),
    "n": (CHOICES, 64),
    "beam_width": (CHOICES, 16),
}
INPUT_FIELDS = {
    "/v1/completions": ["prompt"],
    "/v1/embeddings": ["input"],
    "/v1/rerank": ["documents"],
    "/detokenize": ["tokens"],
}
DEADLINE_S = 30
NEEDS = {  # fields that want another one to be true
    "beam_width": "use_beam_search",
    "best_of": "use_beam_search",
    "stream_options": "stream",
    "top_logprobs": "logprobs",
}
NOT_HERE = ("model", "min_tokens", "logit_bias", "dimensions", "continue_final_message")  # what they mean depends
NOT_WITH_BEAMS = ("logprobs", "top_logprobs", "echo")


def is_whole(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == int(value)


def make_small(body):
    """Valid numbers get smaller and stay valid; what is invalid stays as it is."""
    for name, (limit, allowed) in LIMITS.items():
        if is_whole(body.get(name)) and limit < body[name] <= allowed:
            body[name] = limit
    if body.get("max_tokens") is None:
        body["max_tokens"] = MAX_TOKENS


def keep_rules(body):
    for name in [*NOT_HERE, *(name for name, needed in NEEDS.items() if body.get(needed) is not True)]:
        body.pop(name, None)
    if body.get("max_tokens") == 0:
        body["echo"] = True
    for name in ("beam_width", "best_of"):
        if body.get(name):
            body[name] = CHOICES
    body["messages"] = (body.get("messages") or [])[:INPUTS]
    for message in body["messages"]:
        message.pop("tool_calls", None)  # templates differ in what they take
        if isinstance(message.get("content"), list):
            message["content"] = message["content"][:INPUTS]
    if not body["messages"]:
        del body["messages"]
    if body.get("use_beam_search"):
        for name in NOT_WITH_BEAMS:
            body.pop(name, None)
    if body.get("timeout"):
        body["timeout"] = DEADLINE_S


def input_of(value):
    """Few texts, none of them empty, and token ids of a small vocabulary."""
    if isinstance(value, list):
        return [input_of(v) for v in value[:INPUTS]]
    return int(value) % TOKENS_OF_TEST_MODELS if is_whole(value) else value or "x"


@schemathesis.hook
def before_call(context, case, kwargs):
    path, body = case.operation.path, case.body
    if not isinstance(body, dict):
        return
    if path in GENERATIONS:
        make_small(body)
    if case.meta.generation.mode == GenerationMode.POSITIVE:
        case.body = body = json.loads(json.dumps(body).replace("\\u0000", ""))  # names have no NUL
        case.headers.pop("Last-Event-ID", None)  # of no stream there is
        if "Idempotency-Key" in case.headers:  # the same request alone
            case.headers["Idempotency-Key"] = str(hash(str(body)))
        keep_rules(body)
        for name in INPUT_FIELDS.get(path, []):
            body[name] = input_of(body[name])
        if path == "/tokenize" and body.get("messages") is not None:
            body.pop("prompt", None)
