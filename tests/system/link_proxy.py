"""TCP proxies between the services of a cluster: what goes through them can be cut, delayed, muted or half closed."""

import asyncio
import socket
import threading

CHUNK_BYTES = 1 << 16
DELAY_S = 0.3


class Link:
    """One port for all connections of a caller to one process."""

    def __init__(self, loop, target_port):
        self.loop, self.target_port, self.writers = loop, target_port, set()
        self.delay_s = 0
        self.open = asyncio.Event()  # cleared: bytes wait
        self.open.set()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]

    async def serve(self):
        self.server = await asyncio.start_server(self.accept, sock=self.listening)

    async def accept(self, reader, writer):
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.close()
            return
        pair = (writer, back)
        self.writers.add(pair)
        try:
            await asyncio.gather(self.forward(reader, back), self.forward(there, writer))
        finally:
            self.writers.discard(pair)
            for w in pair:
                w.close()

    async def forward(self, reader, writer):
        try:
            while data := await reader.read(CHUNK_BYTES):
                await self.open.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except (OSError, RuntimeError):
            writer.close()

    async def strike(self, what, hold_s):
        if what == "cut":  # with a reset, as a machine that went away
            for pair in list(self.writers):
                for w in pair:
                    w.transport.abort()
        elif what == "half-close":  # one side says that it has nothing more to say
            for _, back in list(self.writers):
                if back.can_write_eof() and not back.transport.is_closing():
                    back.write_eof()
        elif what == "delay":
            self.delay_s = DELAY_S
            await asyncio.sleep(hold_s)
            self.delay_s = 0
        else:  # mute: connected, and nothing comes through
            self.open.clear()
            await asyncio.sleep(hold_s)
            self.open.set()


class LinkProxies:
    """All of them on one thread."""

    def __init__(self):
        self.links = {}
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def port(self, caller, called, target_port):
        """Where `caller` finds the process `called`, which listens on target_port."""
        key = (caller, called)
        if key not in self.links:
            self.links[key] = Link(self.loop, target_port)
            self.run(self.links[key].serve())
        return self.links[key].port

    def names(self):
        return sorted(self.links)

    def strike(self, key, what, hold_s):
        self.run(self.links[key].strike(what, hold_s))

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
