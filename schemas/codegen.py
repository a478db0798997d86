#!/usr/bin/env python3
"""Writes everything that follows from the message definitions in schemas/*.yaml.

    schemas/codegen.py            write the generated files
    schemas/codegen.py --check    fail when one of them is stale, or when a released field changed

Writes: libllm/bus/messages.{h,c} (structs and codec tables), schemas/python/troupe_bus/messages.py,
schemas/REFERENCE.md, schemas/asyncapi.yaml, schemas/schema.lock (what was released), and the golden vectors in
tests/data/messages/.
A field may be added; it never changes number, type, default or whether it is required, its limits only grow, and a
number is never used twice.
"""

import argparse
import json
import math
import pathlib
import struct
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "schemas"
GENERATED = "generated from schemas/ by schemas/codegen.py; do not edit"

C_NUMBER = {
    "bool": "bool",
    "u32": "uint32_t",
    "i32": "int32_t",
    "u64": "uint64_t",
    "i64": "int64_t",
    "f32": "float",
    "f64": "double",
}
FIELD_KEYS = {"name", "type", "of", "doc", "default", "min", "max", "max_items", "max_bytes", "required"}


class SchemaError(Exception):
    pass


def load():
    enums, structs, messages = {}, {}, {}
    for path in sorted(SCHEMAS.glob("*.yaml")):
        if path.name == "asyncapi.yaml":
            continue
        document = yaml.safe_load(path.read_text())
        for kind, into in (("enums", enums), ("structs", structs), ("messages", messages)):
            for name, body in (document.get(kind) or {}).items():
                if name in into:
                    raise SchemaError(f"{path.name}: {name} is defined twice")
                body["file"] = path.name
                into[name] = body
    for name, body in list(structs.items()) + list(messages.items()):
        body["fields"] = check_fields(name, body.get("fields") or {}, body.get("retired") or {}, enums, structs)
    ids = {}
    for name, m in messages.items():
        if m["id"] in ids:
            raise SchemaError(f"{name} and {ids[m['id']]} share id {m['id']}")
        ids[m["id"]] = name
        roles = set(enums["role"]["values"].values()) | {"any"}
        for side in ("from", "to"):
            if not m.get(side) or set(m[side]) - roles:
                raise SchemaError(f"{name}: '{side}' must list roles")
    return enums, structs, messages


def check_fields(owner, fields, retired, enums, structs):
    names, result = set(), []
    for number, f in sorted(fields.items()):
        where = f"{owner} field {number}"
        if not isinstance(number, int) or not 1 <= number < 64:
            raise SchemaError(f"{where}: numbers are 1..63")
        if number in retired:
            raise SchemaError(f"{where}: the number is retired")
        unknown = set(f) - FIELD_KEYS
        if unknown:
            raise SchemaError(f"{where}: unknown keys {sorted(unknown)}")
        if f["name"] in names:
            raise SchemaError(f"{where}: {f['name']} is defined twice")
        names.add(f["name"])
        kind = f["type"]
        if kind in ("str", "bytes") and "max_bytes" not in f:
            raise SchemaError(f"{where}: needs max_bytes")
        if kind in ("list", "blob") and "max_items" not in f:
            raise SchemaError(f"{where}: needs max_items")
        if kind == "list" and f["of"] == "str" and "max_bytes" not in f:
            raise SchemaError(f"{where}: needs max_bytes")
        known = {"enum": enums, "struct": structs, "blob": ("u32", "f32")}.get(kind)
        if kind == "list" and f["of"] != "str":
            known = structs
        if known is not None and f.get("of") not in known:
            raise SchemaError(f"{where}: unknown 'of: {f.get('of')}'")
        if known is None and kind not in C_NUMBER and kind not in ("str", "bytes", "list"):
            raise SchemaError(f"{where}: unknown type {kind}")
        result.append({**f, "number": number})
    return result


# ---- the lock of what was released ---------------------------------------------------------------------------------

LOWER, UPPER = ("min",), ("max", "max_items", "max_bytes")


def locked_field(f):
    """What a field means to those who know it already. A default that is written and one that is left out are one."""
    kept = {"name": f["name"], "type": f["type"], "of": f.get("of", "")}
    kept |= {key: f[key] for key in (*LOWER, *UPPER) if key in f}
    if f.get("default"):
        kept["default"] = f["default"]
    if f.get("required"):
        kept["required"] = True
    return kept


def lock_of(enums, structs, messages, released):
    """`released` is the lock so far: numbers that were ever retired stay in it."""

    def entry(kind, name, body):
        before = released[kind].get(name, {})
        fields = {str(f["number"]): locked_field(f) for f in body["fields"]}
        gone = {n: f["name"] for n, f in before.get("fields", {}).items() if n not in fields}
        named = {str(n): str(label) for n, label in (body.get("retired") or {}).items()}
        return {"fields": fields, "retired": named | gone | before.get("retired", {})}

    def message(name, m):
        about = {"id": m["id"], "from": sorted(m["from"]), "to": sorted(m["to"]), "credit": bool(m.get("credit"))}
        return about | entry("messages", name, m)

    return {
        "messages": {n: message(n, m) for n, m in sorted(messages.items())},
        "structs": {n: entry("structs", n, s) for n, s in sorted(structs.items())},
        "enums": {n: {str(v): k for v, k in e["values"].items()} for n, e in sorted(enums.items())},
    }


def field_faults(old, now):
    """A field means what it meant, and takes all that it took: limits may only grow."""
    faults = [
        f"{key} was released as {old.get(key)!r}, is now {now.get(key)!r}"
        for key in ("name", "type", "of", "default", "required")
        if old.get(key) != now.get(key)
    ]
    for key in (*LOWER, *UPPER):
        was, limit = old.get(key), now.get(key)
        if limit is not None and (was is None or (limit > was if key in LOWER else limit < was)):
            faults.append(f"{key} was released as {was}, {limit} takes less")
    return faults


def message_faults(old, now):
    faults = [
        f"released with {key} {old[key]}, is now {now[key]}" for key in ("id", "credit") if old[key] != now[key]
    ]
    for side in ("from", "to"):
        gone = set(old[side]) - set(now[side])
        if gone:
            faults.append(f"'{side}' was released with {', '.join(sorted(gone))}")
    return faults


def compatible(old, new, retired_of):
    """Every released number must still mean what it meant."""
    faults = []
    for kind in ("messages", "structs"):
        for name, body in old[kind].items():
            now = new[kind].get(name)
            if now is None:
                faults.append(f"{name} was released and is gone")
                continue
            if kind == "messages":
                faults += [f"{name}: {fault}" for fault in message_faults(body, now)]
            for number, f in body["fields"].items():
                if number in now["fields"]:
                    found = field_faults(f, now["fields"][number])
                    faults += [f"{name} field {number} ({f['name']}): {fault}" for fault in found]
                elif int(number) not in retired_of(kind, name):
                    faults.append(f"{name} field {number} ({f['name']}) was released: list it under 'retired'")
            for number in set(body["retired"]) & set(now["fields"]):
                faults.append(f"{name} field {number}: the number was retired (it was {body['retired'][number]})")
    for name, values in old["enums"].items():
        for value, label in values.items():
            if new["enums"].get(name, {}).get(value) != label:
                faults.append(f"enum {name}: value {value} was released as {label}")
    return faults


# ---- C -------------------------------------------------------------------------------------------------------------


def c_name(name):
    return name.replace(".", "_")


def c_comment(text, indent=""):
    text = " ".join(str(text).split())
    return f"{indent}/* {text} */\n" if text else ""


def c_fields(fields):
    out = ""
    for f in fields:
        name, kind = f["name"], f["type"]
        doc = f"  /* {' '.join(str(f['doc']).split())} */" if f.get("doc") else ""
        if kind in C_NUMBER:
            decl = f"{C_NUMBER[kind]} {name};"
        elif kind == "enum":
            decl = f"{f['of']} {name};"
        elif kind in ("str", "bytes"):
            decl = f"span {name};"
        elif kind == "struct":
            decl = f"{c_name(f['of'])} {name};"
        else:
            item = {"u32": "uint32_t", "f32": "float", "str": "span"}.get(f["of"], c_name(f["of"]))
            decl = f"uint32_t n_{name};\n    const {item} *{name};"
        out += f"    {decl}{doc}\n"
    return out or "    char nothing;\n"


def struct_order(structs):
    done, order = set(), []

    def visit(name, path=()):
        if name in path:
            raise SchemaError(f"structs contain each other: {' -> '.join(path + (name,))}")
        if name in done:
            return
        for f in structs[name]["fields"]:
            if f.get("of") in structs:
                visit(f["of"], path + (name,))
        done.add(name)
        order.append(name)

    for name in sorted(structs):
        visit(name)
    return order


def c_header(enums, structs, messages):
    out = f"/* {GENERATED}.\n *\n * The messages of the bus as C structs. schemas/REFERENCE.md explains them. */\n"
    out += '#ifndef TROUPE_BUS_MESSAGES_H\n#define TROUPE_BUS_MESSAGES_H\n\n#include "bus/wire.h"\n\n'
    for name, e in sorted(enums.items()):
        out += c_comment(e["doc"]) + "typedef enum {\n"
        for value, label in sorted(e["values"].items()):
            out += f"    {name.upper()}_{label.upper()} = {value},\n"
        out += f"}} {name};\n\nconst char *{name}_name({name} value);\n\n"
    for name in struct_order(structs):
        s = structs[name]
        out += c_comment(s["doc"]) + f"typedef struct {c_name(name)} {{\n{c_fields(s['fields'])}}} {c_name(name)};\n\n"
        out += f"extern const {c_name(name)} {c_name(name)}_defaults;\n\n"
    out += "enum {\n" + "".join(f"    MSG_{c_name(n).upper()} = {m['id']},\n" for n, m in by_id(messages)) + "};\n\n"
    for name, m in by_id(messages):
        route = f"{', '.join(m['from'])} -> {', '.join(m['to'])}."
        out += c_comment(f"{name}, {route} {' '.join(str(m['doc']).split())}")
        out += f"typedef struct {c_name(name)} {{\n{c_fields(m['fields'])}}} {c_name(name)};\n\n"
        out += f"extern const {c_name(name)} {c_name(name)}_defaults;\n\n"
    out += """/* What the runtime knows of a message type. */
typedef struct {
    uint16_t           type;
    const char        *name;
    uint32_t           from, to; /* masks of 1 << role */
    bool               costs_credit;
    const wire_struct *body;
} message_info;

enum { MESSAGE_BODY_BYTES_MAX = 512 }; /* of the largest struct, without what it points to */

extern const message_info message_infos[]; /* by rising type */
extern const uint32_t     n_message_infos;

/* NULL when there is no such type. */
const message_info *message_info_find(uint32_t type);

/* Appends the encoded body to *out; see wire_encode. */
bool message_encode(uint16_t type, const void *body, wire_writer *out, error *err) MUST_CHECK;

/* Decodes into a struct taken from `memory`; see wire_decode. ERR_UNSUPPORTED when the type is unknown. */
bool message_decode(uint32_t type, span bytes, arena *memory, const void **body, error *err) MUST_CHECK;

#endif
"""
    return out


def by_id(messages):
    return sorted(messages.items(), key=lambda item: item[1]["id"])


def c_literal(f, enums):
    value = f["default"]
    if f["type"] == "bool":
        return "true" if value else "false"
    if f["type"] == "enum":
        return f"{f['of'].upper()}_{str(value).upper()}"
    return f"{float(value)}f" if f["type"] == "f32" else str(value)


def c_defaults(name, fields, enums):
    parts = [
        f".{f['name']} = {c_literal(f, enums)}" for f in fields if "default" in f and f["default"] not in (0, False)
    ]
    nested = [f for f in fields if f["type"] == "struct"]
    return parts, nested


def c_default_initialiser(name, structs, enums, fields):
    parts, nested = c_defaults(name, fields, enums)
    for f in nested:
        inner = c_default_initialiser(f["of"], structs, enums, structs[f["of"]]["fields"])
        if inner != "{0}":
            parts.append(f".{f['name']} = {inner}")
    return "{" + ", ".join(parts) + "}" if parts else "{0}"


def c_field_row(owner, f, enums):
    kind = f["type"]
    wire = {
        "bool": "WIRE_BOOL",
        "u32": "WIRE_U32",
        "i32": "WIRE_I32",
        "u64": "WIRE_U64",
        "i64": "WIRE_I64",
        "f32": "WIRE_F32",
        "f64": "WIRE_F64",
        "enum": "WIRE_ENUM",
        "str": "WIRE_STR",
        "bytes": "WIRE_BYTES",
        "blob": "WIRE_BLOB",
        "struct": "WIRE_STRUCT",
        "list": "WIRE_LIST_STR" if f.get("of") == "str" else "WIRE_LIST_STRUCT",
    }[kind]
    row = [f'"{f["name"]}"', str(f["number"]), wire, f".offset = offsetof({owner}, {f['name']})"]
    if f.get("required"):
        row.append(".required = true")
    if "min" in f or "max" in f:
        low = f.get("min", {"i32": -(2**31), "i64": -(2**63)}.get(kind, 0))
        high = f.get("max", {"u32": 2**32 - 1, "i32": 2**31 - 1}.get(kind, 1.8e19 if kind == "u64" else 1e308))
        short = "f" if kind == "f32" else ""  # 0.01 as a float is less than 0.01
        row.append(f".ranged = true, .min = {float(low)}{short}, .max = {float(high)}{short}")
    if kind in ("list", "blob"):
        row.append(f".count_offset = offsetof({owner}, n_{f['name']}), .max_items = {f['max_items']}")
    if "max_bytes" in f:
        row.append(f".max_bytes = {f['max_bytes']}")
    if kind == "enum":
        row.append(f".n_enum = {max(enums[f['of']]['values']) + 1}")
    if kind == "struct" or (kind == "list" and f["of"] != "str"):
        row.append(f".of = &{c_name(f['of'])}_wire")
    return "    {" + ", ".join(row) + "},\n"


def c_source(enums, structs, messages):
    out = f'/* {GENERATED}. */\n#include "bus/messages.h"\n\n#include <assert.h>\n#include <stddef.h>\n\n'
    for name, e in sorted(enums.items()):
        out += f"const char *{name}_name({name} value)\n{{\n    switch (value) {{\n"
        for value, label in sorted(e["values"].items()):
            out += f'    case {name.upper()}_{label.upper()}: return "{label}";\n'
        out += '    }\n    return "unknown";\n}\n\n'
    everything = [(n, structs[n]) for n in struct_order(structs)] + by_id(messages)
    for name, body in everything:
        n = c_name(name)
        out += f"const {n} {n}_defaults = {c_default_initialiser(name, structs, enums, body['fields'])};\n\n"
        if body["fields"]:
            out += f"static const wire_field {n}_fields[] = {{\n"
            out += "".join(c_field_row(n, f, enums) for f in body["fields"]) + "};\n\n"
            fields, count = f"{n}_fields", f"COUNT({n}_fields)"
        else:
            fields, count = "NULL", "0"
        out += f'static const wire_struct {n}_wire = {{"{name}", {fields}, {count}, sizeof({n}), &{n}_defaults}};\n\n'
    out += "const message_info message_infos[] = {\n"
    for name, m in by_id(messages):
        out += f"    {{{m['id']}, \"{name}\", {role_mask(m['from'], enums)}, {role_mask(m['to'], enums)}, "
        out += f"{'true' if m.get('credit') else 'false'}, &{c_name(name)}_wire}},\n"
    out += "};\n\nconst uint32_t n_message_infos = COUNT(message_infos);\n\n"
    for name, _ in by_id(messages):
        text = f"{name} is larger than MESSAGE_BODY_BYTES_MAX"
        out += f'static_assert(sizeof({c_name(name)}) <= MESSAGE_BODY_BYTES_MAX, "{text}");\n'
    out += """
const message_info *message_info_find(uint32_t type)
{
    for (uint32_t i = 0; i < n_message_infos; i++)
        if (message_infos[i].type == type)
            return &message_infos[i];
    return NULL;
}

bool message_encode(uint16_t type, const void *body, wire_writer *out, error *err)
{
    const message_info *info = message_info_find(type);
    assert(info);
    return wire_encode(info->body, body, out, err);
}

bool message_decode(uint32_t type, span bytes, arena *memory, const void **body, error *err)
{
    const message_info *info = message_info_find(type);
    if (!info)
        return error_set(err, ERR_UNSUPPORTED, "message type %u is unknown here", type);
    void *value = arena_take(memory, info->body->size);
    if (!value)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for a message", info->name);
    *body = value;
    return wire_decode(info->body, bytes, memory, value, err);
}
"""
    return out


def role_mask(roles, enums):
    number = {label: value for value, label in enums["role"]["values"].items()}
    if "any" in roles:
        return hex(sum(1 << v for v in number.values()))
    return hex(sum(1 << number[r] for r in roles))


# ---- Python, documents ---------------------------------------------------------------------------------------------


def python_tables(enums, structs, messages):
    def fields(body):
        keep = ("name", "type", "of", "default", "min", "max", "max_items", "max_bytes", "required")
        return {f["number"]: {k: f[k] for k in keep if k in f} for f in body["fields"]}

    out = (
        f'"""{GENERATED}.\n\nThe messages of the bus as tables for codec.py. schemas/REFERENCE.md explains them.\n"""\n'
    )
    out += "\nENUMS = " + pretty({n: e["values"] for n, e in sorted(enums.items())})
    out += "\nSTRUCTS = " + pretty({n: fields(s) for n, s in sorted(structs.items())})
    out += "\nMESSAGES = " + pretty(
        {n: {"id": m["id"], "credit": bool(m.get("credit")), "fields": fields(m)} for n, m in by_id(messages)}
    )
    return out


def pretty(value):
    import pprint

    return pprint.pformat(value, width=120, sort_dicts=False, compact=True) + "\n"


def limits_text(f):
    parts = []
    if "min" in f or "max" in f:
        parts.append(f"{f.get('min', '')}…{f.get('max', '')}")
    if "max_items" in f:
        parts.append(f"≤ {f['max_items']} items")
    if "max_bytes" in f:
        parts.append(f"≤ {f['max_bytes']} bytes")
    if "default" in f:
        parts.append(f"default {f['default']}")
    if f.get("required"):
        parts.append("required")
    return ", ".join(parts)


def type_text(f):
    return f"{f['type']} of {f['of']}" if f.get("of") and f["type"] in ("list", "blob") else f.get("of", f["type"])


def fields_table(fields):
    if not fields:
        return "No fields.\n\n"
    out = "| # | field | type | limits | |\n|---|---|---|---|---|\n"
    for f in fields:
        doc = " ".join(str(f.get("doc", "")).split()).replace("|", "\\|")
        out += f"| {f['number']} | {f['name']} | {type_text(f)} | {limits_text(f)} | {doc} |\n"
    return out + "\n"


def reference(enums, structs, messages):
    out = f"<!-- {GENERATED} -->\n# Messages of the bus\n\nThe frame layout and the rules are in README.md.\n\n"
    for name, m in by_id(messages):
        out += f"## {name} ({m['id']})\n\n{', '.join(m['from'])} → {', '.join(m['to'])}"
        out += "; costs a credit" if m.get("credit") else ""
        out += f". {' '.join(str(m['doc']).split())}\n\n" + fields_table(m["fields"])
    out += "# Structs\n\n"
    for name, s in sorted(structs.items()):
        out += f"## {name}\n\n{' '.join(str(s['doc']).split())}\n\n" + fields_table(s["fields"])
    out += "# Enums\n\n"
    for name, e in sorted(enums.items()):
        out += f"## {name}\n\n{e['doc']}\n\n" + ", ".join(f"{v} {k}" for v, k in sorted(e["values"].items())) + "\n\n"
    return out


def json_schema(f):
    kind = f["type"]
    if kind == "bool":
        s = {"type": "boolean"}
    elif kind in ("u32", "i32", "u64", "i64"):
        low = {"u32": 0, "u64": 0, "i32": -(2**31), "i64": -(2**63)}[kind]
        high = {"u32": 2**32 - 1, "u64": 2**64 - 1, "i32": 2**31 - 1, "i64": 2**63 - 1}[kind]
        s = {"type": "integer", "minimum": int(f.get("min", low)), "maximum": int(f.get("max", high))}
    elif kind in ("f32", "f64"):
        s = {
            "type": "number",
            **({"minimum": f["min"]} if "min" in f else {}),
            **({"maximum": f["max"]} if "max" in f else {}),
        }
    elif kind == "str":
        s = {"type": "string", "maxLength": f["max_bytes"]}
    elif kind in ("bytes", "blob"):
        s = {"type": "string", "contentEncoding": "binary", "maxLength": f.get("max_bytes", 4 * f.get("max_items", 0))}
        if kind == "blob":
            s["x-items"] = f"{f['of']}le"
    elif kind in ("enum", "struct"):
        s = {"$ref": f"#/components/schemas/{f['of']}"}
    else:
        items = (
            {"type": "string", "maxLength": f["max_bytes"]}
            if f["of"] == "str"
            else {"$ref": f"#/components/schemas/{f['of']}"}
        )
        s = {"type": "array", "maxItems": f["max_items"], "items": items}
    if "$ref" not in s:
        s["x-field"] = f["number"]
        if f.get("doc"):
            s["description"] = " ".join(str(f["doc"]).split())
        if "default" in f:
            s["default"] = f["default"]
    return s


def object_schema(body):
    s = {
        "type": "object",
        "description": " ".join(str(body["doc"]).split()),
        "properties": {f["name"]: json_schema(f) for f in body["fields"]},
        "x-fields": {f["name"]: f["number"] for f in body["fields"]},
    }
    required = [f["name"] for f in body["fields"] if f.get("required")]
    if required:
        s["required"] = required
    return s


def asyncapi(enums, structs, messages):
    roles = [r for v, r in sorted(enums["role"]["values"].items()) if v]
    channels, operations = {}, {}
    for role in roles:
        to_role = {
            c_name(n): {"$ref": f"#/components/messages/{c_name(n)}"}
            for n, m in by_id(messages)
            if role in m["to"] or "any" in m["to"]
        }
        channels[role] = {"address": role, "description": f"The mailbox of a {role}.", "messages": to_role}
        operations[f"{role}_receives"] = {"action": "receive", "channel": {"$ref": f"#/channels/{role}"}}
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Troupe bus",
            "version": "1",
            "description": "Typed messages between the services of Troupe. Frames and rules: schemas/README.md.",
        },
        "defaultContentType": "application/msgpack",
        "servers": {
            "gateway": {
                "host": "gateway:5570",
                "protocol": "zmq",
                "x-zmq": {"socket": "ROUTER", "peers": "DEALER", "security": "CURVE"},
            },
            "scheduler": {
                "host": "scheduler:5571",
                "protocol": "zmq",
                "x-zmq": {"socket": "ROUTER", "peers": "DEALER", "security": "CURVE"},
            },
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {
                c_name(n): {
                    "name": n,
                    "title": n,
                    "x-id": m["id"],
                    "x-credit": bool(m.get("credit")),
                    "x-from": m["from"],
                    "x-to": m["to"],
                    "payload": {"$ref": f"#/components/schemas/{c_name(n)}"},
                }
                for n, m in by_id(messages)
            },
            "schemas": {
                **{c_name(n): object_schema(m) for n, m in by_id(messages)},
                **{n: object_schema(s) for n, s in sorted(structs.items())},
                **{
                    n: {
                        "type": "integer",
                        "description": e["doc"],
                        "enum": sorted(e["values"]),
                        "x-names": {str(v): k for v, k in e["values"].items()},
                    }
                    for n, e in sorted(enums.items())
                },
            },
        },
    }
    return f"# {GENERATED}\n" + yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)


# ---- golden vectors ------------------------------------------------------------------------------------------------


def pack(value):
    """Minimal msgpack, by hand, so that the vectors do not depend on the codecs that they test."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if 0 <= value < 128:
            return bytes([value])
        if value >= 0:
            for head, size, fmt in ((0xCC, 8, ">B"), (0xCD, 16, ">H"), (0xCE, 32, ">I"), (0xCF, 64, ">Q")):
                if value < 1 << size:
                    return bytes([head]) + struct.pack(fmt, value)
        if value >= -32:
            return struct.pack(">b", value)
        for head, size, fmt in ((0xD0, 7, ">b"), (0xD1, 15, ">h"), (0xD2, 31, ">i"), (0xD3, 63, ">q")):
            if value >= -(1 << size):
                return bytes([head]) + struct.pack(fmt, value)
    if isinstance(value, F32):
        return b"\xca" + struct.pack(">f", value.value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        raw = value.encode()
        head = (
            bytes([0xA0 | len(raw)])
            if len(raw) < 32
            else b"\xd9" + bytes([len(raw)]) if len(raw) < 256 else b"\xda" + struct.pack(">H", len(raw))
        )
        return head + raw
    if isinstance(value, bytes):
        return (b"\xc4" + bytes([len(value)]) if len(value) < 256 else b"\xc5" + struct.pack(">H", len(value))) + value
    if isinstance(value, list):
        return (bytes([0x90 | len(value)]) if len(value) < 16 else b"\xdc" + struct.pack(">H", len(value))) + b"".join(
            map(pack, value)
        )
    if isinstance(value, dict):
        head = bytes([0x80 | len(value)]) if len(value) < 16 else b"\xde" + struct.pack(">H", len(value))
        return head + b"".join(pack(k) + pack(v) for k, v in value.items())
    raise TypeError(value)


class F32:
    def __init__(self, value):
        self.value = value


def sample(f, structs, enums, salt):
    """A value inside the field's limits that differs from its default."""
    kind, n = f["type"], f["number"] + salt
    if kind == "bool":
        return not f.get("default", False)
    if kind in ("u32", "i32", "u64", "i64"):
        value = {"u32": 1000 + n, "i32": -5 - n, "u64": 2**40 + n, "i64": -(2**40) - n}[kind]
        return int(min(max(value, f.get("min", value)), f.get("max", value)))
    if kind in ("f32", "f64"):
        low, high = f.get("min", -1e3), f.get("max", 1e3)
        value = low + (high - low) * 0.375
        if value == f.get("default", 0):
            value = low + (high - low) * 0.25
        return F32(value) if kind == "f32" else float(value)
    if kind == "str":
        return f"{f['name']} {n} é"[: f["max_bytes"] // 2]
    if kind == "bytes":
        return bytes((n + i) % 256 for i in range(min(9, f["max_bytes"])))
    if kind == "enum":
        return max(enums[f["of"]]["values"])
    if kind == "blob":
        count = min(3, f["max_items"])
        return (
            struct.pack(f"<{count}I", *(n * 7 + i for i in range(count)))
            if f["of"] == "u32"
            else struct.pack(f"<{count}f", *(-0.5 * i for i in range(count)))
        )
    if kind == "struct":
        return sample_map(structs[f["of"]]["fields"], structs, enums, n)
    if f["of"] == "str":
        return [f"item {i} ☃" for i in range(2)]
    return [sample_map(structs[f["of"]]["fields"], structs, enums, n + i) for i in range(2)]


def sample_map(fields, structs, enums, salt):
    return {f["number"]: sample(f, structs, enums, salt) for f in fields}


def golden(enums, structs, messages):
    lines = [
        f"# {GENERATED}",
        "# message type in decimal, then a body in hex: every field set; then the smallest body that is valid",
    ]
    for name, m in by_id(messages):
        full = pack(sample_map(m["fields"], structs, enums, 0))
        least = pack({f["number"]: sample(f, structs, enums, 0) for f in m["fields"] if f.get("required")})
        lines += [f"{m['id']} {full.hex()}", f"{m['id']} {least.hex()}"]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    enums, structs, messages = load()
    retired = {
        "messages": {n: m.get("retired") or {} for n, m in messages.items()},
        "structs": {n: s.get("retired") or {} for n, s in structs.items()},
    }
    lock_path = SCHEMAS / "schema.lock"
    released = {"messages": {}, "structs": {}, "enums": {}}
    if lock_path.exists():
        released = json.loads(lock_path.read_text())
    lock = lock_of(enums, structs, messages, released)
    faults = compatible(released, lock, lambda kind, name: retired[kind].get(name, {}))
    if faults:
        sys.exit("incompatible change:\n  " + "\n  ".join(faults))
    files = {
        ROOT / "libllm/bus/messages.h": c_header(enums, structs, messages),
        ROOT / "libllm/bus/messages.c": c_source(enums, structs, messages),
        SCHEMAS / "python/troupe_bus/messages.py": python_tables(enums, structs, messages),
        SCHEMAS / "REFERENCE.md": reference(enums, structs, messages),
        SCHEMAS / "asyncapi.yaml": asyncapi(enums, structs, messages),
        lock_path: json.dumps(lock, indent=1, sort_keys=True) + "\n",
        ROOT / "tests/data/messages/golden-v1.txt": golden(enums, structs, messages),
    }
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if args.check:
        if stale:
            sys.exit("stale, run schemas/codegen.py: " + ", ".join(str(p.relative_to(ROOT)) for p in stale))
        return
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
        print("wrote", path.relative_to(ROOT))


if __name__ == "__main__":
    try:
        main()
    except SchemaError as fault:
        sys.exit(f"schemas: {fault}")
