"""Backups over the real channel into a strict object store, opened again without the agent's code."""

import asyncio
import hashlib
import sqlite3
import time

from case import Order, check, config, plaintext_on_disk, rows, scenario
from codec import CANCELLED, FAILED, QUEUED, RUNNING
from reader import plaintext


async def scene(case, tls=True, database=None, greet=None, extra=None, **spec):
    """An agent with one SQLite job, and a store for its objects."""
    path = database or case.database()
    store = await case.store(tls)
    greet = greet or {"heartbeat": 1, "config": config(1, path, **spec)}
    plane, agent, session = await case.pair(greet=greet, **(extra or {}))
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1)
    return plane, agent, session, store, path


async def completed(plane, order, timeout=20, count=1):
    """The run's result, from whatever connection it came by."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        plane.check()
        mine = [done for done in plane.all("BackupCompleted") if order.is_mine(done)]
        if len(mine) >= count:
            return mine[-1]
        bad = [update for update in plane.all("JobUpdate")
               if order.is_mine(update) and update["status"] in (FAILED, CANCELLED)]
        check(not bad, f"the run ended otherwise: {bad}")
        await asyncio.sleep(0.02)
    raise AssertionError(f"no BackupCompleted of {order.run} within {timeout} s")


async def failed(plane, order, timeout=20):
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        for update in plane.all("JobUpdate"):
            if order.is_mine(update) and update["status"] == FAILED:
                check(update["error_message"] and update["job_id"] == order.job, f"{update}")
                return update
        check(not any(map(order.is_mine, plane.all("BackupCompleted"))), "the run succeeded")
        await asyncio.sleep(0.02)
    raise AssertionError(f"no FAILED of {order.run} within {timeout} s")


def check_result(case, done, order, source, compression="zstd", same_bytes=True):
    stored = order.object()
    check(done["size_bytes"] == len(stored), f"{done} against {len(stored)} bytes")
    check(done["sha256"] == hashlib.sha256(stored).hexdigest(), f"{done}")
    check(done["job_id"] == order.job and done["s3_key"] == order.key, f"{done}")
    check(done["encrypted_dek"] == order.dek, "encrypted_dek is not as received")
    check(done["compression"] == compression, f"{done}")
    check(done["db_engine_version"].startswith("SQLite 3."), f"{done}")
    check(0 < done["duration_ms"] < 60_000, f"{done}")
    clear = plaintext(stored, order.dek, compression)
    copy = case.folder / f"restored-{order.run}.db"
    copy.write_bytes(clear)
    check(rows(copy) == rows(source), "the restored rows are not the source's rows")
    if same_bytes:
        check(clear == source.read_bytes(), "the restored file is not the source, byte for byte")
    copy.unlink()
    return clear


def spool_is_empty(agent):
    left = [path for path in (agent.state / "spool").rglob("*") if path.is_file()]
    check(not left, f"left in the spool: {left}")


@scenario
async def a_sqlite_file_is_backed_up_and_opens_again(case):
    plane, agent, session, store, path = await scene(case)
    order = Order(agent, store)
    ack = await order.send(session)
    check(ack["accepted"], f"{ack}")
    done = await completed(plane, order)
    check_result(case, done, order, path)
    put = store.puts[0]
    check(len(store.puts) == 1, f"{len(store.puts)} requests")
    check(int(put["headers"]["content-length"]) == done["size_bytes"], f"{put['headers']}")
    check("authorization" not in put["headers"], "the agent key went to the object store")
    check(not store.refusals, f"{store.refusals}")
    spool_is_empty(agent)
    check(not plaintext_on_disk(agent.state), "a database in the clear under the state directory")
    updates = [update for update in plane.all("JobUpdate") if order.is_mine(update)]
    check(all(update["status"] in (QUEUED, RUNNING) for update in updates), f"{updates}")
    steps = {update["current_step"] for update in updates if update["status"] == RUNNING}
    check(steps <= {"pre_hooks", "dumping", "uploading", "verifying", "post_hooks"}, f"{steps}")


@scenario
async def a_database_in_wal_mode_is_backed_up_under_a_writer(case):
    path = case.database(wal=True)
    writer = sqlite3.connect(path)
    writer.execute("insert into orders (customer) values ('in the WAL only')")
    writer.commit()
    plane, agent, session, store, _ = await scene(case, database=path)
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    check_result(case, await completed(plane, order), order, path, same_bytes=False)
    writer.close()


@scenario
async def gzip_and_none_are_honoured(case):
    import gzip
    path = case.database()
    plane, agent, session, store, _ = await scene(case, database=path, compression="gzip")
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    done = await completed(plane, order)
    check(done["compression"] == "gzip", f"{done}")
    check(gzip.decompress(plaintext(order.object(), order.dek, "gzip")) == path.read_bytes(), "not the source")
    ack = await session.ask("ConfigUpdate", {"config": config(2, path, compression="none")}, "none")
    check(ack["accepted"], f"{ack}")
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    check_result(case, await completed(plane, order), order, path, compression="none")


@scenario
async def an_http_store_is_used_only_with_the_switch(case):
    plane, agent, session, store, path = await scene(case, tls=False)
    order = Order(agent, store)
    ack = await order.send(session)
    if ack["accepted"]:
        update = await failed(plane, order)
        check("http" in update["error_message"].lower(), f"{update}")
    check(not store.puts, "the object went over the network in the clear")


@scenario
async def an_http_store_works_with_the_switch(case):
    plane, agent, session, store, path = await scene(case, tls=False,
                                                     extra={"BACKUPY_DEV_ALLOW_INSECURE": "true"})
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    check_result(case, await completed(plane, order), order, path)


@scenario
async def the_same_order_three_times_is_one_upload(case):
    plane, agent, session, store, path = await scene(case)
    store.gate.clear()
    order = Order(agent, store)
    check((await order.send(session, "first"))["accepted"], "first refused")
    await store.wait_for_puts(1)
    check((await order.send(session, "second"))["accepted"], "second refused")
    store.gate.set()
    first = await completed(plane, order)
    check((await order.send(session, "third"))["accepted"], "third refused")
    again = await completed(plane, order, count=2)
    check(again.body == first.body, f"{again} is not {first}")
    await asyncio.sleep(0.5)
    check(len(store.puts) == 1, f"{len(store.puts)} uploads")
    check_result(case, first, order, path)


@scenario
async def an_unknown_job_is_refused(case):
    plane, agent, session, store, _ = await scene(case)
    order = Order(agent, store, job="job-404")
    ack = await order.send(session)
    check(not ack["accepted"] and "job-404" in ack["reason"], f"{ack}")
    await asyncio.sleep(0.3)
    check(not store.puts, "something was uploaded")


@scenario
async def a_wrapped_key_is_refused_clearly(case):
    plane, agent, session, store, _ = await scene(case)
    order = Order(agent, store)
    ack = await order.send(session, encrypted_dek=bytes(60))
    if ack["accepted"]:
        reason = (await failed(plane, order))["error_message"]
    else:
        reason = ack["reason"]
    check("32" in reason or "key" in reason, reason)
    check(not store.puts, "something was uploaded")


@scenario
async def a_run_goes_on_when_the_link_drops(case):
    plane, agent, session, store, path = await scene(case)
    store.gate.clear()
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await store.wait_for_puts(1)
    await session.wait_for("Heartbeat", lambda beat: order.job in beat["active_job_ids"], timeout=3)
    plane.refuse = (503, {})
    session.cut()
    store.gate.set()
    await asyncio.sleep(0.7)
    check(not plane.all("BackupCompleted"), "a result without a link")
    plane.refuse = None
    done = await completed(plane, order, timeout=15)
    check_result(case, done, order, path)
    check(len(store.puts) == 1, f"{len(store.puts)} uploads: the run was started again")
    session = plane.sessions[-1]
    await session.wait_for("Heartbeat", lambda beat: beat["metrics"]["queue_depth"] == 0, timeout=10,
                           after=len(session.messages))


@scenario
async def a_run_that_was_killed_is_taken_up_again(case):
    plane, agent, session, store, path = await scene(case)
    store.gate.clear()
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await store.wait_for_puts(1)
    highest = plane.highest_seq
    await agent.kill()
    check(not plaintext_on_disk(agent.state), "a database in the clear after kill -9")
    store.gate.set()
    await agent.start()
    await plane.session()
    done = await completed(plane, order)
    check(done.seq > highest, f"seq {done.seq} after {highest}")
    check(done["sha256"] == hashlib.sha256(store.objects[order.key][-1]).hexdigest(), f"{done}")
    check(plaintext(store.objects[order.key][-1], order.dek) == path.read_bytes(), "not the source")
    await asyncio.sleep(1)
    check(len([d for d in plane.all("BackupCompleted") if order.is_mine(d)]) == 1, "two results")
    spool_is_empty(agent)


@scenario
async def a_killed_run_whose_url_has_expired_is_reported_failed(case):
    plane, agent, session, store, _ = await scene(case)
    store.gate.clear()
    order = Order(agent, store, lifetime_s=4)
    check((await order.send(session))["accepted"], "refused")
    await store.wait_for_puts(1)
    await agent.kill()
    await asyncio.sleep(4)
    store.gate.set()
    await agent.start()
    update = await failed(plane, order)
    check("expired" in update["error_message"].lower(), f"{update}")
    spool_is_empty(agent)


@scenario
async def cancel_job_ends_a_run_within_two_seconds(case):
    plane, agent, session, store, _ = await scene(case)
    store.gate.clear()
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await store.wait_for_puts(1)
    start = time.monotonic()
    ack = await session.ask("CancelJob", {"job_id": order.job}, "cancel", timeout=2)
    check(ack["accepted"], f"{ack}")
    update = await session.wait_for("JobUpdate", lambda u: u["status"] == CANCELLED, timeout=3)
    check(update.at - start < 2 and order.is_mine(update), f"{update} after {update.at - start:.1f} s")
    store.gate.set()
    await asyncio.sleep(0.5)
    check(not plane.all("BackupCompleted"), "a result of a cancelled run")
    spool_is_empty(agent)
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "the next run is refused")
    await completed(plane, order)


@scenario
async def an_upload_is_retried_until_it_is_taken(case):
    plane, agent, session, store, path = await scene(case)
    store.answers = [503, 500]
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    check_result(case, await completed(plane, order, timeout=40), order, path)
    check(len(store.puts) == 3, f"{len(store.puts)} requests")


@scenario
async def a_forbidden_upload_is_final_and_says_why(case):
    plane, agent, session, store, _ = await scene(case)
    store.answers = [403]
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    update = await failed(plane, order)
    check("403" in update["error_message"], f"{update}")
    check(order.url.split("?")[1] not in update["error_message"], "the query of the URL is in the error")
    check(len(store.puts) == 1, f"{len(store.puts)} requests")
    spool_is_empty(agent)


@scenario
async def a_missing_database_is_named_in_the_error(case):
    missing = case.folder / "no-such.db"
    plane, agent, session, store, _ = await scene(case, database=missing)
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    update = await failed(plane, order)
    check("no-such.db" in update["error_message"], f"{update}")
    check(not store.puts and not missing.exists(), "it was made")


@scenario
async def a_file_that_is_no_database_is_not_backed_up(case):
    path = case.folder / "letter.db"
    path.write_bytes(b"Dear Sir or Madam, " * 1000)
    plane, agent, session, store, _ = await scene(case, database=path)
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await failed(plane, order)
    check(not store.objects, "something was stored")


@scenario
async def runs_of_several_jobs_wait_for_their_turn(case):
    path = case.database()
    plane, agent, session, store, _ = await scene(case, database=path, more_jobs=("job-2", "job-3"))
    store.gate.clear()
    orders = [Order(agent, store, job=f"job-{number}") for number in (1, 2, 3)]
    for order in orders:
        check((await order.send(session))["accepted"], "refused")
    await store.wait_for_puts(1)
    await session.wait_for("Heartbeat", lambda beat: len(beat["active_job_ids"]) == 3, timeout=3)
    await asyncio.sleep(0.5)
    check(len(store.puts) == 1, f"{len(store.puts)} at once, max_parallel_jobs is 1")
    ack = await session.ask("CancelJob", {"job_id": "job-2"}, "cancel-waiting")
    check(ack["accepted"], f"{ack}")
    store.gate.set()
    for order in (orders[0], orders[2]):
        check_result(case, await completed(plane, order), order, path)
    check(orders[1].key not in store.objects, "the cancelled run was uploaded")


@scenario
async def sigterm_in_a_run_leaves_it_for_the_next_life(case):
    plane, agent, session, store, path = await scene(case)
    store.gate.clear()
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await store.wait_for_puts(1)
    code, seconds = await agent.terminate(timeout=12)
    check(code == 0 and seconds < 10.5, f"exit {code} after {seconds:.1f} s")
    check(await session.closed() == 1000, f"close code {session.close_code}")
    check(not plaintext_on_disk(agent.state), "a database in the clear")
    store.gate.set()
    store.objects.clear()
    await agent.start()
    await plane.session()
    check_result(case, await completed(plane, order), order, path)


@scenario
async def results_wait_on_the_disk_through_a_kill(case):
    """Acked by nobody: the link is gone when the result is made, and the agent is killed after."""
    plane, agent, session, store, path = await scene(case)
    store.gate.clear()
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await store.wait_for_puts(1)
    plane.refuse = (503, {})
    session.cut()
    store.gate.set()
    until = time.monotonic() + 10
    while order.key not in store.objects or [p for p in (agent.state / "spool").rglob("*") if p.is_file()]:
        check(time.monotonic() < until, "the run does not end without a link")
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    await agent.kill()
    plane.refuse = None
    await agent.start()
    check_result(case, await completed(plane, order), order, path)
    check(len(store.puts) == 1, f"{len(store.puts)} uploads")


def big_database(path):
    connection = sqlite3.connect(path)
    connection.execute("create table t (id integer primary key, body text, noise blob)")
    connection.executemany("insert into t (body, noise) values (?, randomblob(400))",
                           ((f"row {number} " * 60,) for number in range(120_000)))
    connection.commit()
    connection.close()


@scenario
async def a_larger_database_is_streamed_in_bounded_memory(case):
    path = case.folder / "big.db"
    await asyncio.to_thread(big_database, path)
    plane, agent, session, store, _ = await scene(case, database=path)
    before = agent.memory("VmHWM")
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    done = await completed(plane, order, timeout=60)
    restored = await asyncio.to_thread(plaintext, order.object(), order.dek)
    check(restored == path.read_bytes(), "not the source")
    extra = (agent.memory("VmHWM") - before) / (1 << 20)
    check(extra < 40, f"{extra:.1f} MiB more for {path.stat().st_size / (1 << 20):.0f} MiB")
    check(done["size_bytes"] > 20 << 20, f"{done}")


@scenario
async def memory_is_given_back_after_runs(case):
    path = case.folder / "big.db"
    await asyncio.to_thread(big_database, path)
    plane, agent, session, store, _ = await scene(case, database=path)
    before = agent.memory("RssAnon")
    for _ in range(5):
        order = Order(agent, store)
        check((await order.send(session))["accepted"], "refused")
        await completed(plane, order, timeout=60)
    kept = (agent.memory("RssAnon") - before) / (1 << 20)
    check(kept < 6, f"{kept:.1f} MiB stayed after five runs")
