"""The disk fails: full at the start and at work, syncs that fail or hang, read-only, deleted. What was
acknowledged arrives, the agent says what is wrong, and goes on by itself.

Needs root: small file systems are mounted.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from case import Order, check, config, scenario
from scenarios_backup import completed
from scenarios_storm import answered, drained

MIB = 1024 * 1024
SHIM_SOURCE = Path(__file__).parent / "disk_shim.c"


@contextlib.contextmanager
def small_disk(case, size):
    """The state directory on a file system of its own."""
    state = case.folder / "state"
    state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(state)], check=True)
    try:
        yield state
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


def fill(state, leave=0):
    """Takes all room but so many bytes."""
    room = os.statvfs(state)
    path = state / "somebody-elses-log"
    with path.open("ab") as file, contextlib.suppress(OSError):
        wanted = max(0, room.f_bavail * room.f_frsize - leave)
        while wanted > 0:
            wanted -= file.write(bytes(min(wanted, 65536)))
            file.flush()
    return path


async def eventually(what, found, timeout=30):
    until = time.monotonic() + timeout
    while not (answer := found()):
        check(time.monotonic() < until, f"{what} did not come within {timeout} s")
        await asyncio.sleep(0.05)
    return answer


async def disk_scene(case, **extra):
    """An agent with one SQLite job whose state is on the small disk, and whose spool is not."""
    path, store = case.database(rows=200), await case.store()
    extra.setdefault("BACKUPY_BACKUP_SPOOL_DIR", str(case.folder / "spool"))
    plane, agent, session = await case.pair(greet={"heartbeat": 1, "config": config(1, path)}, **extra)
    return plane, agent, session, store


async def accepted(agent, session, store, plane):
    order = Order(agent, store)
    ack = await order.send(session)
    check(ack["accepted"], f"{ack}")
    await completed(plane, order)


@scenario
async def below_the_guard_runs_are_refused_with_the_figures_and_what_was_accepted_ends_well(case):
    with small_disk(case, "160m") as state:
        plane, agent, session, store = await disk_scene(case, BACKUPY_METRICS_LISTEN_ADDR="")
        await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1)
        await accepted(agent, session, store, plane)
        filler = fill(state, leave=60 * MIB)
        refused = await Order(agent, store).send(session)
        check(not refused["accepted"], "a run was taken on below the guard")
        reason = refused["reason"]
        check("MiB are free" in reason and "64 MiB" in reason and "free some space" in reason, reason)
        check(agent.running() and len(plane.sessions) == 1, "the agent did not stay up")
        check(len(agent.logged("the disk is nearly full")) == 1, "said more than once, or not")
        code, out, _ = await agent.command("health-check")
        check(code != 0 and "MiB are free" in out + _, f"health-check is blind to it: {code} {out}")
        await session.wait_for("Heartbeat", lambda beat: beat["metrics"]["disk_total_bytes"]
                               - beat["metrics"]["disk_used_bytes"] < 64 * MIB)
        filler.unlink()
        told = await session.wait_for("LogEvent", lambda log: "takes on new work again" in log["message"], 30)
        check("were not stored" in told["message"], told["message"])
        await accepted(agent, session, store, plane)


@scenario
async def a_disk_that_fills_up_at_work_costs_nothing_that_was_acknowledged(case):
    with small_disk(case, "3m") as state:
        plane, agent, session, store = await disk_scene(case, BACKUPY_MIN_FREE_BYTES="0")
        await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1)
        session.withhold_pongs()
        filler = fill(state, leave=64 * 1024)
        for number in range(3000):
            await session.send("CancelJob", {"job_id": f"no-{number}-{'x' * 400}"}, f"full-{number}")
        await eventually("a full disk", lambda: agent.logged("no space left"))
        await eventually("the last answer", lambda: "full-2999" in answered(plane), timeout=60)
        check(agent.running(), "the agent ended on a full disk")
        refused = await Order(agent, store).send(session)
        check(not refused["accepted"] and "no space" in refused["reason"], f"{refused}")
        filler.unlink()
        await eventually("the way back", lambda: agent.logged("takes changes again"))
        session.cut()
        session = await plane.session(20)
        await accepted(agent, session, store, plane)
        await eventually("every answer", lambda: len(answered(plane) & {f"full-{n}" for n in range(3000)}) == 3000)


@scenario
async def an_agent_starts_on_a_full_disk_connects_and_goes_on_when_there_is_room(case):
    with small_disk(case, "2m") as state:
        filler = fill(state)
        plane, agent, session, store = await disk_scene(case, BACKUPY_MIN_FREE_BYTES="0")
        refused = await Order(agent, store).send(session)
        check(not refused["accepted"], f"{refused}")
        for _ in range(2):
            await agent.kill()
            await agent.start()
            session = await plane.session(20)
            await session.wait_for("Heartbeat")
        filler.unlink()
        await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1, timeout=40)
        await accepted(agent, session, store, plane)
        # And once more, with a state that is there.
        await drained(plane)
        fill(state)
        await agent.kill()
        await agent.start()
        session = await plane.session(20)
        await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1)
        (state / "somebody-elses-log").unlink()
        await asyncio.sleep(0)
        await eventually_accepted(agent, session, store, plane)
        seqs = [envelope.seq for session in plane.sessions for envelope in session.messages]
        check(len(set(seqs)) == len(seqs), "a seq was given twice")


async def eventually_accepted(agent, session, store, plane, timeout=40):
    until = time.monotonic() + timeout
    while True:
        order = Order(agent, store)
        ack = await order.send(session)
        if ack["accepted"]:
            return await completed(plane, order)
        check(time.monotonic() < until, f"still refused: {ack['reason']}")
        await asyncio.sleep(0.5)


class Fault:
    """The shim, switched by a file."""

    def __init__(self, case):
        self.file, library = case.folder / "fault", case.folder / "disk_shim.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SHIM_SOURCE), "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "DISK_FAULT": str(self.file),
                            "DISK_FAULT_DIR": str(case.folder / "state")}

    def now(self, word):
        new = self.file.with_suffix(".new")
        new.write_text(word)
        new.rename(self.file)


async def faulty(case, word, said):
    """A run before, refusals during, and a run after a fault that passes."""
    fault = Fault(case)
    plane, agent, session, store = await disk_scene(case, **fault.environment)
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1)
    await accepted(agent, session, store, plane)
    fault.now(word)
    refused = await Order(agent, store).send(session)
    check(not refused["accepted"] and said in refused["reason"], f"{refused}")
    check(agent.running(), "the agent ended")
    check(len(agent.logged("takes no changes")) == 1, "said more than once, or not")
    code, out, err = await agent.command("health-check")
    check(code != 0, f"health-check is blind to it: {out} {err}")
    fault.now("nothing")
    await eventually("the way back", lambda: agent.logged("takes changes again"))
    await eventually_accepted(agent, session, store, plane)
    await drained(plane)
    await agent.kill()
    await agent.start()
    session = await plane.session(20)
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1)


@scenario
async def a_failed_sync_acknowledges_nothing_and_passes(case):
    await faulty(case, "fsync", "Input/output error")


@scenario
async def a_file_system_that_turned_read_only_is_named_and_passes(case):
    await faulty(case, "write", "Read-only file system")


@scenario
async def a_state_directory_deleted_under_the_agent_comes_back_with_all_that_was_in_it(case):
    plane, agent, session, store = await disk_scene(case)
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1)
    session.withhold_pongs()
    await session.ask("CancelJob", {"job_id": "before"}, "before")
    shutil.rmtree(agent.state)
    await session.ask("CancelJob", {"job_id": "after"}, "after")
    check(agent.logged("was deleted under the agent"), "nothing is said of it")
    await agent.kill()
    await agent.start()
    session = await plane.session(20)
    for correlation_id in ("before", "after"):
        await session.wait_for("Ack", lambda ack, it=correlation_id: ack["correlation_id"] == it)
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1)
    await accepted(agent, session, store, plane)


@scenario
async def a_disk_that_does_not_answer_ends_the_agent_with_one_clear_line_and_nothing_lost(case):
    fault = Fault(case)
    plane, agent, session, store = await disk_scene(case, **fault.environment, WATCHDOG_USEC="6000000")
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1)
    session.withhold_pongs()
    await session.ask("CancelJob", {"job_id": "kept"}, "kept")
    fault.now("hang")
    order = Order(agent, store)
    await session.send("RunBackup", order.body(), "stuck")
    code = await agent.exit(90)
    check(code == 74, f"exit code {code}")
    said = agent.logged("does not answer", "cannot go on")
    check(len(said) == 1 and "kernel's log" in said[0], f"{said}")
    yes = [ack for ack in plane.all("Ack") if ack["correlation_id"] == "stuck" and ack["accepted"]]
    check(not yes, "accepted before it was on the disk")
    fault.now("nothing")
    earlier = len(plane.sessions)
    await agent.start()
    await eventually("what was acknowledged", lambda: any(
        ack["correlation_id"] == "kept" for session in plane.sessions[earlier:] for ack in session.of_kind("Ack")))
