"""A control plane that is not ours: a WebSocket server that says what a scenario tells it to say, and
holds every envelope of the agent against the contract.
"""

import asyncio
import contextlib
import time

import websockets
from websockets.asyncio.server import serve
from websockets.frames import Opcode

from codec import Envelope, Malformed, decode_envelope

CONNECT_PATH = "/v1/agents/connect"


class Violation(AssertionError):
    """The agent broke the contract."""


class Session:
    """One connection of the agent."""

    def __init__(self, plane, socket):
        self.plane, self.socket = plane, socket
        self.opened_at = time.monotonic()
        self.messages, self.violations = [], []
        self.registered = asyncio.Event()
        self.greeted = False
        self.arrived = asyncio.Condition()
        self.ended = asyncio.Event()
        self.close_code = None

    @property
    def register(self):
        return self.messages[0]

    async def pump(self):
        try:
            while True:
                frame = await self.socket.recv()
                if isinstance(frame, str):
                    raise Violation("the agent sent a text frame")
                await self.take(decode_envelope(frame))
        except websockets.ConnectionClosed:
            pass
        except (Malformed, Violation) as violation:
            self.violations.append(violation)
        finally:
            await self.finish()

    async def take(self, envelope):
        envelope.at = time.monotonic()
        if (envelope.kind == "Register") != (not self.messages):
            raise Violation(f"{envelope.kind} is message number {len(self.messages) + 1} of the connection")
        self.plane.check_seq(envelope)
        self.messages.append(envelope)
        self.registered.set()
        async with self.arrived:
            self.arrived.notify_all()

    async def finish(self):
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.socket.wait_closed(), 10)
        close = self.socket.protocol.close_rcvd
        self.close_code = close.code if close else None
        self.ended.set()
        async with self.arrived:
            self.arrived.notify_all()

    def check(self):
        if self.violations:
            raise self.violations[0]

    async def wait_for(self, kind, matches=lambda envelope: True, timeout=10, after=0):
        """The first message of that kind from place `after` on that matches."""
        def found():
            self.check()
            for envelope in self.messages[after:]:
                if envelope.kind == kind and matches(envelope):
                    return envelope
            return None

        with _deadline(timeout, lambda: f"{kind} did not come; came: {summary(self.messages[-30:])}") as clock:
            async with self.arrived:
                while not (envelope := found()):
                    if self.ended.is_set():
                        raise AssertionError(f"the connection ended (code {self.close_code}) before {kind}; "
                                             f"came: {summary(self.messages[-30:])}")
                    await asyncio.wait_for(self.arrived.wait(), clock.left())
                return envelope

    def of_kind(self, kind):
        return [envelope for envelope in self.messages if envelope.kind == kind]

    async def send(self, kind, body, correlation_id=""):
        self.plane.seq += 1
        envelope = Envelope(kind, body, self.plane.seq, int(time.time() * 1000), correlation_id)
        await self.socket.send(envelope.encode())

    async def ask(self, kind, body, correlation_id, timeout=10):
        """Sends a command and answers its Ack."""
        place = len(self.messages)
        await self.send(kind, body, correlation_id)
        ack = await self.wait_for("Ack", lambda ack: ack["correlation_id"] == correlation_id, timeout, place)
        if ack.correlation_id != correlation_id:
            raise Violation(f"the envelope of the Ack has correlation_id {ack.correlation_id!r}")
        return ack

    async def acknowledge(self, heartbeat=1, config=None):
        body = {"session_id": f"session-{len(self.plane.sessions)}", "heartbeat_interval_sec": heartbeat,
                "server_time_iso": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        if config:
            body["config"] = config
        await self.send("RegisterAck", body)
        self.greeted = True

    def write_raw(self, data):
        """Bytes below the WebSocket layer."""
        self.socket.transport.write(data)

    async def stream_raw(self, total, chunk=65536, deadline_s=20):
        """Zeros below the WebSocket layer until all are out or the connection ends; answers how many."""
        sent, until = 0, time.monotonic() + deadline_s
        while sent < total and not self.ended.is_set() and time.monotonic() < until:
            if self.socket.transport.is_closing():
                break
            if self.socket.transport.get_write_buffer_size() > 1 << 20:
                await asyncio.sleep(0.005)
                continue
            self.write_raw(bytes(chunk))
            sent += chunk
            await asyncio.sleep(0)
        return sent

    def withhold_pongs(self):
        """The server reads on, and its pongs get lost."""
        protocol = self.socket.protocol
        send = protocol.send_frame
        protocol.send_frame = lambda frame: None if frame.opcode is Opcode.PONG else send(frame)

    def cut(self):
        """The line breaks: no close frame."""
        self.socket.transport.abort()

    async def closed(self, timeout=10):
        """The code of the agent's close frame; None where it sent none."""
        try:
            await asyncio.wait_for(self.ended.wait(), timeout)
        except TimeoutError:
            raise AssertionError(f"the connection was not ended within {timeout} s") from None
        self.check()
        return self.close_code


class Plane:
    """Listens; hands out sessions in the order in which the agent made them."""

    def __init__(self):
        self.sessions, self.waiting = [], asyncio.Queue()
        self.attempts, self.requests = [], []
        self.seen, self.seq = {}, 0
        self.highest_seq = 0
        self.refuse = None          # (status, headers): how an upgrade is refused
        self.greet = {"heartbeat": 1}  # arguments of RegisterAck; None: the scenario says it itself
        self.after_greeting = None
        self.subprotocol = None     # what the answer to an upgrade selects, offered or not

    async def start(self, ssl=None, port=0, host="127.0.0.1"):
        self.server = await serve(self.handle, host, port, ssl=ssl, process_request=self.admit, max_size=None,
                                  process_response=self.select, ping_interval=None, compression=None, close_timeout=5)
        self.port = self.server.sockets[0].getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if ssl else 'http'}://{name}:{self.port}"
        return self

    async def stop(self):
        self.server.close(close_connections=False)
        for session in self.sessions:
            session.cut()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.server.wait_closed(), 5)

    async def admit(self, connection, request):
        self.attempts.append(time.monotonic())
        self.requests.append(request)
        if self.refuse:
            status, headers = self.refuse
            response = connection.respond(status, "refused by the scenario\n")
            for key, value in headers.items():
                response.headers[key] = value
            return response
        return None

    def select(self, connection, request, response):
        if self.subprotocol is not None and response.status_code == 101:
            response.headers["Sec-WebSocket-Protocol"] = self.subprotocol

    async def handle(self, socket):
        session = Session(self, socket)
        self.sessions.append(session)
        pump = asyncio.create_task(session.pump())
        try:
            if self.greet is not None:
                with contextlib.suppress(TimeoutError, websockets.ConnectionClosed):
                    await asyncio.wait_for(session.registered.wait(), 15)
                    await session.acknowledge(**self.greet)
                    if self.after_greeting:
                        await self.after_greeting(session)
            self.waiting.put_nowait(session)
        finally:
            await pump

    async def session(self, timeout=10):
        """The next connection, registered and greeted."""
        try:
            return await asyncio.wait_for(self.waiting.get(), timeout)
        except TimeoutError:
            raise AssertionError(f"no connection within {timeout} s ({len(self.attempts)} attempts)") from None

    async def attempt(self, number, timeout):
        """The time of the n-th dial, from 1."""
        with _deadline(timeout, lambda: f"dial {number} did not come; there were {len(self.attempts)}") as clock:
            while len(self.attempts) < number:
                clock.left()
                await asyncio.sleep(0.01)
            return self.attempts[number - 1]

    def check_seq(self, envelope):
        """A seq is given once: what comes again under it is the same envelope, byte for byte."""
        known = self.seen.setdefault(envelope.seq, envelope)
        if known is not envelope and known.raw != envelope.raw:
            raise Violation(f"seq {envelope.seq} stands for two messages: {known} and {envelope}")
        if envelope.seq == 0:
            raise Violation(f"{envelope.kind} has no seq")
        if known is envelope and abs(envelope.ts_ms - time.time() * 1000) > 60_000:
            raise Violation(f"ts_ms {envelope.ts_ms} is no unix time in milliseconds")
        self.highest_seq = max(self.highest_seq, envelope.seq)

    def all(self, kind):
        """Every message of that kind, over all connections."""
        return [envelope for session in self.sessions for envelope in session.of_kind(kind)]

    def check(self):
        for session in self.sessions:
            session.check()


def summary(messages):
    return ", ".join(f"{m.kind}" + (f"({m['correlation_id']})" if m.kind == "Ack" else
                                    f"({m['error_message'] or m['current_step']})" if m.kind == "JobUpdate" else "")
                     for m in messages) or "nothing"


class _deadline:
    def __init__(self, timeout, message):
        self.until, self.message = time.monotonic() + timeout, message

    def left(self):
        left = self.until - time.monotonic()
        if left <= 0:
            raise AssertionError(self.message())
        return left

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is TimeoutError:
            raise AssertionError(self.message()) from None
