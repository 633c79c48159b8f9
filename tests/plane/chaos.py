"""Bad weather between the agent and its control plane: a TCP proxy that TLS passes through untouched.

Each connection gets its own story from a seed that is printed: calm for a moment, then one fault in one
direction or both, for a while, then calm again or the end of the line.
"""

import asyncio
import collections
import contextlib
import random
import socket
import struct

UP, DOWN = "to the server", "to the agent"
BOTH = (UP, DOWN)
# What can happen to a direction. A fault that loses bytes leaves a hole in the TLS stream, so what comes
# after it can never be mistaken for a message.
CALM, STALL, SWALLOW, TRICKLE, BYTEWISE, PARTIAL = (
    "calm", "stall", "half-open", "trickle", "one byte at a time", "reset inside a frame")
CUT, RESET = "cut", "reset"
FAULTS = (STALL, SWALLOW, TRICKLE, BYTEWISE, PARTIAL, CUT, RESET)
CHUNK = 16384


class Line:
    """One connection through the proxy."""

    def __init__(self, agent, server):
        self.ends = {UP: server, DOWN: agent}
        self.mood = dict.fromkeys(BOTH, CALM)
        self.changed = asyncio.Event()
        self.over = asyncio.Event()

    def set(self, mood, ways=BOTH):
        for way in ways:
            self.mood[way] = mood
        self.changed.set()
        self.changed = asyncio.Event()

    def end(self, reset=False):
        """Both sides see the end: in order, or as a reset."""
        for writer in self.ends.values():
            with contextlib.suppress(OSError, AttributeError):
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    writer.transport.abort()
                else:
                    writer.close()
        self.over.set()
        self.changed.set()

    async def carry(self, reader, way, noise):
        writer = self.ends[way]
        try:
            while not self.over.is_set() and (data := await reader.read(CHUNK)):
                await self.forward(writer, way, data, noise)
        except OSError:
            pass
        finally:
            self.end()

    async def forward(self, writer, way, data, noise):
        while data and not self.over.is_set():
            mood = self.mood[way]
            if mood == STALL:
                await self.changed.wait()
                continue
            if mood == SWALLOW:
                return
            if mood == PARTIAL:
                writer.write(data[:max(1, noise.randrange(len(data)))])
                with contextlib.suppress(OSError):
                    await writer.drain()
                # The bytes leave the socket before the reset, which would drop them.
                await asyncio.sleep(0.02)
                return self.end(reset=True)
            size = {TRICKLE: noise.randrange(1, 400), BYTEWISE: 1}.get(mood, len(data))
            if writer.transport.is_closing():
                return self.end()
            writer.write(data[:size])
            await writer.drain()
            data = data[size:]
            if mood == TRICKLE:
                await asyncio.sleep(noise.uniform(0.002, 0.03))
            elif mood == BYTEWISE:
                await asyncio.sleep(0)


class Proxy:
    """Listens; `targets` are used up one a connection, then `port` is where everybody goes."""

    def __init__(self, port, seed=None, calm_s=(0.2, 1.6), fault_s=(0.1, 1.5)):
        self.target, self.targets = port, []
        self.noise = random.Random(seed) if seed is not None else None
        self.calm_s, self.fault_s = calm_s, fault_s
        self.lines, self.tasks = [], set()
        self.happened = collections.Counter()
        self.fair = seed is None

    async def start(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"
        return self

    async def stop(self):
        self.server.close()
        for line in self.lines:
            line.end(reset=True)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def clear_up(self):
        """From now on nothing goes wrong, after a last cut."""
        self.fair = True
        for line in self.lines:
            line.end(reset=True)

    async def accept(self, reader, writer):
        target = self.targets.pop(0) if self.targets else self.target
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            return writer.close()
        for each in (writer, back_writer):
            each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = Line(writer, back_writer)
        self.lines.append(line)
        # One source of chance a connection, so that a story does not hang on the timing of another.
        noise = random.Random(self.noise.random() if self.noise else 0)
        work = [line.carry(reader, UP, noise), line.carry(back_reader, DOWN, noise)]
        if not self.fair:
            work.append(self.story(line, noise))
        for coroutine in work:
            task = asyncio.create_task(coroutine)
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        await line.over.wait()

    async def story(self, line, noise):
        while not line.over.is_set():
            await asyncio.sleep(noise.uniform(*self.calm_s))
            if self.fair or line.over.is_set():
                return
            fault, ways = noise.choice(FAULTS), noise.choice([(UP,), (DOWN,), BOTH])
            self.happened[fault] += 1
            if fault in (CUT, RESET):
                return line.end(reset=fault == RESET)
            line.set(fault, ways)
            await asyncio.sleep(noise.uniform(*self.fault_s))
            if noise.random() < 0.3:
                return line.end(reset=noise.random() < 0.5)
            line.set(CALM)
