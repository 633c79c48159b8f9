"""What was promised and what arrived: the agent's own log of what it made durable, against what a server
read. The log line is written after the commit and before anybody acts on it, and a pipe keeps what was
written into it whatever becomes of the writer."""

import asyncio
import contextlib
import json
import time

import websockets

from case import check
from codec import RUNNING

PROMISED = "a durable message is on disk"


def promised(agent):
    """The seqs of all lives, in the order of the log."""
    check(not agent.logged("lines were not taken"), "the log has holes: it proves nothing")
    seqs = []
    for line in agent.lines:
        # A kill may cut the last line of a life.
        with contextlib.suppress(json.JSONDecodeError):
            if PROMISED in line:
                seqs.append(json.loads(line)["seq"])
    return seqs


def is_durable(envelope):
    """The Ack of a Ping is not, and looks like the others: whoever keeps a ledger sends no Pings."""
    return (envelope.kind in ("Ack", "HealthCheckResult", "LogEvent", "BackupCompleted")
            or envelope.kind == "JobUpdate" and envelope["status"] != RUNNING)


def arrived(plane):
    """seq -> the durable message, in the order in which they were first read."""
    first = {}
    for session in plane.sessions:
        for envelope in session.messages:
            if is_durable(envelope):
                first.setdefault(envelope.seq, envelope)
    return first


def check_all_arrived(agent, plane, killed=False):
    """Nothing lost, nothing invented, in order; that a seq stands for the same bytes, the plane has
    checked with each message. Answers how many different messages there were, and how many came again."""
    kept, read = promised(agent), arrived(plane)
    check(len(kept) == len(set(kept)), "a seq was given to two messages")
    lost = sorted(set(kept) - set(read))
    check(not lost, f"{len(lost)} of {len(kept)} durable messages never arrived: seq {lost[:10]}")
    invented = sorted(set(read) - set(kept))
    # A kill can come between the commit and the line of the log.
    check(killed or not invented, f"arrived and never made durable: seq {invented[:10]}")
    order = list(read)
    check(order == sorted(order), "not in the order of their seq")
    came = sum(is_durable(envelope) for session in plane.sessions for envelope in session.messages)
    return len(read), came - len(read)


class Feeder:
    """Asks without end, so that there is always something to answer; and knows what it asked."""

    def __init__(self, plane, pause_s=0.02):
        self.plane, self.pause_s = plane, pause_s
        self.sent = {}      # session -> correlation ids, in order
        self.count = 0
        self.task = asyncio.create_task(self.feed())

    async def feed(self):
        while True:
            await asyncio.sleep(self.pause_s)
            session = self.plane.sessions[-1] if self.plane.sessions else None
            if session is None or session.ended.is_set() or not session.greeted:
                continue
            self.count += 1
            name = f"c-{self.count}"
            self.sent.setdefault(session, []).append(name)
            with contextlib.suppress(websockets.ConnectionClosed):
                await session.send("CancelJob", {"job_id": f"no-{self.count}"}, name)

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def check(self):
        """What one connection carried was taken in order: whatever stands before an answered command was
        taken too, so it must be answered. And nothing is answered that was not asked."""
        answered = {ack["correlation_id"] for ack in self.plane.all("Ack")}
        asked = [name for names in self.sent.values() for name in names]
        check(answered <= set(asked), f"answered and never asked: {sorted(answered - set(asked))[:5]}")
        for names in self.sent.values():
            last = max((at for at, name in enumerate(names) if name in answered), default=0)
            holes = [name for name in names[:last] if name not in answered]
            check(not holes, f"taken and never answered: {holes[:5]} of {names[0]} to {names[-1]}")
        return len(answered)


async def drained(agent, timeout=40):
    """Nothing waits in the agent any more."""
    until = time.monotonic() + timeout
    while True:
        code, out, _ = await agent.command("status", "--json")
        if code == 0:
            status = json.loads(out)
            if status["link"]["state"] == "established" and status["queue"]["depth"] == 0:
                return status
        check(time.monotonic() < until, f"the queue does not drain: {out}")
        await asyncio.sleep(0.2)
