"""The first frame of every message: a msgpack array of ten values in fixed order; see libllm/bus/envelope.h."""

import re
import struct
from dataclasses import dataclass

from .codec import ARRAY, BIN, UINT, Reader
from .errors import BusError

MAGIC = 0x7401  # 't' and the version of this layout
BYTES_MAX = 256
PROTOCOL = 1
NO_REQUEST = bytes(16)
NO_TRACE = bytes(25)
INTEGERS = {
    "type": 16,
    "protocol": 16,
    "attempt": 32,
    "incarnation": 64,
    "epoch": 64,
    "sequence": 64,
    "deadline_unix_ms": 63,
}


@dataclass
class Envelope:
    type: int
    protocol: int = PROTOCOL
    request: bytes = NO_REQUEST
    attempt: int = 0
    incarnation: int = 0  # of the sender's process
    epoch: int = 0  # of the sender's lease
    sequence: int = 0  # rises by one with each message of a session
    deadline_unix_ms: int = 0  # 0: none
    trace: bytes = NO_TRACE  # W3C trace context: trace id, span id, flags

    def encode(self):
        """Every integer in its widest form, so that an envelope has one size: 96 bytes."""
        head = struct.pack(">BBHBHBH", 0x9A, 0xCD, MAGIC, 0xCD, self.type, 0xCD, self.protocol)
        tail = (self.attempt, self.incarnation, self.epoch, self.sequence, self.deadline_unix_ms)
        heads = (0xCE, 0xCF, 0xCF, 0xCF, 0xD3)
        numbers = struct.pack(">BIBQBQBQBq", *(value for pair in zip(heads, tail) for value in pair))
        return head + b"\xc4\x10" + self.request + numbers + b"\xc4\x19" + self.trace


def trace_of(traceparent):
    """The trace of an envelope for a traceparent of W3C Trace Context, version 00."""
    found = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", traceparent)
    if not found:
        raise ValueError(f"traceparent {traceparent!r}: expected 00-TRACE-SPAN-FLAGS in hexadecimal")
    return bytes.fromhex("".join(found.groups()))


def take(reader, name):
    if name in ("request", "trace"):
        size = 16 if name == "request" else 25
        kind, value = reader.token()
        ok = kind == BIN and value == size and len(reader.data) - reader.at >= size
        value = reader.payload(size) if ok else None
    else:
        kind, value = reader.token()
        ok = kind == UINT and value < 1 << INTEGERS[name]
    if not ok:
        raise BusError("invalid", f"envelope: {name} is missing, of another type or out of range")
    return value


def decode(frame):
    """Reads a whole frame. Raises BusError: unsupported on another magic, invalid on anything malformed."""
    if not 0 < len(frame) <= BYTES_MAX:
        raise BusError("invalid", f"envelope: a frame of 1 to {BYTES_MAX} bytes was expected, not of {len(frame)}")
    reader = Reader(frame)
    if reader.token() != (ARRAY, 10):
        raise BusError("invalid", "envelope: a msgpack array of 10 values was expected")
    if reader.token() != (UINT, MAGIC):
        raise BusError("unsupported", f"envelope: the first value must be {MAGIC} (layout 1)")
    names = "type protocol request attempt incarnation epoch sequence deadline_unix_ms trace".split()
    envelope = Envelope(**{name: take(reader, name) for name in names})
    if reader.at != len(frame):
        raise BusError("invalid", f"envelope: {len(frame) - reader.at} bytes follow the last value")
    return envelope
