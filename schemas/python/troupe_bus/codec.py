"""Message bodies: msgpack maps from field number to value, read and written by the tables of messages.py.

The Python twin of libllm/bus/wire.c, and as strict. It refuses malformed or truncated msgpack, depth over DEPTH_MAX,
trailing bytes, duplicate fields, a wrong type, a number out of range, text that is not UTF-8, anything longer than the
schema allows and a required field that is absent. It skips fields that it does not know and fills in defaults.

A decoded body is a dict from field name to value with every field there; enums are their labels, blobs are lists of
numbers. Encoding takes the same dict; what is absent, or equals its default, is left out.
"""

import struct
from dataclasses import dataclass
from typing import Any, Optional

from . import messages
from .errors import BusError

DEPTH_MAX = 16
NIL, BOOL, UINT, INT, FLOAT, STR, BIN, ARRAY, MAP, EXT = range(10)
PAYLOAD = (STR, BIN, EXT)

# msgpack's heads with a number behind them: byte -> (kind, struct format, what is added to a length).
# https://github.com/msgpack/msgpack/blob/master/spec.md
NUMBERED = {
    0xC4: (BIN, ">B", 0), 0xC5: (BIN, ">H", 0), 0xC6: (BIN, ">I", 0),
    0xC7: (EXT, ">B", 1), 0xC8: (EXT, ">H", 1), 0xC9: (EXT, ">I", 1),
    0xCA: (FLOAT, ">f", 0), 0xCB: (FLOAT, ">d", 0),
    0xCC: (UINT, ">B", 0), 0xCD: (UINT, ">H", 0), 0xCE: (UINT, ">I", 0), 0xCF: (UINT, ">Q", 0),
    0xD0: (INT, ">b", 0), 0xD1: (INT, ">h", 0), 0xD2: (INT, ">i", 0), 0xD3: (INT, ">q", 0),
    0xD9: (STR, ">B", 0), 0xDA: (STR, ">H", 0), 0xDB: (STR, ">I", 0),
    0xDC: (ARRAY, ">H", 0), 0xDD: (ARRAY, ">I", 0), 0xDE: (MAP, ">H", 0), 0xDF: (MAP, ">I", 0),
}  # fmt: skip


def invalid(text):
    return BusError("invalid", text)


def too_large(text):
    return BusError("too_large", text)


# ---- reading msgpack -------------------------------------------------------------------------------------------------


class Reader:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def token(self):
        """One head: its kind, and its value; of STR, BIN, EXT, ARRAY and MAP the length of what follows."""
        if self.at >= len(self.data):
            raise invalid(f"malformed or truncated msgpack at byte {self.at}")
        head = self.data[self.at]
        self.at += 1
        if head <= 0x7F:
            return UINT, head
        if head >= 0xE0:
            return INT, head - 256
        if head <= 0xBF:
            return (MAP, head & 15) if head <= 0x8F else (ARRAY, head & 15) if head <= 0x9F else (STR, head & 31)
        if head == 0xC0:
            return NIL, None
        if head in (0xC2, 0xC3):
            return BOOL, head == 0xC3
        if 0xD4 <= head <= 0xD8:
            return EXT, 1 + (1 << (head - 0xD4))
        if head not in NUMBERED:  # 0xc1
            raise invalid(f"malformed or truncated msgpack at byte {self.at}")
        kind, form, extra = NUMBERED[head]
        size = struct.calcsize(form)
        if len(self.data) - self.at < size:
            raise invalid(f"malformed or truncated msgpack at byte {self.at}")
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += size
        if kind == INT and value >= 0:
            kind = UINT
        return kind, value + extra if extra else value

    def payload(self, size):
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def skip(self):
        """Skips one value of checked msgpack."""
        left = 1
        while left:
            left -= 1
            kind, value = self.token()
            if kind in PAYLOAD:
                self.at += value
            elif kind in (ARRAY, MAP):
                left += value * (2 if kind == MAP else 1)


def check(data):
    """Raises unless `data` is one well-formed msgpack value within DEPTH_MAX, with no length that reaches past the end
    and nothing behind it. Runs over the whole body before anything is built from it."""
    reader = Reader(data)
    owed, need = [1], 1
    while need:
        kind, value = reader.token()
        need -= 1
        owed[-1] -= 1
        room = len(data) - reader.at
        if kind in PAYLOAD:
            if value > room:
                raise invalid(f"a msgpack string of {value} bytes reaches past the end")
            reader.at += value
        elif kind in (ARRAY, MAP):
            items = value * (2 if kind == MAP else 1)
            if need + items > room:
                raise invalid("a msgpack container claims more values than there are bytes")
            if len(owed) > DEPTH_MAX:
                raise invalid(f"msgpack nested deeper than {DEPTH_MAX}")
            need += items
            owed.append(items)
        while len(owed) > 1 and owed[-1] == 0:
            owed.pop()
    if reader.at != len(data):
        raise invalid(f"{len(data) - reader.at} bytes behind the msgpack value")


# ---- the tables ------------------------------------------------------------------------------------------------------

INTEGERS = {
    "u32": (0, 2**32 - 1), "u64": (0, 2**64 - 1), "i32": (-(2**31), 2**31 - 1), "i64": (-(2**63), 2**63 - 1)
}  # fmt: skip
INTEGER_TEXT = {
    "u32": "an unsigned 32-bit integer",
    "u64": "an unsigned 64-bit integer",
    "i32": "a signed 32-bit integer",
    "i64": "a signed 64-bit integer",
}
NEUTRAL = {"bool": False, "f32": 0.0, "f64": 0.0, "str": "", "bytes": b""}


@dataclass(frozen=True)
class Field:
    where: str  # "step.plan.entries", for errors
    number: int
    name: str
    type: str
    of: Optional[str]
    default: Any
    low: Optional[float]  # None: no range
    high: Optional[float]
    max_items: int
    max_bytes: int
    required: bool

    def neutral(self):
        """The value of an absent field, fresh."""
        if self.type in ("list", "blob"):
            return []
        if self.type == "struct":
            return {f.name: f.neutral() for f in STRUCTS[self.of]}
        return self.default


def make_field(owner, number, row):
    kind = row["type"]
    default = row.get("default", NEUTRAL.get(kind, 0))
    if kind == "enum" and not isinstance(default, str):
        default = messages.ENUMS[row["of"]][default]
    low = high = None
    if "min" in row or "max" in row:
        low = row.get("min", {"i32": -(2**31), "i64": -(2**63)}.get(kind, 0))
        high = row.get("max", INTEGERS.get(kind, (0, 1e308))[1])
    limits = row.get("max_items", 0), row.get("max_bytes", 0)
    where = f"{owner}.{row['name']}"
    return Field(
        where, number, row["name"], kind, row.get("of"), default, low, high, *limits, row.get("required", False)
    )


def make_fields(owner, rows):
    return tuple(make_field(owner, number, row) for number, row in sorted(rows.items()))


STRUCTS = {name: make_fields(name, rows) for name, rows in messages.STRUCTS.items()}
MESSAGES = {name: make_fields(name, row["fields"]) for name, row in messages.MESSAGES.items()}
TYPE_IDS = {name: row["id"] for name, row in messages.MESSAGES.items()}
TYPE_NAMES = {number: name for name, number in TYPE_IDS.items()}
COSTS_CREDIT = {name for name, row in messages.MESSAGES.items() if row["credit"]}


def expect(field, ok, what):
    if not ok:
        raise invalid(f"{field.where}: expected {what}")


def check_range(field, value):
    if field.low is None:
        return
    low, high = field.low, field.high
    if field.type == "f32":  # 0.01 as a float is less than 0.01
        low, high = struct.unpack("2f", struct.pack("2f", low, high))
    if not low <= value <= high:  # also refuses NaN
        raise invalid(f"{field.where}: must be between {field.low} and {field.high}")


def check_size(field, n, limit, what):
    if n > limit:
        raise too_large(f"{field.where}: {n} {what}, at most {limit} are taken")


def to_f32(value):
    """The value as 32 bits hold it; infinite where they do not reach."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


# ---- decoding --------------------------------------------------------------------------------------------------------


def decode_number(field, kind, value):
    if field.type in ("f32", "f64"):
        expect(field, kind in (FLOAT, UINT, INT), "a number")
        check_range(field, value)
        return to_f32(value) if field.type == "f32" else float(value)
    limits = INTEGERS["u32" if field.type == "enum" else field.type]
    fits = kind in (UINT, INT) and limits[0] <= value <= limits[1]
    expect(field, fits, INTEGER_TEXT["u32" if field.type == "enum" else field.type])
    check_range(field, value)
    if field.type == "enum":
        labels = messages.ENUMS[field.of]
        return labels.get(value, labels[0])  # a newer sender's value
    return value


def decode_text(field, kind, size, reader):
    expect(field, kind == (BIN if field.type == "bytes" else STR), "bytes" if field.type == "bytes" else "a string")
    check_size(field, size, field.max_bytes, "bytes")
    raw = reader.payload(size)
    if field.type == "bytes":
        return raw
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise invalid(f"{field.where}: expected valid UTF-8") from None


def decode_blob(field, kind, size, reader):
    expect(field, kind == BIN and size % 4 == 0, "bytes, four an item")
    check_size(field, size // 4, field.max_items, "items")
    return list(struct.unpack(f"<{size // 4}{'I' if field.of == 'u32' else 'f'}", reader.payload(size)))


def decode_field(field, reader):
    if field.type == "struct":
        return decode_struct(field.of, STRUCTS[field.of], reader)
    kind, value = reader.token()
    if field.type == "bool":
        expect(field, kind == BOOL, "true or false")
        return value
    if field.type in ("str", "bytes"):
        return decode_text(field, kind, value, reader)
    if field.type == "blob":
        return decode_blob(field, kind, value, reader)
    if field.type != "list":
        return decode_number(field, kind, value)
    expect(field, kind == ARRAY, "a list")
    check_size(field, value, field.max_items, "items")
    if field.of == "str":
        return [decode_text(field, *reader.token(), reader) for _ in range(value)]
    return [decode_struct(field.of, STRUCTS[field.of], reader) for _ in range(value)]


def decode_struct(name, fields, reader):
    kind, n = reader.token()
    if kind != MAP:
        raise invalid(f"{name}: expected a map from field number to value")
    by_number = {f.number: f for f in fields}
    result = {}
    for _ in range(n):
        kind, number = reader.token()
        if kind != UINT:
            raise invalid(f"{name}: a field number must be an unsigned integer")
        field = by_number.get(number)
        if field is None:
            reader.skip()
            continue
        if field.name in result:
            raise invalid(f"{field.where}: given twice")
        result[field.name] = decode_field(field, reader)
    for field in fields:
        if field.name not in result:
            if field.required:
                raise invalid(f"{field.where}: required, but absent")
            result[field.name] = field.neutral()
    return result


def decode(name, data):
    """The body of a message by its name ("text.delta") as a dict. Raises BusError."""
    if name not in MESSAGES:
        raise BusError("unsupported", f"message type {name} is unknown here")
    check(data)
    return decode_struct(name, MESSAGES[name], Reader(data))


# ---- encoding --------------------------------------------------------------------------------------------------------


def pack_length(small_head, small_max, heads, n):
    if n <= small_max:
        return bytes([small_head | n])
    for head, form, limit in zip(heads, (">B", ">H", ">I"), (0xFF, 0xFFFF, 0xFFFFFFFF)):
        if head and n <= limit:
            return bytes([head]) + struct.pack(form, n)
    raise too_large(f"{n} items or bytes are more than msgpack can hold")


def pack_integer(value):
    if -32 <= value <= 127:
        return struct.pack(">B" if value >= 0 else ">b", value)
    heads = ((0xCC, ">B", 8), (0xCD, ">H", 16), (0xCE, ">I", 32), (0xCF, ">Q", 64))
    if value < 0:
        heads = ((0xD0, ">b", 7), (0xD1, ">h", 15), (0xD2, ">i", 31), (0xD3, ">q", 63))
    head, form = next((head, form) for head, form, bits in heads if -(1 << bits) <= value < 1 << bits)
    return bytes([head]) + struct.pack(form, value)


def pack_str(raw):
    return pack_length(0xA0, 31, (0xD9, 0xDA, 0xDB), len(raw)) + raw


def pack_bin(raw):
    return pack_length(0, -1, (0xC4, 0xC5, 0xC6), len(raw)) + raw


def pack_array(items):
    return pack_length(0x90, 15, (0, 0xDC, 0xDD), len(items)) + b"".join(items)


def is_default(field, value):
    if field.type == "struct":
        return all(is_default(f, value[f.name]) for f in STRUCTS[field.of] if f.name in value)
    if field.type in ("str", "bytes", "list", "blob"):
        return len(value) == 0
    if field.type == "enum":
        return enum_number(field, value) == enum_number(field, field.default)
    if field.type in ("f32", "f64"):
        form = "<f" if field.type == "f32" else "<d"
        return encode_float(field, value, form) == encode_float(field, field.default, form)  # -0.0 is not 0.0
    return value == field.default


def enum_number(field, value):
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    numbers = {label: number for number, label in messages.ENUMS[field.of].items()}
    expect(field, value in numbers, f"one of {', '.join(numbers)}")
    return numbers[value]


def encode_float(field, value, form):
    expect(field, isinstance(value, (int, float)) and not isinstance(value, bool), "a number")
    try:
        return struct.pack(form, value)
    except OverflowError:
        raise invalid(f"{field.where}: {value} does not fit") from None


def encode_number(field, value):
    if field.type in ("f32", "f64"):
        packed = encode_float(field, value, ">f" if field.type == "f32" else ">d")
        check_range(field, value)
        return (b"\xca" if field.type == "f32" else b"\xcb") + packed
    kind = "u32" if field.type == "enum" else field.type
    value = enum_number(field, value) if field.type == "enum" else value
    fits = isinstance(value, int) and not isinstance(value, bool) and INTEGERS[kind][0] <= value <= INTEGERS[kind][1]
    expect(field, fits, INTEGER_TEXT[kind])
    check_range(field, value)
    return pack_integer(value)


def encode_text(field, value):
    if field.type == "bytes":
        expect(field, isinstance(value, (bytes, bytearray)), "bytes")
        raw = bytes(value)
    else:
        expect(field, isinstance(value, str), "a string")
        try:
            raw = value.encode("utf-8")
        except UnicodeEncodeError:
            raise invalid(f"{field.where}: not valid UTF-8") from None
    check_size(field, len(raw), field.max_bytes, "bytes")
    return pack_bin(raw) if field.type == "bytes" else pack_str(raw)


def encode_items(field, value):
    expect(field, isinstance(value, (list, tuple)), "a list")
    check_size(field, len(value), field.max_items, "items")
    if field.type == "list" and field.of == "str":
        return pack_array([encode_text(field, item) for item in value])
    if field.type == "list":
        return pack_array([encode_struct(field.of, STRUCTS[field.of], item) for item in value])
    try:
        return pack_bin(struct.pack(f"<{len(value)}{'I' if field.of == 'u32' else 'f'}", *value))
    except (struct.error, OverflowError):
        raise invalid(f"{field.where}: expected a list of {field.of}") from None


def encode_field(field, value):
    if field.type == "bool":
        expect(field, isinstance(value, bool), "true or false")
        return b"\xc3" if value else b"\xc2"
    if field.type in ("str", "bytes"):
        return encode_text(field, value)
    if field.type in ("list", "blob"):
        return encode_items(field, value)
    if field.type == "struct":
        return encode_struct(field.of, STRUCTS[field.of], value)
    return encode_number(field, value)


def encode_struct(name, fields, value):
    if not isinstance(value, dict):
        raise invalid(f"{name}: expected a dict")
    unknown = set(value) - {f.name for f in fields}
    if unknown:
        raise invalid(f"{name}: there is no field {sorted(map(str, unknown))[0]}")
    out, n = [], 0
    for field in fields:
        if field.name not in value:
            if field.required:
                raise invalid(f"{field.where}: required, but absent")
            continue
        encoded = encode_field(field, value[field.name])  # first, so that what is refused is refused at its default too
        if field.required or not is_default(field, value[field.name]):
            out += [pack_integer(field.number), encoded]
            n += 1
    return pack_length(0x80, 15, (0, 0xDE, 0xDF), n) + b"".join(out)


def encode(name, body):
    """The bytes of a body. Raises BusError, naming the field, when a value breaks the schema's limits."""
    return encode_struct(name, MESSAGES[name], body)
