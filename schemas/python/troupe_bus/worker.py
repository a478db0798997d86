"""A service on the bus in Python: it takes the messages of a role beside the services that have it already, or in their
place.

    def on_draft_request(message):
        message.reply("draft.reply", {"choice": message.body["choice"], "tokens": []})
        message.done()

    Worker("drafter", ["tcp://127.0.0.1:5571"], {"draft.request": on_draft_request}).run()

One thread does all of it. Servers that go away are looked for until they are back. A handler that raises ends the
worker: whoever asked finds out, and asks another.
"""

import secrets
import time

import zmq

from . import codec, keys
from .errors import BusError
from .session import Session, SessionOver

RETRY_S = 0.5


class Message:
    """What a handler gets. `body` is a dict with every field, `head` the envelope, `peer` the name of the sender."""

    def __init__(self, worker, session, name, head, body):
        self.worker, self.session, self.name, self.head, self.body = worker, session, name, head, body
        self.request, self.attempt, self.peer = head.request, head.attempt, session.server

    def reply(self, name, body):
        """Answers whoever sent it, about the same request. False when that one has gone."""
        return self.worker.send(self.peer, name, body, self.head)

    def done(self):
        """Once for each message that cost a credit, when its work is done: the sender may send another."""
        if self.session.up and self.session.server == self.peer:
            self.session.send("node.credit", {"n": 1})


class Worker:
    """`endpoints` are the servers to connect to: "tcp://host:port" or "ipc://path". With CURVE, `key_file` is this
    worker's pair as `troupe keys` wrote it, known to the servers under its role, and `server_key_file` theirs. Each
    server may have `credits` messages that cost one in its hands. `handlers` is {message name: function(Message)};
    messages without one are dropped. `on_lost` is called with the name of a server whose session ended."""

    def __init__(self, role, endpoints, handlers, *, key_file=None, server_key_file=None, credits=64, on_lost=None):
        if bool(key_file) != bool(server_key_file):
            raise ValueError("key_file and server_key_file need each other")
        unknown = [name for name in handlers if name not in codec.TYPE_IDS]
        if unknown:
            raise ValueError(f"there is no message {unknown[0]}")
        self.role, self.handlers, self.credits = role, handlers, credits
        self.on_lost = on_lost or (lambda peer: None)
        self.incarnation = secrets.randbits(64) or 1
        self.sessions = {endpoint: None for endpoint in endpoints}
        self.come_back = dict.fromkeys(endpoints, 0.0)  # when to connect again
        self.stopping = False
        self._keys = keys.triple(key_file, server_key_file) if key_file else None
        self._context = zmq.Context()

    def send(self, peer, name, body, about):
        """To a server by its name, about the request of the envelope `about`. False when it is not there."""
        for session in self.sessions.values():
            if session and session.up and session.server == peer:
                session.send(
                    name,
                    body,
                    request=about.request,
                    attempt=about.attempt,
                    deadline_unix_ms=about.deadline_unix_ms,
                    trace=about.trace,
                )
                return True
        return False

    def stop(self):
        """Ends run() after the handler that calls it; from a signal handler too."""
        self.stopping = True

    def run(self):
        try:
            while not self.stopping:
                self._turn()
        finally:
            for session in filter(None, self.sessions.values()):
                session.close("it leaves")
            self._context.term()

    def _turn(self):
        poller, wait_s = zmq.Poller(), 0.2
        for endpoint, session in self.sessions.items():
            if session is None and time.monotonic() >= self.come_back[endpoint]:
                session = Session(self._context, endpoint, self.incarnation, self._keys, self.role, self.credits)
                self.sessions[endpoint] = session
            if session:
                poller.register(session.socket, zmq.POLLIN)
                wait_s = min(wait_s, self._guarded(endpoint, lambda s: s.tick(0)) or 0)
        poller.poll(wait_s * 1000)
        for endpoint in self.sessions:
            while message := self.sessions[endpoint] and self._guarded(endpoint, Session.receive):
                name, head, body = message
                if name in self.handlers:
                    self.handlers[name](Message(self, self.sessions[endpoint], name, head, body))

    def _guarded(self, endpoint, do):
        """What `do` gives for the session; None when that ended it."""
        session = self.sessions[endpoint]
        try:
            return do(session)
        except SessionOver as over:
            session.socket.close(0)
            self.sessions[endpoint] = None
            self.come_back[endpoint] = time.monotonic() + RETRY_S
            if session.server:
                self.on_lost(session.server)
            if over.fatal:
                raise BusError("unauthorized", f"{endpoint}: {over}") from None
            return None
