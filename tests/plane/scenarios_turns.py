"""Whose turn it is, and how runs are stopped: windows, places, targets, cancels, timeouts, the agent's own end."""

import asyncio
import os
import signal
import time

from case import Order, check, config, scenario
from codec import CANCELLED, FAILED, MONGODB, QUEUED
from scenarios_backup import check_result, completed, failed, scene, spool_is_empty
from scenarios_hooks import alive, text, until

# So slow that a dump of the scenarios' database takes some ten seconds.
SLOW = {"BACKUPY_BACKUP_MAX_READ_BYTES_PER_SEC": "64 KiB"}

# Begins like a dump and hangs, deaf to SIGTERM, with a child of its own.
HANGING = """#!/bin/sh
trap '' TERM
echo $$ >> {pids}
printf '\\155\\342\\231\\201'
sleep 600 &
echo $! >> {pids}
wait
sleep 600
"""


def window(begin_h, end_h):
    """Hours from now, in the words of the wire."""
    at = [time.strftime("%H:%M", time.gmtime(time.time() + hours * 3600)) for hours in (begin_h, end_h)]
    return {"start_utc": at[0], "end_utc": at[1]}


async def configure(session, plan):
    ack = await session.ask("ConfigUpdate", {"config": plan}, f"config-{plan['version']}")
    check(ack["accepted"], f"{ack}")


async def ended(session, order, status, since, limit_s):
    """The run ends so, within the limit."""
    update = await session.wait_for(
        "JobUpdate", lambda u: order.is_mine(u) and u["status"] == status, timeout=limit_s + 3)
    check(update.at - since < limit_s, f"{update} after {update.at - since:.1f} s")
    return update


async def hanging(case, **spec):
    """An agent whose only job dumps with a tool that hangs; and where that tool writes its process ids."""
    folder, pids = case.folder / "bin", case.folder / "pids"
    folder.mkdir()
    (folder / "mongodump").write_text(HANGING.format(pids=pids))
    (folder / "mongodump").chmod(0o755)
    plan = config(1, "unused", **spec)
    plan["targets"] = [{"id": "target-1", "type": MONGODB, "connection": {"host": "127.0.0.1"}}]
    greet = {"heartbeat": 1, "config": plan}
    plane, agent, session, store, _ = await scene(
        case, database="unused", greet=greet, extra={"PATH": f"{folder}:/usr/bin:/bin"})
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await until("the tool and its child run", lambda: len(text(pids).split()) == 2)
    return plane, agent, session, order, pids


async def nothing_runs(agent, pids):
    await until("no tool is left", lambda: not any(alive(pid) for pid in text(pids).split()), 3)
    spool_is_empty(agent)


@scenario
async def several_cancels_at_once_are_all_done_within_two_seconds_and_hold_up_nothing(case):
    path = case.database()
    plan = config(1, path, pre_hooks=["sleep 300"], post_hooks=["sleep 20"])
    numbers = range(1, 6)
    plan["jobs"] = [{**plan["jobs"][0], "id": f"job-{n}", "target_id": f"target-{n}"} for n in numbers]
    plan["targets"] = [{**plan["targets"][0], "id": f"target-{n}"} for n in numbers]
    plan["advanced"] = {"max_parallel_jobs": len(numbers)}
    plane, agent, session, store, _ = await scene(
        case, database=path, greet={"heartbeat": 1, "config": plan}, extra={"BACKUPY_HOOKS_ENABLED": "true"})
    orders = [Order(agent, store, job=f"job-{n}") for n in numbers]
    for order in orders:
        check((await order.send(session))["accepted"], "refused")
    for order in orders:
        await session.wait_for("JobUpdate", lambda u: order.is_mine(u) and u["current_step"] == "pre_hooks")
    since, place = time.monotonic(), len(session.messages)
    for order in orders:
        await session.send("CancelJob", {"job_id": order.job}, f"cancel-{order.job}")
    await configure(session, {**plan, "version": 2})
    check(time.monotonic() - since < 1.4, "the configuration waited for the cancels")
    for order in orders:
        ack = await session.wait_for("Ack", lambda a: a["correlation_id"] == f"cancel-{order.job}", 5, place)
        check(ack["accepted"] and ack.at - since < 2.2, f"{ack} after {ack.at - since:.1f} s")
        await ended(session, order, CANCELLED, since, 2.2)


@scenario
async def the_maintenance_window_holds_what_nobody_started_by_hand(case):
    path = case.database()
    plan = {**config(1, path, more_jobs=("job-2",)), "maintenance": window(-1, 1)}
    plane, agent, session, store, _ = await scene(case, database=path, greet={"heartbeat": 1, "config": plan})
    held = Order(agent, store)
    ack = await session.ask("RunBackup", held.body(manual_trigger=False), "held")
    check(ack["accepted"], f"{ack}")
    await session.wait_for("JobUpdate", lambda u: held.is_mine(u) and u["status"] == QUEUED)
    # It holds neither the place nor the target.
    by_hand = Order(agent, store, job="job-2")
    check((await by_hand.send(session))["accepted"], "refused")
    check_result(case, await completed(plane, by_hand), by_hand, path)
    check([put["key"] for put in store.puts] == [by_hand.key], "a held run was started")
    await configure(session, {**plan, "version": 2, "maintenance": window(2, 3)})
    check_result(case, await completed(plane, held), held, path)


@scenario
async def two_runs_at_once_and_never_two_on_one_target(case):
    path = case.database()
    plan = config(1, path, more_jobs=("job-2", "job-3"))
    plan["jobs"][2]["target_id"] = "target-2"
    plan["targets"].append({**plan["targets"][0], "id": "target-2"})
    plan["advanced"] = {"max_parallel_jobs": 2}
    plane, agent, session, store, _ = await scene(case, database=path, greet={"heartbeat": 1, "config": plan})
    store.gate.clear()
    orders = [Order(agent, store, job=f"job-{number}") for number in (1, 2, 3)]
    for order in orders:
        check((await order.send(session))["accepted"], "refused")
    await store.wait_for_puts(2)
    await session.wait_for("Heartbeat", lambda beat: len(beat["active_job_ids"]) == 3, timeout=3)
    await asyncio.sleep(0.5)
    keys = {put["key"] for put in store.puts}
    check(keys == {orders[0].key, orders[2].key}, f"{keys}: the second waits for its target")
    store.gate.set()
    for order in orders:
        check_result(case, await completed(plane, order), order, path)


@scenario
async def cancel_job_ends_a_run_that_waits_or_dumps_within_two_seconds(case):
    path = case.database()
    plane, agent, session, store, _ = await scene(case, database=path, extra=SLOW, more_jobs=("job-2",))
    going, waiting = Order(agent, store), Order(agent, store, job="job-2")
    for order in (going, waiting):
        check((await order.send(session))["accepted"], "refused")
    await session.wait_for("JobUpdate", lambda u: going.is_mine(u) and u["current_step"] == "dumping")
    await session.wait_for("JobUpdate", lambda u: waiting.is_mine(u) and u["status"] == QUEUED)
    for order in (waiting, going):
        since = time.monotonic()
        ack = await session.ask("CancelJob", {"job_id": order.job}, f"cancel-{order.job}", timeout=2)
        check(ack["accepted"], f"{ack}")
        await ended(session, order, CANCELLED, since, 2)
    check(not store.puts, "a cancelled run was uploaded")
    spool_is_empty(agent)


@scenario
async def cancel_job_ends_a_tool_that_hangs_with_its_children_within_two_seconds(case):
    plane, agent, session, order, pids = await hanging(case)
    since = time.monotonic()
    ack = await session.ask("CancelJob", {"job_id": order.job}, "cancel", timeout=2)
    check(ack["accepted"], f"{ack}")
    await ended(session, order, CANCELLED, since, 2)
    await nothing_runs(agent, pids)


@scenario
async def a_run_ends_at_its_timeout_and_leaves_no_tool(case):
    since = time.monotonic()
    plane, agent, session, order, pids = await hanging(case, timeout_sec=2)
    update = await ended(session, order, FAILED, since, 8)
    for part in ("2 s", "dumping"):
        check(part in update["error_message"], f"{update}")
    await nothing_runs(agent, pids)


@scenario
async def a_shutdown_leaves_no_tool_and_the_run_begins_again(case):
    plane, agent, session, order, pids = await hanging(case)
    code, seconds = await agent.terminate(timeout=12)
    check(code == 0 and seconds < 10, f"exit {code} after {seconds:.1f} s")
    await nothing_runs(agent, pids)
    (case.folder / "bin" / "mongodump").write_text("#!/bin/sh\necho the second life >&2\nexit 1\n")
    await agent.start()
    await plane.session()
    check("the second life" in (await failed(plane, order))["error_message"], "another end")


@scenario
async def a_killed_agent_leaves_no_tool_running(case):
    plane, agent, session, order, pids = await hanging(case)
    tool, child = text(pids).split()
    agent.process.kill()
    await agent.process.wait()
    await until("the tool is gone with its agent", lambda: not alive(tool), 5)
    # Nobody was left to end this one.
    os.kill(int(child), signal.SIGKILL)
