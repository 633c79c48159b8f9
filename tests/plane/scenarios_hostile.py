"""Servers that mean harm: the agent's memory stays where it was, the link ends with the right code where it
must end, and an honest server is served afterwards.
"""

import asyncio
import os
import random
import time

from case import check, config, scenario
from chaos import Proxy
from codec import Envelope, delimited, varint

MIB = 1 << 20
# RSS that an attack may cost.
EXTRA_MIB = 16
# The log of a flood is a flood: what is measured is the agent, not this reader of its log.
QUIET = {"BACKUPY_LOG_LEVEL": "info"}


class Watch:
    """The peak of the agent's memory from here on."""

    def __init__(self, agent):
        self.agent, self.before = agent, agent.memory("VmHWM")

    def check(self, what, allowed=EXTRA_MIB):
        check(self.agent.running(), f"{what}: the agent died: {self.agent.tail()}")
        extra = (self.agent.memory("VmHWM") - self.before) / MIB
        check(extra < allowed, f"{what}: it cost {extra:.1f} MiB")
        return extra


async def quiet_pair(case, **greet):
    plane, agent, session = await case.pair(greet={"heartbeat": 1, **greet}, **QUIET)
    await session.wait_for("Heartbeat")
    return plane, agent, session, Watch(agent)


async def honest(plane, session, what):
    """The link, or the next one, still serves."""
    if session.ended.is_set():
        session = await plane.session(timeout=20)
    ack = await session.ask("Ping", {}, f"after {what}", timeout=30)
    check(ack["accepted"], f"{ack}")
    await session.wait_for("Heartbeat", timeout=10, after=len(session.messages))
    return session


async def pour(session, block, times, limit_s=60):
    """A block of frames again and again, as fast as the agent takes it; answers how many times."""
    until = time.monotonic() + limit_s
    for done in range(times):
        while session.socket.transport.get_write_buffer_size() > MIB:
            check(time.monotonic() < until, f"taken {done} of {times} blocks in {limit_s} s")
            await asyncio.sleep(0.002)
        if session.ended.is_set() or session.socket.transport.is_closing():
            return done
        session.write_raw(block)
        await asyncio.sleep(0)
    return times


def frame(payload, first=0x82):
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 1 << 16:
        return bytes([first, 126]) + size.to_bytes(2, "big") + payload
    return bytes([first, 127]) + size.to_bytes(8, "big") + payload


@scenario(heavy=True)
async def a_million_tiny_frames_are_taken_and_cost_nothing(case):
    plane, agent, session, watch = await quiet_pair(case)
    for what, piece in (("empty texts", b"\x81\x00"), ("empty envelopes", b"\x82\x00"),
                        ("pings", b"\x89\x00"), ("pongs that nobody asked for", b"\x8a\x04pong")):
        check(await pour(session, piece * 5000, 50) == 50, f"{what}: the link ended")
        session = await honest(plane, session, what)
        watch.check(what)
    check(len(plane.sessions) == 1, "the link was given up")


@scenario(heavy=True)
async def fragments_without_content_are_refused(case):
    plane, agent, session, watch = await quiet_pair(case)
    await pour(session, b"\x02\x00" + b"\x00\x00" * 5000, 1)
    check(await session.closed() in (1002, 1008, 1009), f"close code {session.close_code}")
    session = await plane.session(timeout=20)
    await pour(session, b"\x02\x01x", 1)
    # A message of very many very small fragments ends at the limit of a message as any other.
    await pour(session, (b"\x00\x10" + bytes(16)) * 5000, 60)
    check(await session.closed(30) == 1009, f"close code {session.close_code}")
    watch.check("fragments")
    await honest(plane, session, "fragments")


@scenario
async def compressed_frames_are_refused_although_the_upgrade_was_answered_with_compression(case):
    plane, agent, session, watch = await quiet_pair(case)
    bomb = bytes([0x2a, 0x49]) * 500
    session.write_raw(frame(bomb, 0xc2))
    check(await session.closed() == 1002, f"close code {session.close_code}")
    watch.check("a compressed frame")
    await honest(plane, session, "compression")


@scenario(heavy=True)
async def a_flood_of_register_acks_changes_nothing(case):
    plane, agent, session, watch = await quiet_pair(case)
    bare = frame(Envelope("RegisterAck", {"session_id": "flood", "heartbeat_interval_sec": 7}, 1, 1).encode())
    check(await pour(session, bare * 1000, 100) == 100, "the link ended")
    session = await honest(plane, session, "a flood of RegisterAcks")
    watch.check("100,000 RegisterAcks")
    check(len(session.of_kind("Register")) == 1, "it registered again")
    _, out, _ = await agent.command("status", "--json")
    check('"session_id": "flood"' not in out, "a later RegisterAck renamed the session")


async def many_versions(case, count, limit_s):
    plane, agent, session, watch = await quiet_pair(case)
    start = time.monotonic()
    for first in range(1, count + 1, 100):
        block = b"".join(
            frame(Envelope("ConfigUpdate", {"config": config(version, "/nowhere.db")}, version, 1).encode())
            for version in range(first, min(first + 100, count + 1)))
        check(await pour(session, block, 1, limit_s) == 1, "the link ended")
    # Those that want an answer are each applied.
    for version in range(count + 1, count + 51):
        await session.send("ConfigUpdate", {"config": config(version, "/nowhere.db")}, f"v-{version}")
    count += 50
    await session.wait_for("Ack", lambda ack: ack["correlation_id"] == f"v-{count}", timeout=limit_s)
    check(all(ack["accepted"] for ack in session.of_kind("Ack")) and len(session.of_kind("Ack")) == 50, "refusals")
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == count, timeout=limit_s)
    extra = watch.check(f"{count} versions")
    size = sum(path.stat().st_size for path in (case.folder / "state").rglob("*") if path.is_file())
    check(size < 16 * MIB, f"the state has grown to {size / MIB:.1f} MiB")
    print(f"       {count} config versions: {time.monotonic() - start:.1f} s, {extra:.1f} MiB more, "
          f"{size / MIB:.1f} MiB of state", flush=True)
    await honest(plane, session, "a flood of versions")


@scenario(heavy=True)
async def a_flood_of_config_versions_ends_with_the_last_one(case):
    await many_versions(case, 20_000, 60)


@scenario(long=True, heavy=True, limit_s=1500)
async def the_long_form_of_the_config_versions_is_a_million(case):
    await many_versions(case, 1_000_000, 1400)


@scenario(heavy=True)
async def a_flood_of_pings_of_the_contract_is_answered_or_dropped(case):
    plane, agent, session, watch = await quiet_pair(case)
    for batch in range(5):
        block = b"".join(frame(Envelope("Ping", {"ts_ms": 1}, 1, 1, f"p-{batch}-{n}").encode()) for n in range(1000))
        check(await pour(session, block, 1) == 1, "the link ended")
    session = await honest(plane, session, "5,000 Pings")
    watch.check("5,000 Pings")


def inflating_config():
    """4 MB on the wire, two million targets in memory."""
    empty_target = b"\x12\x00"
    agent_config = b"\x08\x02" + empty_target * 2_000_000
    update = delimited(1, agent_config)
    return varint(8) + varint(1) + delimited(3, b"inflated") + delimited(51, update)


@scenario(heavy=True)
async def a_config_that_decoding_inflates_is_refused(case):
    plane, agent, session, watch = await quiet_pair(case)
    await session.socket.send(inflating_config())
    ended = asyncio.ensure_future(session.ended.wait())
    refused = asyncio.ensure_future(session.wait_for("Ack", timeout=60))
    await asyncio.wait((ended, refused), timeout=30, return_when=asyncio.FIRST_COMPLETED)
    check(ended.done() or refused.done(), "neither refused nor closed within 30 s")
    for task in (ended, refused):
        task.cancel()
    if session.ended.is_set():
        check(session.close_code in (1007, 1008, 1009), f"close code {session.close_code}")
    else:
        check(not refused.result()["accepted"] and refused.result()["reason"], f"{refused.result()}")
    watch.check("two million empty targets")
    session = await honest(plane, session, "a config that decoding inflates")
    check(session.of_kind("Heartbeat")[-1]["config_version"] == 0, "it was applied")


def large_configs():
    """As large as a configuration may be: on the wire, and once it is decoded."""
    text = config(1, "/nowhere.db")
    text["targets"][0]["display_name"] = "x" * (4 * MIB - 1000)
    yield "one text of 4 MiB", text
    yield "texts of 4 MiB", {"targets": [{"id": f"t-{n}", "display_name": "x" * 4000} for n in range(1000)]}
    site = config(1, "/nowhere.db")
    site["targets"] += [{"id": f"t-{n}", "type": 6, "display_name": f"shop {n}",
                         "connection": {"database": f"/srv/{n}.db"}} for n in range(6000)]
    site["jobs"] += [{"id": f"j-{n}", "target_id": f"t-{n}", "cron": "0 3 * * *", "compression": "zstd",
                      "retry": {"max_attempts": 3, "backoff_seconds": [60, 300]}} for n in range(6000)]
    yield "6,000 jobs with their targets", site


@scenario(heavy=True)
async def the_largest_configurations_cost_bounded_memory(case):
    for number, (what, large) in enumerate(large_configs()):
        plane = await case.plane(greet={"heartbeat": 1})
        agent = await case.agent(plane, state=f"state-{number}", **QUIET).start()
        session = await plane.session()
        await session.wait_for("Heartbeat")
        watch = Watch(agent)
        # The second replaces the first, which stays applied until it is stored.
        for version, allowed in ((1, EXTRA_MIB), (2, EXTRA_MIB + 4)):
            ack = await session.ask("ConfigUpdate", {"config": {**large, "version": version}}, f"{version}", timeout=60)
            check(ack["accepted"], f"{what}: {ack}")
            await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == version)
            print(f"       {what}, version {version}: {watch.check(what, allowed):.1f} MiB more", flush=True)
        # Another life reads it back.
        await agent.terminate()
        await agent.start()
        session = await plane.session(timeout=20)
        check(session.register["last_known_config_version"] == 2, f"{what}: it was not kept")
        await agent.terminate()


@scenario(heavy=True)
async def configurations_that_decoding_inflates_do_not_pile_up(case):
    """Each is below every limit: 20 kB on the wire, megabytes in memory."""
    plane, agent, session, watch = await quiet_pair(case)
    count = 200
    for version in range(1, count + 1):
        head = varint(8) + varint(version) + delimited(3, f"v-{version}".encode())
        agent_config = varint(8) + varint(version) + b"\x12\x00" * 10_000
        await session.socket.send(head + delimited(51, delimited(1, agent_config)))
    await session.wait_for("Ack", lambda ack: ack["correlation_id"] == f"v-{count}", timeout=90)
    print(f"       {count} inflated configurations: {watch.check('inflated configurations'):.1f} MiB more", flush=True)
    await honest(plane, session, "inflated configurations")


async def hostile_first(case, handle, tls=True, connections=1):
    """A server whose first connections are handled so, and whose later ones reach an honest plane."""
    context = case.authority.server_context() if tls else None
    enemy = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    case.closing.append(lambda: closed(enemy))
    plane = await case.plane(greet={"heartbeat": 1})
    proxy = await Proxy(plane.port).start()
    case.closing.append(proxy.stop)
    proxy.targets = [enemy.sockets[0].getsockname()[1]] * connections
    agent = await case.agent(proxy.url, **QUIET).start()
    return plane, agent


async def closed(server):
    server.close()


async def flood(writer, block, limit_s=30):
    """Until the other side has had enough; answers how many bytes it took."""
    sent, until = 0, time.monotonic() + limit_s
    try:
        while time.monotonic() < until:
            if writer.transport.is_closing():
                break
            writer.write(block)
            await writer.drain()
            # Draining what fits into a buffer lets nobody else have a turn, not even the news of the end.
            await asyncio.sleep(0)
            sent += len(block)
    except OSError:
        pass
    finally:
        writer.transport.abort()
    return sent


@scenario
async def an_upgrade_that_is_answered_without_end_is_given_up_early(case):
    taken = []

    async def endless(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
        taken.append(await flood(writer, b"X-Header: " + b"a" * 4000 + b"\r\n"))

    async def one_header(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nX-Header: ")
        taken.append(await flood(writer, b"a" * 16384))

    async def refusal(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n")
        taken.append(await flood(writer, b"4000\r\n" + b"a" * 16384 + b"\r\n"))

    ways = [endless, one_header, refusal]

    async def each(reader, writer):
        await ways[len(taken) % len(ways)](reader, writer)

    plane, agent = await hostile_first(case, each, connections=3)
    await asyncio.sleep(0.3)
    watch = Watch(agent)
    session = await plane.session(timeout=40)
    check(len(taken) == 3, f"{taken}")
    # What the buffers of two sockets and of TLS hold is out of the agent's hands.
    check(max(taken) < 24 * MIB, f"it took {[round(size / MIB, 1) for size in taken]} MiB")
    watch.check("answers without end")
    await honest(plane, session, "answers without end")


@scenario
async def an_upgrade_that_trickles_is_given_up_after_fifteen_seconds(case):
    begin = []

    async def trickle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        begin.append(time.monotonic())
        try:
            for byte in b"HTTP/1.1 101 Switching Protocols\r\n" + b"X-Slow: yes\r\n" * 100:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.25)
        except OSError:
            pass

    plane, agent = await hostile_first(case, trickle)
    session = await plane.session(timeout=30)
    took = session.opened_at - begin[0]
    check(15 < took < 19, f"the next session came after {took:.1f} s")
    check(agent.logged("no connection within 15 s"), f"the log does not say why: {agent.tail()}")
    await honest(plane, session, "a trickled upgrade")


@scenario
async def tls_that_is_garbage_or_has_no_end_is_given_up(case):
    noise, taken = random.Random(4), []
    record = b"\x16\x03\x03\x40\x00"
    ways = [lambda: noise.randbytes(16384), lambda: record + b"\x02\xff\xff\xff" + bytes(16380),
            lambda: record + bytes(16384), lambda: b"\x16\x03\x03\xff\xff" + bytes(65535), lambda: b"HTTP/1.1 400 \r\n"]

    async def garbage(reader, writer):
        await reader.read(100)
        way = ways[len(taken) % len(ways)]
        taken.append(0)
        place = len(taken) - 1
        taken[place] = await flood(writer, way(), limit_s=16)

    plane, agent = await hostile_first(case, garbage, tls=False, connections=len(ways))
    await asyncio.sleep(0.3)
    watch = Watch(agent)
    session = await plane.session(timeout=100)
    check(len(taken) == len(ways), f"{taken}")
    watch.check("garbage instead of TLS")
    check(agent.logged("TLS failed"), f"the log does not say that it is TLS: {agent.tail()}")
    await honest(plane, session, "garbage instead of TLS")


@scenario
async def noise_inside_an_established_tls_stream_ends_the_link_only(case):
    plane = await case.plane(greet={"heartbeat": 1})
    proxy = await Proxy(plane.port).start()
    case.closing.append(proxy.stop)
    agent = await case.agent(proxy.url, **QUIET).start()
    session = await plane.session()
    await session.wait_for("Heartbeat")
    watch = Watch(agent)
    proxy.lines[-1].ends["to the agent"].write(os.urandom(100_000))
    session = await plane.session(timeout=20)
    watch.check("noise inside TLS")
    await honest(plane, session, "noise inside TLS")

