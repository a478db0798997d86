"""A client of the bus: chat, complete, encode and decode without HTTP.

One thread owns the session; callers talk to it through a queue and wait on queues of their own, so a Client may be
shared by threads, and heartbeats go on while nobody reads. When a session is lost its requests end with BusError (code
"gone") and the next request finds a new session.
"""

import collections
import queue
import secrets
import socket
import threading
import time

import zmq

from . import codec, keys
from .envelope import NO_TRACE, trace_of
from .errors import BusError, code_name
from .session import Session, SessionOver

WAITING_MAX = 1024  # requests that wait for a credit of the gateway
REQUEST_FIELDS = {f.name for f in codec.MESSAGES["text.request"]}
SAMPLING_FIELDS = {f.name for f in codec.STRUCTS["sampling_params"]}
OUTPUT_FIELDS = {f.name for f in codec.STRUCTS["output_params"]}
FINISHED = "_finished"


class Call:
    """One request on its way, and what came back for it."""

    def __init__(self, client, name, body, timeout, trace=NO_TRACE):
        self.client, self.name, self.body, self.trace = client, name, body, trace
        self.id = secrets.token_bytes(16)
        self.give_up = time.monotonic() + timeout
        self.deadline_unix_ms = int((time.time() + timeout) * 1000)
        self.n_open = body.get("n", 1)
        self.events = queue.SimpleQueue()  # bounded by the length of an answer

    def wait(self):
        """The next (message name, body) for this request. Raises BusError."""
        try:
            # The gateway knows the deadline too and says so first; the second is for its words to arrive.
            name, body = self.events.get(timeout=max(0.0, self.give_up + 1.0 - time.monotonic()))
        except queue.Empty:
            self.client._post("cancel", self)
            raise BusError("timeout", "no answer within the timeout") from None
        if name == "error":
            raise body
        if name == "text.refused":
            raise BusError(code_name(body["code"]), body["text"], body["field"], body["retry_after_ms"])
        if name == "node.refused":
            raise BusError(code_name(body["code"]), body["text"])
        return name, body


class Answer:
    """The answer to a request, as it grows. Iterating gives text; deltas() gives text.delta bodies as dicts."""

    def __init__(self, call, n_choices):
        self._call = call
        self._n_tokens = [0] * n_choices
        self._texts = [[] for _ in range(n_choices)]
        self.finish = [""] * n_choices  # "stop", "length", ... of each choice that ended
        self.usage = [None] * n_choices
        self.cancelled = False

    def deltas(self):
        while "" in self.finish and not self.cancelled:
            name, body = self._call.wait()
            if name == FINISHED:
                return
            choice = body["choice"]
            if name != "text.delta" or choice >= len(self.finish) or self.finish[choice]:
                continue
            if not body["prompt"]:
                if body["index"] < self._n_tokens[choice]:
                    continue  # delivery is at least once; what is here already is dropped
                self._n_tokens[choice] = body["index"] + len(body["tokens"])
            self._texts[choice].append(body["text"])
            if body["finish"] != "none":
                self.finish[choice], self.usage[choice] = body["finish"], body["usage"]
            if body["finish"] in ("error", "timeout"):
                self.cancel()
                raise BusError("internal" if body["finish"] == "error" else "timeout", body["error"])
            yield body

    def __iter__(self):
        if len(self.finish) > 1:
            raise TypeError("an answer of several choices has no one text: use deltas() or texts()")
        for body in self.deltas():
            if body["text"]:
                yield body["text"]

    def texts(self):
        """The whole text of each choice; waits for the end."""
        for _ in self.deltas():
            pass
        return ["".join(pieces) for pieces in self._texts]

    def text(self):
        """The whole text of the only choice; waits for the end."""
        if len(self.finish) > 1:
            raise TypeError("an answer of several choices has no one text: use texts()")
        return self.texts()[0]

    def cancel(self):
        """Tells the gateway that nobody reads on. The iteration ends."""
        self.cancelled = True
        self._call.client._post("cancel", self._call)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if "" in self.finish and not self.cancelled:
            self.cancel()


class Client:
    """A connection to a gateway: "tcp://host:port" or "ipc://path". Over tcp with CURVE, `key_file` is this client's
    pair as `troupe keys` wrote it and `server_key_file` the gateway's FILE.pub. Waits up to `connect_timeout` seconds
    for the gateway; `timeout` is the deadline of a request that names none."""

    def __init__(
        self, endpoint="tcp://127.0.0.1:5570", *, key_file=None, server_key_file=None, timeout=600, connect_timeout=10
    ):
        if bool(key_file) != bool(server_key_file):
            raise ValueError("key_file and server_key_file need each other")
        self.endpoint, self.timeout = endpoint, timeout
        self._keys = keys.triple(key_file, server_key_file) if key_file else None
        self._incarnation = secrets.randbits(64) or 1
        self._commands = queue.SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._connected = threading.Event()
        self._fault = None  # why no session can be had
        self._closed = False
        self._pending, self._waiting = {}, collections.deque()  # of the thread
        self._thread = threading.Thread(target=self._run, name="troupe-bus", daemon=True)
        self._thread.start()
        if not self._connected.wait(connect_timeout) or self._fault:
            reason = self._fault or f"no gateway answers at {endpoint}"
            self.close()
            raise BusError("not_ready", reason)

    # ---- requests ----

    def chat(self, messages, *, timeout=None, traceparent=None, **fields):
        """Continues a conversation: a list of {"role": ..., "content": ...}. `fields` are those of text.request,
        sampling_params and output_params (schemas/REFERENCE.md): max_tokens, temperature, seed, stop, n, ...
        `traceparent` is W3C's, of the span that asks: the server's spans come under it."""
        return self._generate({"kind": "chat", "messages": list(messages)}, timeout, traceparent, fields)

    def complete(self, prompt, *, timeout=None, traceparent=None, **fields):
        """Continues a text, or a list of token ids. The rest as for chat."""
        kind = "text" if isinstance(prompt, str) else "tokens"
        body = {"kind": kind, "prompt": prompt} if kind == "text" else {"kind": kind, "prompt_tokens": list(prompt)}
        return self._generate(body, timeout, traceparent, fields)

    def encode(self, text, *, special_tokens=False, timeout=None):
        """The token ids of a text, or of a conversation as chat would render it."""
        body = {"kind": "text", "prompt": text} if isinstance(text, str) else {"kind": "chat", "messages": list(text)}
        return self._ask("text.encode", {**body, "special_tokens": special_tokens}, timeout)["tokens"]

    def decode(self, tokens, *, timeout=None):
        """The text of token ids."""
        return self._ask("text.decode", {"tokens": list(tokens)}, timeout)["text"]

    def _generate(self, body, timeout, traceparent, fields):
        trace = trace_of(traceparent) if traceparent else NO_TRACE
        for name, value in fields.items():
            if name in ("kind", "messages", "prompt", "prompt_tokens", "reply_to", "resume"):
                raise TypeError(f"{name} cannot be given")
            if name in REQUEST_FIELDS:
                body[name] = value
            elif name in SAMPLING_FIELDS:
                body.setdefault("sampling", {})[name] = value
            elif name in OUTPUT_FIELDS:
                value = [value] if name == "stop" and isinstance(value, str) else value
                body.setdefault("output", {})[name] = value
            else:
                raise TypeError(f"text.request has no field {name}")
        return Answer(self._start("text.request", body, timeout, trace), body.get("n", 1))

    def _ask(self, name, body, timeout):
        return self._start(name, body, timeout).wait()[1]

    def _start(self, name, body, timeout, trace=NO_TRACE):
        if self._closed:
            raise BusError("gone", "this client is closed")
        codec.encode(name, body)  # a request that breaks the schema is refused here, before it waits for anything
        call = Call(self, name, body, timeout or self.timeout, trace)
        self._post("send", call)
        return call

    def close(self):
        if self._closed:
            return
        self._closed = True
        self._post("close", None)
        self._thread.join()
        self._wake.close()
        self._woken.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- the thread ----

    def _post(self, what, call):
        self._commands.put((what, call))
        try:
            self._wake.send(b"x")
        except OSError:
            pass  # full: it will wake anyway; closed: nobody is left to wake

    def _run(self):
        context = zmq.Context()
        try:
            open_ = True
            while open_:
                session = Session(context, self.endpoint, self._incarnation, self._keys)
                try:
                    open_ = self._serve(session)
                    session.close()
                except SessionOver as over:
                    session.socket.close(0)
                    self._fail_all(BusError("gone", str(over)))
                    if over.fatal:
                        self._fault = str(over)
                        self._connected.set()
                        open_ = self._refuse_until_closed()
        finally:
            self._fail_all(BusError("gone", "this client is closed"))
            context.term()

    def _serve(self, session):
        """One session; returns False when the client is closed."""
        poller = zmq.Poller()
        poller.register(session.socket, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        while True:
            poller.poll(session.tick(len(self._pending)) * 1000)
            self._drain_wakes()
            if not self._take_commands(session):
                return False
            while True:
                message = session.receive()
                if not message:
                    break
                self._take_message(*message)
            if session.up:
                self._connected.set()
                self._send_waiting(session)

    def _drain_wakes(self):
        try:
            while self._woken.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _take_commands(self, session):
        while not self._commands.empty():
            what, call = self._commands.get()
            if what == "close":
                return False
            if what == "cancel":
                self._cancel(session, call)
            elif len(self._waiting) >= WAITING_MAX:
                call.events.put(("error", BusError("overloaded", f"{WAITING_MAX} requests wait already")))
            else:
                self._waiting.append(call)
        return True

    def _cancel(self, session, call):
        call.events.put((FINISHED, {}))
        if call in self._waiting:
            self._waiting.remove(call)
        elif self._pending.pop(call.id, None) and session.up and call.name == "text.request":
            session.send("text.cancel", {}, request=call.id)

    def _send_waiting(self, session):
        """In order: a request without a credit holds back those behind it."""
        while self._waiting and (session.credits > 0 or self._waiting[0].name not in codec.COSTS_CREDIT):
            call = self._waiting.popleft()
            try:
                about = {"request": call.id, "deadline_unix_ms": call.deadline_unix_ms, "trace": call.trace}
                session.send(call.name, call.body, **about)
                self._pending[call.id] = call
            except BusError as fault:
                call.events.put(("error", fault))

    def _take_message(self, name, head, body):
        call = self._pending.get(head.request)
        if not call:
            return  # cancelled, or not ours
        call.events.put((name, body))
        if name != "text.delta":
            del self._pending[head.request]
        elif body["finish"] != "none":
            call.n_open -= 1
            if call.n_open == 0:
                del self._pending[head.request]

    def _fail_all(self, fault):
        """Ends what was sent; what waits still waits for the next session, unless there will be none."""
        ended = list(self._pending.values())
        if self._closed or self._fault:
            ended += self._waiting
            self._waiting.clear()
        self._pending.clear()
        for call in ended:
            call.events.put(("error", fault))

    def _refuse_until_closed(self):
        """No session can be had: every request is told why."""
        while True:
            what, call = self._commands.get()
            if what == "close":
                return False
            if what == "send":
                call.events.put(("error", BusError("unauthorized", self._fault)))
