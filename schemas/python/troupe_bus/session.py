"""One session with a server of the bus: a DEALER socket, a hello and its welcome, messages counted without a hole.

The rules are those of libllm/actor/handshake.c and inbox.c. A session ends when a message is missing, when the server
was started anew or knows nothing of it, or when nothing was heard for DEAD_S; then a new connection under a new
identity begins the next one. A session belongs to one thread.
"""

import secrets
import time

import zmq

from . import codec, envelope
from .errors import BusError, code_name

HEARTBEAT_S = 1.0
DEAD_S = 3.0
MESSAGE_BYTES_MAX = 32 << 20
LINGER_MS = 1000


class SessionOver(Exception):
    """The session ended. `fatal`: the server will not have this client, so trying again is no use."""

    def __init__(self, reason, fatal=False):
        super().__init__(reason)
        self.fatal = fatal


class Session:
    """`keys` is (public key, secret key, server's public key) in Z85, or None for a connection without CURVE. `grants`
    are the messages that cost a credit which the server may send at first."""

    def __init__(self, context, endpoint, incarnation, keys=None, role="client", grants=0):
        self.incarnation, self.role, self.grants = incarnation, role, grants
        self.name = f"{role}-{incarnation:016x}"
        self.up = False
        self.credits = 0
        self.server = ""
        self.server_incarnation = self.server_epoch = 0
        self.sequence_in = self.sequence_out = 0
        self.heard = self.begun = self.beat = time.monotonic()
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, LINGER_MS)
        self.socket.setsockopt(zmq.SNDHWM, 0)  # credits bound what is in flight
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        # A server ignores a second connection of one identity: each connection has its own.
        self.socket.setsockopt(zmq.ROUTING_ID, f"{self.name}.{secrets.token_hex(4)}".encode())
        if keys and endpoint.startswith("tcp://"):
            self.socket.curve_publickey, self.socket.curve_secretkey, self.socket.curve_serverkey = keys
        self.socket.connect(endpoint)
        self.send("node.hello", self.hello())

    def hello(self):
        return {
            "name": self.name,
            "role": self.role,
            "incarnation": self.incarnation,
            "credits": self.grants,
            "protocol_min": envelope.PROTOCOL,
            "protocol_max": envelope.PROTOCOL,
        }

    def send(self, name, body, **about):
        """Raises BusError when the body breaks the schema: then nothing was sent and nothing was counted."""
        encoded = codec.encode(name, body)
        if len(encoded) > MESSAGE_BYTES_MAX:
            raise BusError("too_large", f"{name}: {len(encoded)} bytes; at most {MESSAGE_BYTES_MAX} are taken")
        sequence = self.sequence_out + 1
        head = envelope.Envelope(codec.TYPE_IDS[name], incarnation=self.incarnation, sequence=sequence, **about)
        self.socket.send_multipart([head.encode(), encoded])
        self.sequence_out = sequence
        self.credits -= name in codec.COSTS_CREDIT

    def receive(self):
        """The next message that is not the session's own business as (name, envelope, body); None when there is none.
        Raises SessionOver."""
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return None
            try:
                if len(frames) != 2:
                    raise BusError("invalid", f"a message has two frames, not {len(frames)}")
                head = envelope.decode(frames[0])
                taken = self.take(head, frames[1])
            except BusError as fault:  # what cannot be read cannot be counted either
                raise SessionOver(f"the server sent no proper message: {fault.text}") from None
            if taken:
                return taken

    def take(self, head, data):
        name = codec.TYPE_NAMES.get(head.type)
        if not self.up:
            self.take_handshake(name, head, data)
            return None
        if head.incarnation != self.server_incarnation:
            raise SessionOver("the server was started anew")
        if name == "node.refused" and head.sequence == 0:
            raise SessionOver("the server does not know this session any more")
        if head.sequence <= self.sequence_in:
            return None
        if head.sequence != self.sequence_in + 1:
            raise SessionOver("messages were lost on the way")
        self.sequence_in = head.sequence
        self.heard = time.monotonic()
        stale = head.epoch < self.server_epoch
        self.server_epoch = max(head.epoch, self.server_epoch)
        if name is None or (stale and not name.startswith("node.")):
            return None
        return self.take_body(name, head, codec.decode(name, data))

    def take_handshake(self, name, head, data):
        if name not in ("node.welcome", "node.refused"):
            return
        body = codec.decode(name, data)
        if name == "node.refused":
            code = code_name(body["code"])
            raise SessionOver(body["text"], fatal=code in ("invalid", "unauthorized", "unsupported"))
        expected = f"{body['role']}-{body['incarnation']:016x}"
        if body["name"] != expected or head.incarnation != body["incarnation"] or head.sequence != 1:
            raise SessionOver("the server's name, role and incarnation do not agree", fatal=True)
        if body["protocol"] != envelope.PROTOCOL:
            raise SessionOver(f"the server picked protocol {body['protocol']}", fatal=True)
        self.up = True
        self.server, self.server_incarnation = body["name"], body["incarnation"]
        self.server_epoch, self.credits = body["epoch"], body["credits"]
        self.sequence_in = 1
        self.heard = time.monotonic()

    def take_body(self, name, head, body):
        if name == "node.credit":
            self.credits += body["n"]
        elif name == "node.bye":
            raise SessionOver(f"the server said bye: {body['reason'] or 'it leaves'}")
        elif name in ("node.hello", "node.welcome"):
            self.send("node.bye", {"reason": "it began anew within a session"})
            raise SessionOver("the server began anew within a session")
        elif name != "node.heartbeat":
            return name, head, body
        return None

    def tick(self, load):
        """Says the heartbeat when it is due; raises SessionOver when the server is silent. Returns the seconds until
        the next call is due."""
        now = time.monotonic()
        if now - self.heard > DEAD_S:
            raise SessionOver("the server missed its heartbeats" if self.up else "no server answered the hello")
        if self.up and now - self.beat >= HEARTBEAT_S:
            self.beat = now
            self.send("node.heartbeat", {"ready": True, "load": load})
        return max(0.0, min(self.beat + HEARTBEAT_S, self.heard + DEAD_S + 0.01) - now) if self.up else 0.1

    def close(self, reason=""):
        if self.up:
            self.send("node.bye", {"reason": reason})
        self.socket.close(LINGER_MS if self.up else 0)
