"""Bad weather: floods, lost pongs, cuts, kills and odd orders, and nothing lost or done twice."""

import asyncio
import random
import time

from case import Order, check, config, plaintext_on_disk, scenario
from codec import FAILED
from reader import plaintext
from scenarios_backup import completed, failed, scene, spool_is_empty

COMMANDS = 600


async def flood(session, start, count):
    for number in range(start, start + count):
        await session.send("CancelJob", {"job_id": f"no-{number}"}, f"c-{number}")


def answered(plane):
    return {ack["correlation_id"] for ack in plane.all("Ack")}


async def drained(plane, timeout=20):
    """The newest link says that nothing waits any more."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        beats = [beat for session in plane.sessions[-1:] for beat in session.of_kind("Heartbeat")]
        if beats and beats[-1]["metrics"]["queue_depth"] == 0 and beats[-1].at > until - timeout + 1:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the queue does not drain")


async def queued(session, count):
    """The agent counts so many messages as waiting: they are on its disk."""
    await session.wait_for("Heartbeat", lambda beat: beat["metrics"]["queue_depth"] >= count, timeout=20)


@scenario
async def what_no_pong_confirmed_comes_again_as_it_was(case):
    async def deaf(session):
        session.withhold_pongs()

    plane = await case.plane(greet={"heartbeat": 1}, after_greeting=deaf)
    await case.agent(plane).start()
    session = await plane.session()
    await flood(session, 0, 20)
    await queued(session, 20)
    session.cut()
    session = await plane.session()
    await session.wait_for("Ack", lambda ack: ack["correlation_id"] == "c-19")
    first = {ack.seq: ack.raw for ack in session.of_kind("Ack")}
    check(len(first) == 20, f"{len(first)} answers of 20")
    plane.after_greeting = None
    session.cut()
    session = await plane.session()
    await session.wait_for("Ack", lambda ack: ack["correlation_id"] == "c-19")
    again = session.of_kind("Ack")
    check([ack.seq for ack in again] == sorted(first), "what came again is not all, or not in order")
    check(all(ack.raw == first[ack.seq] for ack in again), "what came again was changed")
    await drained(plane)
    session.cut()
    session = await plane.session()
    await session.wait_for("Heartbeat")
    await asyncio.sleep(0.5)
    check(not session.of_kind("Ack"), "what was confirmed came again")


@scenario
async def commands_through_ever_breaking_links_are_all_answered(case):
    plane, agent, session = await case.pair(greet={"heartbeat": 1})
    sent = 0
    for _ in range(4):
        await flood(session, sent, COMMANDS // 4)
        sent += COMMANDS // 4
        # What the agent has not read yet is lost with the line: the server would send it again.
        await session.wait_for("Ack", lambda ack, last=f"c-{sent - 1}": ack["correlation_id"] == last, timeout=30)
        await asyncio.sleep(random.uniform(0, 0.1))
        session.cut()
        session = await plane.session(timeout=20)
    await drained(plane)
    missing = {f"c-{number}" for number in range(sent)} - answered(plane)
    check(not missing, f"{len(missing)} of {sent} were never answered")


@scenario
async def answers_survive_kills_and_no_seq_is_used_twice(case):
    async def deaf(session):
        session.withhold_pongs()

    plane = await case.plane(greet={"heartbeat": 1}, after_greeting=deaf)
    agent = await case.agent(plane).start()
    session = await plane.session()
    for life in range(3):
        await flood(session, life * 100, 100)
        await queued(session, life * 100 + 100)
        await agent.kill()
        if life == 2:
            plane.after_greeting = None
        await agent.start()
        session = await plane.session()
    await drained(plane)
    seqs = [ack.seq for ack in session.of_kind("Ack")]
    check(seqs == sorted(seqs), "not in the order of their seq")
    missing = {f"c-{number}" for number in range(300)} - {a["correlation_id"] for a in session.of_kind("Ack")}
    check(not missing, f"{len(missing)} of 300 were lost")


@scenario
async def a_server_that_does_not_read_costs_no_memory(case):
    plane, agent, session = await case.pair(greet={"heartbeat": 1})
    await session.wait_for("Heartbeat")
    before = agent.memory("VmHWM")
    session.socket.transport.pause_reading()
    long_name = "x" * 3000
    sent = 0
    until = time.monotonic() + 8
    while time.monotonic() < until and sent < 8000 and not session.socket.transport.is_closing():
        if session.socket.transport.get_write_buffer_size() > 1 << 20:
            await asyncio.sleep(0.01)
            continue
        session.plane.seq += 1
        await session.send("CancelJob", {"job_id": f"{long_name}{sent}"}, f"m-{sent}")
        sent += 1
    extra = (agent.memory("VmHWM") - before) / (1 << 20)
    check(extra < 24, f"{extra:.1f} MiB more after {sent} commands of 3 kB that nobody hears the answers of")
    session.socket.transport.resume_reading()
    await asyncio.sleep(0.2)
    check(agent.running(), "the agent died")


@scenario
async def a_run_through_five_kills_is_one_result(case):
    plane, agent, session, store, path = await scene(case)
    store.gate.clear()
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    for life in range(1, 6):
        await store.wait_for_puts(life)
        await agent.kill()
        if life == 5:
            store.gate.set()
        await agent.start()
    done = await completed(plane, order)
    check(plaintext(order.object(), order.dek) == path.read_bytes(), "not the source")
    await asyncio.sleep(1)
    check({d.seq for d in plane.all("BackupCompleted")} == {done.seq}, "more than one result")
    check(not plaintext_on_disk(agent.state), "a database in the clear")
    spool_is_empty(agent)


@scenario
async def odd_orders_are_refused_or_fail_and_harm_nothing(case):
    plane, agent, session, store, path = await scene(case)
    outside = sorted(p for p in case.folder.rglob("*") if "state" not in p.parts)

    async def no_good(name, order, **other):
        ack = await order.send(session, f"odd-{name}", **other)
        if ack["accepted"]:
            reason = (await failed(plane, order, timeout=10))["error_message"]
        else:
            reason = ack["reason"]
        check(reason, f"{name}: no reason")
        check(order.url.split("X-Amz-Signature=")[1] not in reason, f"{name}: the signature is in the reason")

    for name, creds in (
        ("no-creds", None), ("no-url", {"final_s3_key": "k"}),
        ("garbage-url", {"presigned_put_url": "::::", "expires_at_ms": 1 << 45, "final_s3_key": "k"}),
        ("ftp", {"presigned_put_url": "ftp://127.0.0.1/x", "expires_at_ms": 1 << 45, "final_s3_key": "k"}),
        ("expired", {"presigned_put_url": "https://127.0.0.1:1/x", "expires_at_ms": 1, "final_s3_key": "k"}),
    ):
        order = Order(agent, store, run=f"run-{name}")
        body = order.body()
        body.pop("upload_creds")
        ack_body = dict(body, **({"upload_creds": creds} if creds else {}))
        ack = await session.ask("RunBackup", ack_body, f"odd-{name}")
        if ack["accepted"]:
            update = await failed(plane, order, timeout=10)
            check(update["error_message"], f"{name}: no reason")
        else:
            check(ack["reason"], f"{name}: no reason")
    await no_good("no-run-id", Order(agent, store, run=""), run_id="")
    await no_good("short-key", Order(agent, store), encrypted_dek=b"short")
    await no_good("no-key", Order(agent, store), encrypted_dek=b"")
    check(not store.objects, f"{list(store.objects)}")

    # A name is opaque: it may not lead anywhere.
    for run in ("../../../evil", "a/b\\c:d", "ä" * 60, "x" * 300):
        order = Order(agent, store, run=run)
        order.key = f"odd-{len(store.signatures)}"
        order.url, order.expires_at_ms, _ = store.presign(order.key)
        ack = await order.send(session, f"odd-{run[:20]}")
        if ack["accepted"]:
            await completed(plane, order)
            check(plaintext(order.object(), order.dek) == path.read_bytes(), f"{run}: not the source")
    check(sorted(p for p in case.folder.rglob("*") if "state" not in p.parts) == outside, "files elsewhere")
    spool_is_empty(agent)


@scenario
async def a_command_without_a_correlation_id_is_done_without_an_ack(case):
    plane, agent, session, store, path = await scene(case)
    order = Order(agent, store)
    await session.send("RunBackup", order.body())
    await completed(plane, order)
    await session.send("ConfigUpdate", {"config": config(2, path)})
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 2)
    check(not session.of_kind("Ack"), f"{session.of_kind('Ack')}")
    ack = await session.ask("ConfigUpdate", {}, "empty")
    check(not ack["accepted"] and ack["reason"], f"a ConfigUpdate without a config: {ack}")


@scenario
async def a_run_ends_at_its_timeout(case):
    plane, agent, session, store, path = await scene(case, timeout_sec=1)
    store.gate.clear()
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    start = time.monotonic()
    update = await failed(plane, order, timeout=6)
    check(0.7 < time.monotonic() - start < 4, f"{time.monotonic() - start:.1f} s")
    check("1 s" in update["error_message"] or "timeout" in update["error_message"], f"{update}")
    spool_is_empty(agent)


@scenario
async def an_upload_that_breaks_in_the_middle_is_sent_again(case):
    plane, agent, session, store, path = await scene(case)
    store.answers = ["cut", "cut"]
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await completed(plane, order, timeout=40)
    check(plaintext(order.object(), order.dek) == path.read_bytes(), "not the source")
    check(len(store.puts) == 3, f"{len(store.puts)} requests")


@scenario
async def a_store_that_kept_something_else_is_noticed(case):
    plane, agent, session, store, path = await scene(case)
    store.etag = "0123456789abcdef0123456789abcdef"
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    until = time.monotonic() + 30
    while not [u for u in plane.all("JobUpdate") if order.is_mine(u) and u["status"] == FAILED]:
        check(not plane.all("BackupCompleted"), "a result although the ETag is not the object's")
        check(time.monotonic() < until, "no FAILED")
        await asyncio.sleep(0.05)


@scenario
async def noise_below_the_websocket_layer_ends_a_link_and_not_the_agent(case):
    noise = random.Random(20)
    plane, agent, session = await case.pair(greet={"heartbeat": 1})
    for _ in range(6):
        await asyncio.sleep(1.1)
        session.write_raw(b"\xff" + noise.randbytes(noise.choice((3, 40, 5000, 300_000))))
        code = await session.closed(timeout=10)
        check(code in (1002, 1007, 1009), f"close code {code}")
        session = await plane.session(timeout=10)
    await session.ask("Ping", {}, "alive")
