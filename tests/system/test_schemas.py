"""schemas/: what is generated is fresh, what was released stays, and the Python codec says byte for byte what C
says."""

import json
import math
import random
import shutil
import struct
import subprocess
import sys

import jsonschema
import msgpack
import pytest
import yaml
from processes import ROOT
from troupe_bus import BusError, codec, envelope

GOLDEN = ROOT / "tests/data/messages/golden-v1.txt"


# ---- the generator ---------------------------------------------------------------------------------------------------


def codegen(root, *flags):
    command = [sys.executable, str(root / "schemas/codegen.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def copy(tmp_path):
    """The parts of the repository that the generator reads and writes."""
    for part in ("schemas", "tests/data/messages"):
        shutil.copytree(ROOT / part, tmp_path / part)
    (tmp_path / "libllm/bus").mkdir(parents=True)
    for name in ("messages.h", "messages.c"):
        shutil.copy(ROOT / "libllm/bus" / name, tmp_path / "libllm/bus")
    return tmp_path


def edit(copy, name, old, new):
    path = copy / "schemas" / name
    text = path.read_text()
    assert old in text, f"{name} has no {old!r} any more"
    path.write_text(text.replace(old, new, 1))


def test_generated_files_are_fresh():
    done = codegen(ROOT, "--check")
    assert done.returncode == 0, done.stderr


INCOMPATIBLE = [
    ("another type", "text.yaml", "1: {name: choice, type: u32}", "1: {name: choice, type: i32}", "choice"),
    ("another name", "text.yaml", "2: {name: index,", "2: {name: place,", "index"),
    ("another number", "text.yaml", "9: {name: error,", "12: {name: error,", "released"),
    ("another id", "text.yaml", "id: 17", "id: 25", "released with id 17"),
    ("a field gone", "node.yaml", '      2: {name: load, type: u32, doc: "requests in hand"}\n', "", "retired"),
    ("an enum's value", "types.yaml", "2: length, 3: cancelled", "3: length, 2: cancelled", "finish_reason"),
    ("a list of others", "types.yaml", "type: list, of: logit_bias", "type: list, of: text_top", "logit_bias"),
    (
        "another default",
        "gen.yaml",
        "name: n, type: u32, default: 1, min: 1",
        "name: n, type: u32, default: 2, min: 1",
        "default",
    ),
    (
        "a default more",
        "step.yaml",
        "name: no_sample, type: bool",
        "name: no_sample, type: bool, default: true",
        "default",
    ),
    (
        "required now",
        "gen.yaml",
        '{name: index, type: u32, doc: "place of tokens',
        '{name: index, type: u32, required: true, doc: "place of tokens',
        "required",
    ),
    (
        "no longer required",
        "step.yaml",
        "name: n_vocab, type: u32, required: true",
        "name: n_vocab, type: u32",
        "required",
    ),
    (
        "fewer bytes",
        "gen.yaml",
        "name: session, type: str, max_bytes: 128",
        "name: session, type: str, max_bytes: 127",
        "max_bytes",
    ),
    (
        "fewer items",
        "draft.yaml",
        "type: blob, of: u32, max_items: 16",
        "type: blob, of: u32, max_items: 15",
        "max_items",
    ),
    (
        "a lower maximum",
        "types.yaml",
        "name: top_p, type: f32, default: 1.0, min: 0, max: 1",
        "name: top_p, type: f32, default: 1.0, min: 0, max: 0.5",
        "max",
    ),
    ("a higher minimum", "gen.yaml", "min: -1000, max: 1000", "min: -999, max: 1000", "min"),
    ("a new maximum", "step.yaml", "name: elapsed_us, type: u32", "name: elapsed_us, type: u32, max: 1000", "max"),
    (
        "a sender gone",
        "gen.yaml",
        "from: [gateway, postprocessor, tokenizer]",
        "from: [gateway, tokenizer]",
        "postprocessor",
    ),
    ("a receiver gone", "gen.yaml", "to: [scheduler, postprocessor]", "to: [scheduler]", "postprocessor"),
    ("a credit less", "gen.yaml", "    credit: true\n", "", "credit"),
    ("a credit more", "draft.yaml", "    to: [scheduler]\n", "    to: [scheduler]\n    credit: true\n", "credit"),
]


@pytest.mark.parametrize("what, name, old, new, words", INCOMPATIBLE, ids=[i[0] for i in INCOMPATIBLE])
def test_a_released_field_cannot_change(copy, what, name, old, new, words):
    edit(copy, name, old, new)
    done = codegen(copy, "--check")
    assert done.returncode != 0 and "incompatible change" in done.stderr and words in done.stderr, done.stderr


FAULTS = [
    ("a number too high", "node.yaml", "2: {name: load,", "64: {name: load,", "1..63"),
    ("an unknown type", "node.yaml", "2: {name: load, type: u32", "2: {name: load, type: u16", "unknown type u16"),
    (
        "no limit",
        "node.yaml",
        "1: {name: reason, type: str, max_bytes: 256}",
        "1: {name: reason, type: str}",
        "max_bytes",
    ),
    ("an id twice", "text.yaml", "id: 17", "id: 16", "share id 16"),
    ("an unknown role", "text.yaml", "from: [client, gateway]", "from: [client, gatekeeper]", "roles"),
]


@pytest.mark.parametrize("what, name, old, new, words", FAULTS, ids=[f[0] for f in FAULTS])
def test_a_faulty_schema_is_named(copy, what, name, old, new, words):
    edit(copy, name, old, new)
    done = codegen(copy)
    assert done.returncode != 0 and words in done.stderr, done.stderr


LAST_OF_HEARTBEAT = '      4: {name: draining, type: bool, doc: "it finishes what it has, and leaves"}\n'


def test_a_field_may_be_added_and_one_may_be_retired(copy):
    mood = "      5: {name: mood, type: str, max_bytes: 16}\n    retired: {4: draining}\n"
    edit(copy, "node.yaml", LAST_OF_HEARTBEAT, mood)
    assert "stale" in codegen(copy, "--check").stderr
    assert codegen(copy).returncode == 0
    assert codegen(copy, "--check").returncode == 0
    assert "span mood;" in (copy / "libllm/bus/messages.h").read_text()
    assert "mood" in (copy / "schemas/REFERENCE.md").read_text()


def test_limits_may_grow_and_roles_be_added(copy):
    edit(copy, "gen.yaml", "name: session, type: str, max_bytes: 128", "name: session, type: str, max_bytes: 129")
    edit(copy, "gen.yaml", "min: -1000, max: 1000", "min: -1001")
    edit(copy, "draft.yaml", "from: [scheduler]", "from: [scheduler, gateway]")
    assert "stale" in codegen(copy, "--check").stderr
    assert codegen(copy).returncode == 0
    edit(copy, "gen.yaml", "name: session, type: str, max_bytes: 129", "name: session, type: str, max_bytes: 128")
    assert "incompatible change" in codegen(copy).stderr, "what grew was released"


def test_a_retired_number_never_comes_back(copy):
    edit(copy, "node.yaml", LAST_OF_HEARTBEAT, "    retired: {4: draining}\n")
    assert codegen(copy).returncode == 0
    edit(copy, "node.yaml", "    retired: {4: draining}\n", "")
    assert codegen(copy).returncode == 0, "whoever forgets the line changes nothing"
    last = (
        '3: {name: capacity, type: u32, default: 1, doc: "of a scheduler: executors that it holds; '
        'who chooses among nodes gives each its share"}\n'
    )
    edit(copy, "node.yaml", last, last + "      4: {name: mood, type: u32}\n")
    done = codegen(copy, "--check")
    assert done.returncode != 0 and "node.heartbeat field 4: the number was retired" in done.stderr, done.stderr


# ---- Python beside C -------------------------------------------------------------------------------------------------


def golden():
    for line in GOLDEN.read_text().splitlines():
        if not line.startswith("#"):
            number, _, body = line.partition(" ")
            yield codec.TYPE_NAMES[int(number)], bytes.fromhex(body)


def test_golden_vectors_decode_and_encode_to_the_same_bytes():
    names = []
    for name, data in golden():
        assert codec.encode(name, codec.decode(name, data)) == data, name
        names.append(name)
    assert set(names) == set(codec.MESSAGES), "a message has no vector"


def numbered(fields, body):
    """What a plain msgpack decoder sees of a decoded body: field numbers and raw values."""
    return {f.number: plain(f, body[f.name]) for f in fields if f.required or not codec.is_default(f, body[f.name])}


def plain(field, value):
    if field.type == "enum":
        return codec.enum_number(field, value)
    if field.type == "blob":
        return struct.pack(f"<{len(value)}{'I' if field.of == 'u32' else 'f'}", *value)
    if field.type == "struct":
        return numbered(codec.STRUCTS[field.of], value)
    if field.type == "list" and field.of != "str":
        return [numbered(codec.STRUCTS[field.of], item) for item in value]
    return value


def test_an_independent_msgpack_reads_and_writes_the_same_bytes():
    for name, data in golden():
        seen = msgpack.unpackb(data, strict_map_key=False)
        assert seen == numbered(codec.MESSAGES[name], codec.decode(name, data)), name
        again = codec.decode(name, msgpack.packb(seen, use_single_float=True))
        assert again == codec.decode(name, data), name


def widest(value):
    """msgpack with every head in its longest form, which a decoder must take as well."""
    if isinstance(value, bool) or value is None:
        return msgpack.packb(value)
    if isinstance(value, int):
        return b"\xcf" + struct.pack(">Q", value) if value >= 0 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"\xdb" + struct.pack(">I", len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, list):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(widest, value))
    return b"\xdf" + struct.pack(">I", len(value)) + b"".join(widest(k) + widest(v) for k, v in value.items())


def test_every_form_of_a_number_and_a_length_is_taken():
    for name, data in golden():
        seen = msgpack.unpackb(data, strict_map_key=False)
        assert codec.encode(name, codec.decode(name, widest(seen))) == data, name


# ---- what is refused -------------------------------------------------------------------------------------------------

SAY = "text.encode"  # 1 kind: enum, 2 messages: list, 3 prompt: str, 4 special_tokens: bool

BAD_BODIES = [
    (SAY, b"", "truncated"),
    (SAY, b"\xc1", "malformed"),
    (SAY, b"\x81\x03", "container claims more"),
    (SAY, b"\x81\x03\xa5hell", "reaches past the end"),
    (SAY, b"\x80\x00", "bytes behind"),
    (SAY, b"\x90", "expected a map"),
    (SAY, b"\x81\xa1x\x01", "field number must be"),
    (SAY, b"\x81\xff\x01", "field number must be"),
    (SAY, b"\x82\x03\xa1a\x03\xa1b", "given twice"),
    (SAY, b"\x81\x03\x01", "text.encode.prompt: expected a string"),
    (SAY, b"\x81\x03\xc4\x01a", "text.encode.prompt: expected a string"),
    (SAY, b"\x81\x03\xa1\xff", "valid UTF-8"),
    (SAY, b"\x81\x03\xa3\xed\xa0\x80", "valid UTF-8"),
    (SAY, b"\x81\x03\xa2\xc0\x80", "valid UTF-8"),
    (SAY, b"\x81\x01\xff", "unsigned 32-bit"),
    (SAY, b"\x81\x01\xca\x3f\x80\x00\x00", "unsigned 32-bit"),
    (SAY, b"\x81\x04\x01", "true or false"),
    (SAY, b"\x81\x02\x80", "expected a list"),
    (SAY, b"\x81\x02\xdd\xff\xff\xff\xff", "container claims more"),
    (SAY, b"\x81\x02\xdc\x04\x01" + b"\x80" * 1025, "at most 1024"),
    (SAY, b"\x81\x02\x91\x81\x01\xd9\x41" + b"a" * 65, "chat_message.role: 65 bytes, at most 64"),
    (SAY, b"\x81\x3f" + b"\x91" * 17 + b"\x01", "nested deeper than 16"),
    (SAY, b"\x81\x3f\xa5abc", "reaches past the end"),
    ("text.decode", b"\x81\x01\xc4\x03abc", "four an item"),
    ("text.decode", b"\x81\x01\x93\x01\x02\x03", "four an item"),
    ("node.credit", b"\x80", "node.credit.n: required"),
    ("node.credit", b"\x81\x01\x00", "between 1 and 1048576"),
    ("node.credit", b"\x81\x01\xce\x00\x10\x00\x01", "between 1 and 1048576"),
    ("text.request", b"\x81\x08\x81\x01\xca\xc0\x00\x00\x00", "sampling_params.temperature: must be between 0 and 100"),
    ("text.request", b"\x81\x08\x81\x01\xca\x7f\xc0\x00\x00", "sampling_params.temperature"),
    ("text.request", b"\x81\x08\x81\x01\xca\x7f\x80\x00\x00", "sampling_params.temperature"),
    ("text.request", b"\x81\x08\x81\x06\xca\x3c\x23\xd7\x09", "repetition_penalty: must be between 0.01 and 100"),
    ("text.request", b"\x81\x0a\xd1\xfc\x17", "text.request.priority: must be between -1000 and 1000"),
]


@pytest.mark.parametrize(
    "name, data, words", BAD_BODIES, ids=[f"{i}-{w[:24]}" for i, (_, _, w) in enumerate(BAD_BODIES)]
)
def test_a_bad_body_is_refused(name, data, words):
    with pytest.raises(BusError) as fault:
        codec.decode(name, data)
    assert words in fault.value.text


def test_a_limit_itself_is_in_range_though_floats_are_short():
    body = codec.decode("text.request", codec.encode("text.request", {"sampling": {"repetition_penalty": 0.01}}))
    assert body["sampling"]["repetition_penalty"] == pytest.approx(0.01)


BAD_VALUES = [
    (SAY, {"promt": "x"}, "no field promt"),
    (SAY, {"prompt": b"x"}, "expected a string"),
    (SAY, {"prompt": "\ud800"}, "valid UTF-8"),
    (SAY, {"kind": "poem"}, "expected one of"),
    (SAY, {"special_tokens": 1}, "true or false"),
    (SAY, {"messages": [{"role": "r" * 65}]}, "at most 64"),
    ("text.decode", {"tokens": [-1]}, "list of u32"),
    ("text.decode", {"tokens": [2**32]}, "list of u32"),
    ("text.request", {"n": 0}, "between 1 and 64"),
    ("text.request", {"n": True}, "unsigned 32-bit"),
    ("text.request", {"sampling": {"temperature": math.nan}}, "temperature"),
    ("text.request", {"sampling": {"temperature": 1e300}}, "temperature"),
    ("node.credit", {}, "required"),
]


@pytest.mark.parametrize(
    "name, body, words", BAD_VALUES, ids=[f"{i}-{w[:24]}" for i, (_, _, w) in enumerate(BAD_VALUES)]
)
def test_a_bad_value_is_not_sent(name, body, words):
    with pytest.raises(BusError) as fault:
        codec.encode(name, body)
    assert words in fault.value.text


def test_unknown_fields_are_skipped_and_newer_enum_values_are_unknown():
    body = codec.decode(SAY, b"\x83\x3f\x92\x01\x81\xa1x\xc0\x03\xa2hi\x01\x63")
    assert body["prompt"] == "hi" and body["kind"] == "chat" and body["add_generation_prompt"] is True


def test_spoilt_vectors_raise_bus_errors_and_nothing_else():
    random_of = random.Random(3)
    for name, data in golden():
        for _ in range(60):
            spoilt = bytearray(data)
            for _ in range(random_of.randint(1, 3)):
                spoilt[random_of.randrange(len(spoilt))] = random_of.randrange(256)
            try:
                codec.encode(name, codec.decode(name, bytes(spoilt)))
            except BusError:
                pass


# ---- envelopes -------------------------------------------------------------------------------------------------------


def test_an_envelope_has_one_size_and_comes_back():
    e = envelope.Envelope(16, 1, bytes(range(16)), 3, 2**64 - 1, 2**63, 9, 2**62, bytes(range(25)))
    assert len(e.encode()) == 96 and envelope.decode(e.encode()) == e
    seen = msgpack.unpackb(e.encode())
    assert seen == [0x7401, 16, 1, bytes(range(16)), 3, 2**64 - 1, 2**63, 9, 2**62, bytes(range(25))]
    assert envelope.decode(msgpack.packb(seen)) == e, "the short forms of numbers are taken too"


BAD_ENVELOPES = [
    (lambda v: v[:9], "array of 10"),
    (lambda v: v + [0], "array of 10"),
    (lambda v: [0x7402, *v[1:]], "first value"),
    (lambda v: ["t", *v[1:]], "first value"),
    (lambda v: [v[0], 65536, *v[2:]], "type"),
    (lambda v: [*v[:3], bytes(15), *v[4:]], "request"),
    (lambda v: [*v[:3], "x" * 16, *v[4:]], "request"),
    (lambda v: [*v[:4], 2**32, *v[5:]], "attempt"),
    (lambda v: [*v[:8], -1, v[9]], "deadline_unix_ms"),
    (lambda v: [*v[:9], bytes(26)], "trace"),
]


@pytest.mark.parametrize("change, words", BAD_ENVELOPES, ids=[f"{i}-{w}" for i, (_, w) in enumerate(BAD_ENVELOPES)])
def test_a_bad_envelope_is_refused(change, words):
    values = msgpack.unpackb(envelope.Envelope(16).encode())
    with pytest.raises(BusError) as fault:
        envelope.decode(msgpack.packb(change(values)))
    assert words in fault.value.text


# ---- documents -------------------------------------------------------------------------------------------------------


def test_asyncapi_has_the_structure_of_asyncapi_3():
    """The parts of https://www.asyncapi.com/docs/reference/specification/v3.0.0 that the document uses, closed: what
    the specification does not define must begin with x-."""
    document = yaml.safe_load((ROOT / "schemas/asyncapi.yaml").read_text())
    schema = json.loads((ROOT / "tests/data/messages/asyncapi-3.0-structure.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)
    for payload in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(payload)


def references(value):
    if isinstance(value, dict):
        yield from ([value["$ref"]] if "$ref" in value else [])
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_reference_of_asyncapi_leads_somewhere():
    document = yaml.safe_load((ROOT / "schemas/asyncapi.yaml").read_text())
    found = list(references(document))
    assert len(found) > 100
    for reference in found:
        at = document
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]


def test_a_client_says_nothing_to_what_is_behind_a_gateway():
    """Or it could choose the tenant of its request, and with it whose cached prefixes it finds."""
    document = yaml.safe_load((ROOT / "schemas/asyncapi.yaml").read_text())
    for message in document["components"]["messages"].values():
        if "client" in message["x-from"]:
            assert "gateway" in message["x-to"] and "scheduler" not in message["x-to"], message["name"]


def test_the_reference_documents_every_message_and_field():
    text = (ROOT / "schemas/REFERENCE.md").read_text()
    for name, fields in [*codec.MESSAGES.items(), *codec.STRUCTS.items()]:
        section = text.split(f"\n## {name}", 1)[1].split("\n## ", 1)[0]
        for field in fields:
            assert f"| {field.number} | {field.name} |" in section, f"{name}.{field.name}"
