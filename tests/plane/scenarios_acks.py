"""End-to-end acks, against docs/acks.md: a server that selected `backupy.ack.v1` confirms each durable message
by its seq, in whatever order; and a server that did not is served with the barrier.
"""

import asyncio
import json
import time

from case import check, scenario
from ledger import arrived, check_all_arrived, drained, is_durable

PROTOCOL = "backupy.ack.v1"
WINDOW = 256
READ = 64
OLDEST_S = 30


class Acks:
    """A server's side. Nothing is acknowledged but by a call."""

    def __init__(self, plane):
        self.plane = plane

    async def say(self, session, *seqs, accepted=True, reason=""):
        for seq in seqs:
            await session.send("Ack", {"correlation_id": str(seq), "accepted": accepted, "reason": reason})


def durable(session):
    return [envelope for envelope in session.messages if is_durable(envelope)]


async def came(session, count, timeout=20):
    """The first `count` durable messages of a connection."""
    until = time.monotonic() + timeout
    while len(durable(session)) < count:
        session.check()
        check(not session.ended.is_set(), f"the link ended after {len(durable(session))} of {count}")
        check(time.monotonic() < until, f"{len(durable(session))} of {count} messages came")
        await asyncio.sleep(0.02)
    return [envelope.seq for envelope in durable(session)[:count]]


async def acking(case, commands=0, **extra):
    """An agent whose server selected acks; its first answers are under way."""
    plane = await case.plane(greet={"heartbeat": 1}, subprotocol=PROTOCOL)
    agent = await case.agent(plane, **extra).start()
    session = await plane.session()
    check(PROTOCOL in plane.requests[0].headers.get("Sec-WebSocket-Protocol", ""), "acks are not offered")
    await ask(session, 0, commands)
    return plane, agent, session, Acks(plane)


async def ask(session, first, count):
    """Each of these is answered by a durable message."""
    for number in range(first, first + count):
        await session.send("CancelJob", {"job_id": f"no-{number}"}, f"c-{number}")


async def queue(agent):
    code, out, err = await agent.command("status", "--json")
    check(code == 0, f"status: {err}")
    return json.loads(out)["queue"]


async def waits(agent, depth, timeout=10):
    """So many messages are on the agent's disk."""
    until = time.monotonic() + timeout
    while (state := await queue(agent))["depth"] != depth:
        check(time.monotonic() < until, f"{depth} messages should wait: {state}")
        await asyncio.sleep(0.05)
    return state


async def nothing_comes_again(plane, session):
    """The line breaks; the next link brings no durable message."""
    session.cut()
    session = await plane.session(timeout=20)
    await session.wait_for("Heartbeat")
    await asyncio.sleep(0.7)
    check(not durable(session), f"what was acknowledged came again: {durable(session)[:3]}")
    return session


@scenario
async def acks_in_any_order_doubled_or_unknown_confirm_what_they_name(case):
    plane, agent, session, acks = await acking(case, 40)
    seqs = await came(session, 40)
    await waits(agent, 40)
    await acks.say(session, *seqs[:10])
    await waits(agent, 30)
    await acks.say(session, *reversed(seqs[20:30]))
    await waits(agent, 20)
    never_sent = (0, seqs[-1] + 1000, 2**64 - 1)
    await acks.say(session, *seqs[:10], *seqs[20:30], *never_sent)
    for name in ("", "x", "-1", str(2**64), "c-10 "):
        await session.send("Ack", {"correlation_id": name, "accepted": True})
    await session.ask("Ping", {}, "alive")
    await waits(agent, 20)
    await acks.say(session, *seqs[30:], *seqs[10:20])
    state = await waits(agent, 0)
    check(state["in_flight"] == 0 and state["refused"] == 0, f"{state}")
    await nothing_comes_again(plane, session)
    check(len(plane.sessions) == 2, "an ack that means nothing ended a link")


@scenario
async def pongs_confirm_nothing_where_acks_were_selected(case):
    plane, agent, session, acks = await acking(case, 20)
    seqs = await came(session, 20)
    await asyncio.sleep(2.5)
    await waits(agent, 20)
    raw = {envelope.seq: envelope.raw for envelope in durable(session)}
    session.cut()
    session = await plane.session(timeout=20)
    check(await came(session, 20) == seqs, "not the same, in the same order")
    check(all(envelope.raw == raw[envelope.seq] for envelope in durable(session)), "changed on the way")
    await acks.say(session, *seqs)
    await waits(agent, 0)


@scenario
async def what_was_not_acked_before_a_cut_comes_again_and_only_that(case):
    plane, agent, session, acks = await acking(case, 60)
    seqs = await came(session, 60)
    acked = seqs[:20] + seqs[40:50:2]
    await acks.say(session, *acked)
    await waits(agent, 60 - len(acked))
    left = [seq for seq in seqs if seq not in acked]
    session.cut()
    session = await plane.session(timeout=20)
    check(await came(session, len(left)) == left, "what came again is not what was left")
    # A kill in the middle of it changes nothing.
    await acks.say(session, *left[:5])
    await waits(agent, len(left) - 5)
    await agent.kill()
    await agent.start()
    session = await plane.session(timeout=20)
    check(await came(session, len(left) - 5) == left[5:], "what a kill left is not what was left")
    await ask(session, 60, 5)
    new = (await came(session, len(left)))[-5:]
    check(min(new) > max(seqs), f"a seq of an earlier life: {new}")
    await acks.say(session, *left[5:], *new)
    await waits(agent, 0)
    await nothing_comes_again(plane, session)


@scenario
async def what_a_server_refuses_for_good_goes_to_the_quarantine_and_blocks_nobody(case):
    plane, agent, session, acks = await acking(case, 12)
    seqs = await came(session, 12)
    await acks.say(session, seqs[3], seqs[7], accepted=False, reason="no such agent")
    await acks.say(session, *(seq for seq in seqs if seq not in (seqs[3], seqs[7])))
    state = await waits(agent, 0)
    check(state["refused"] == 2, f"{state}")
    _, out, _ = await agent.command("status")
    check("2 refused" in out, f"status does not tell of it:\n{out}")
    check(agent.logged("no such agent"), "the log does not say why")
    session = await nothing_comes_again(plane, session)
    await agent.terminate()
    code, out, err = await agent.command("state", "inspect", "--json")
    kept = json.loads(out)["quarantine"] if code == 0 else err
    check([(record["seq"], record["why"]) for record in kept] == [(seqs[3], "refused"), (seqs[7], "refused")],
          f"{kept}")


@scenario
async def at_most_a_window_is_in_flight_and_it_rolls_with_the_acks(case):
    plane, agent, session, acks = await acking(case, WINDOW + 100)
    await waits(agent, WINDOW + 100)
    await asyncio.sleep(1)
    # Less than a read's worth of room may be left while messages come in one by one.
    held = [envelope.seq for envelope in durable(session)]
    check(WINDOW - READ < len(held) <= WINDOW, f"{len(held)} messages in flight")
    # The oldest holds its own place, and no other's.
    await acks.say(session, *held[1:])
    every = await came(session, WINDOW + 100)
    await acks.say(session, held[0], *every[len(held):])
    await waits(agent, 0)
    check(every == sorted(set(every)), "not in order, or doubled")
    # A new link begins with a full one.
    session.cut()
    session = await plane.session(timeout=20)
    await ask(session, 1000, WINDOW + 100)
    await waits(agent, WINDOW + 100)
    session.cut()
    session = await plane.session(timeout=20)
    await came(session, WINDOW)
    await asyncio.sleep(1)
    check(len(durable(session)) == WINDOW, f"{len(durable(session))} messages in flight after a reconnect")


@scenario
async def a_server_that_acks_everything_at_once_gets_everything_once(case):
    plane = await case.plane(greet={"heartbeat": 1}, subprotocol=PROTOCOL)
    agent = await case.agent(plane).start()
    session = await plane.session()
    told = 0

    async def acknowledge():
        # Register, heartbeats and what is durable, all alike.
        nonlocal told
        while True:
            async with session.arrived:
                while told == len(session.messages):
                    await session.arrived.wait()
            fresh, told = session.messages[told:], len(session.messages)
            await Acks(plane).say(session, *(envelope.seq for envelope in fresh))

    task = asyncio.create_task(acknowledge())
    await ask(session, 0, 1500)
    await came(session, 1500, timeout=60)
    await drained(agent)
    task.cancel()
    count, again = check_all_arrived(agent, plane)
    check(count >= 1500 and again == 0, f"{count} messages, {again} came again")


@scenario
async def an_odd_choice_of_subprotocol_is_served_with_the_barrier(case):
    for number, choice in enumerate((None, "backupy.ack.v2", "chat", "BACKUPY.ACK.V1x")):
        plane = await case.plane(greet={"heartbeat": 1}, subprotocol=choice)
        agent = await case.agent(plane, state=f"state-{number}").start()
        session = await plane.session()
        await ask(session, 0, 20)
        seqs = await came(session, 20)
        await waits(agent, 0)
        check(len(plane.sessions) == 1, f"{choice}: the link was given up")
        await nothing_comes_again(plane, session)
        check(sorted(arrived(plane)) == seqs, f"{choice}: {arrived(plane)}")
        await agent.kill()


@scenario(long=True)
async def the_oldest_unacked_message_ends_the_link_after_thirty_seconds(case):
    plane, agent, session, acks = await acking(case, 5)
    seqs = await came(session, 5)
    sent = time.monotonic()
    await asyncio.sleep(1)
    # The newer ones do not help the oldest.
    await acks.say(session, *seqs[1:])
    code = await session.closed(timeout=OLDEST_S + 10)
    took = time.monotonic() - sent
    check(code == 1001, f"close code {code}")
    check(OLDEST_S - 2 < took < OLDEST_S + 4, f"{took:.1f} s")
    session = await plane.session(timeout=10)
    check(await came(session, 1) == seqs[:1], "the next link does not begin with the oldest")
    await acks.say(session, seqs[0])
    await waits(agent, 0)
