"""Hooks: code that the server sends, run only where the host's owner lets it."""

import asyncio
import os
import signal
import time
from pathlib import Path

from case import Order, check, config, scenario
from codec import CANCELLED, FAILED
from scenarios_backup import completed, failed, scene, spool_is_empty

ON = {"BACKUPY_HOOKS_ENABLED": "true", "A_SECRET_OF_THE_HOST": "host-secret-in-the-environment"}


def alive(pid):
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


async def until(what, condition, timeout=10):
    end = time.monotonic() + timeout
    while not (found := condition()):
        check(time.monotonic() < end, f"not within {timeout} s: {what}")
        await asyncio.sleep(0.02)
    return found


def text(path):
    return path.read_text() if path.exists() else ""


@scenario
async def hooks_are_refused_where_they_are_off(case):
    mark = case.folder / "mark"
    plane, agent, session, store, _ = await scene(case, pre_hooks=[f"touch {mark}"])
    ack = await Order(agent, store).send(session)
    check(not ack["accepted"] and ack["reason"] == "hooks are disabled on this agent", f"{ack}")
    register = plane.all("Register")[0]
    check("hooks" not in register["capabilities"], f"{register}")
    await asyncio.sleep(0.3)
    check(not mark.exists() and not store.puts, "something was run")


@scenario
async def hooks_run_around_a_backup_and_know_it_and_no_secret(case):
    mark = case.folder / "mark"
    show = f"echo $BACKUPY_HOOK $BACKUPY_JOB_ID $BACKUPY_RUN_ID $BACKUPY_TARGET_ID $BACKUPY_STATUS >> {mark}; env"
    plane, agent, session, store, _ = await scene(
        case, extra=ON, pre_hooks=[show, "echo second"], post_hooks=[show, "exit 3"])
    check("hooks" in plane.all("Register")[0]["capabilities"], "the capability is not told")
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await completed(plane, order)
    check(text(mark) == f"pre job-1 {order.run} target-1\npost job-1 {order.run} target-1 success\n", text(mark))
    logs = [log for log in plane.all("LogEvent") if log["fields"].get("run_id") == order.run]
    said = "\n".join(log["fields"].get("output", "") for log in logs)
    check("second" in said and "BACKUPY_RUN_ID" in said, f"the output is not told: {logs}")
    for secret in (agent.key, "host-secret-in-the-environment", "AGENT_KEY", "CREDENTIALS", "NOTIFY"):
        check(secret not in said, f"{secret} is in a hook's environment")
    warned = [log["message"] for log in logs if "post-hook 2 of 2 failed" in log["message"]]
    check(warned, f"a failed post-hook is not told: {logs}")
    steps = {update["current_step"] for update in plane.all("JobUpdate")}
    check(steps <= {"pre_hooks", "dumping", "uploading", "verifying", "post_hooks", ""}, f"{steps}")


@scenario
async def a_failed_pre_hook_ends_the_run_before_its_dump_and_post_hooks_still_run(case):
    mark = case.folder / "mark"
    plane, agent, session, store, _ = await scene(
        case, extra=ON, pre_hooks=["echo the tape is full >&2; exit 9"],
        post_hooks=[f"echo $BACKUPY_STATUS $BACKUPY_ERROR > {mark}"])
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    update = await failed(plane, order)
    for part in ("pre-hook 1 of 1", "exit code 9", "the tape is full"):
        check(part in update["error_message"], f"{update}")
    check(not store.puts, "it was dumped all the same")
    check(text(mark).startswith("failed pre-hook 1 of 1 failed"), text(mark))
    spool_is_empty(agent)


@scenario
async def a_hook_has_its_time_and_is_killed_with_all_its_children(case):
    pids = case.folder / "pids"
    hook = f"trap '' TERM; sleep 300 & echo $! >> {pids}; echo $$ >> {pids}; wait; sleep 300"
    plane, agent, session, store, _ = await scene(
        case, extra={**ON, "BACKUPY_HOOKS_TIMEOUT": "1s"}, pre_hooks=[hook])
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    update = await failed(plane, order)
    check("did not end within 1 s" in update["error_message"], f"{update}")
    await until("no child left", lambda: not any(map(alive, text(pids).split())), 3)
    check(len(text(pids).split()) == 2, text(pids))


async def cancelled(session, order, start):
    ack = await session.ask("CancelJob", {"job_id": order.job}, "cancel", timeout=3)
    check(ack["accepted"], f"{ack}")
    update = await session.wait_for("JobUpdate", lambda u: u["status"] == CANCELLED, timeout=3)
    check(order.is_mine(update) and update.at - start < 2, f"{update} after {update.at - start:.1f} s")


@scenario
async def cancel_in_a_pre_hook_is_told_at_once_while_a_slow_post_hook_ends_in_peace(case):
    pids, mark = case.folder / "pids", case.folder / "mark"
    plane, agent, session, store, _ = await scene(
        case, extra=ON, pre_hooks=[f"echo $$ > {pids}; sleep 300"],
        post_hooks=[f"sleep 4; echo $BACKUPY_STATUS >> {mark}"])
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await until("the pre-hook", lambda: text(pids))
    start = time.monotonic()
    await cancelled(session, order, start)
    await until("the post-hook's end", lambda: text(mark) == "cancelled\n")
    check(not alive(text(pids).strip()), "the pre-hook is left")


@scenario
async def a_cancel_in_a_post_hook_ends_it_and_the_stored_backup_counts(case):
    pids = case.folder / "pids"
    plane, agent, session, store, _ = await scene(
        case, extra=ON, post_hooks=[f"echo $$ > {pids}; sleep 300"])
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await until("the post-hook", lambda: text(pids))
    start = time.monotonic()
    await session.ask("CancelJob", {"job_id": order.job}, "cancel", timeout=3)
    await completed(plane, order, timeout=3)
    check(time.monotonic() - start < 2.5, "the cancel took long")
    await until("no hook left", lambda: not alive(text(pids).strip()), 3)
    check(not any(u["status"] in (CANCELLED, FAILED) for u in plane.all("JobUpdate")), "it was stored")


async def the_agent_ends_in_the_post_hooks(case, end):
    mark, go = case.folder / "mark", case.folder / "go"
    plane, agent, session, store, _ = await scene(
        case, extra=ON, post_hooks=[f"echo $BACKUPY_STATUS >> {mark}; [ -e {go} ] || sleep 300"])
    order = Order(agent, store, lifetime_s=4)
    check((await order.send(session))["accepted"], "refused")
    await until("the post-hook", lambda: text(mark))
    check(not plane.all("BackupCompleted"), "the result came before the post-hooks")
    await end(agent)
    go.touch()
    await until("the URL is over", lambda: time.time() * 1000 > order.expires_at_ms)
    await agent.start()
    done = await completed(plane, order)
    await until("the post-hooks once more", lambda: text(mark) == "success\nsuccess\n")
    check(len(store.puts) == 1 and done["size_bytes"] == len(order.object()), f"{len(store.puts)} PUTs, {done}")
    spool_is_empty(agent)


@scenario
async def a_kill_in_the_post_hooks_of_a_good_run_costs_neither_its_result_nor_another_dump(case):
    await the_agent_ends_in_the_post_hooks(case, lambda agent: agent.kill())


@scenario
async def sigterm_in_the_post_hooks_of_a_good_run_loses_none_of_them(case):
    await the_agent_ends_in_the_post_hooks(case, lambda agent: agent.terminate(timeout=12))


@scenario
async def what_stops_the_post_hooks_of_a_failed_run_does_not_hide_why_it_failed(case):
    for stopped_by in ("timeout_sec", "CancelJob"):
        plane, agent, session, store, _ = await scene(
            case, database=case.folder / "missing.db", extra={**ON, "BACKUPY_STATE_DIR": str(case.folder / stopped_by)},
            post_hooks=["sleep 6"], timeout_sec=2 if stopped_by == "timeout_sec" else 600)
        order = Order(agent, store)
        check((await order.send(session))["accepted"], "refused")
        if stopped_by == "CancelJob":
            await session.wait_for("JobUpdate", lambda u: u["current_step"] == "post_hooks")
            ack = await session.ask("CancelJob", {"job_id": order.job}, "cancel", timeout=3)
            check(ack["accepted"], f"{ack}")
        update = await failed(plane, order, timeout=5)
        check("does not exist" in update["error_message"], f"{stopped_by}: {update}")
        told = [log["message"] for log in plane.all("LogEvent") if "in its post-hooks" in log["message"]]
        check(told, f"{stopped_by}: that the post-hooks went on was not told")
        check((await agent.terminate(timeout=12))[0] == 0, "it did not end well")


@scenario
async def sigterm_in_a_pre_hook_ends_everything_within_ten_seconds(case):
    pids, mark = case.folder / "pids", case.folder / "mark"
    plane, agent, session, store, _ = await scene(
        case, extra=ON, pre_hooks=[f"echo $$ >> {pids}; sleep ${{BACKUPY_PRE:-300}}"],
        post_hooks=[f"echo $BACKUPY_STATUS >> {mark}", "sleep 3"])
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await until("the pre-hook", lambda: text(pids))
    code, seconds = await agent.terminate(timeout=12)
    check(code == 0 and seconds < 10, f"exit {code} after {seconds:.1f} s")
    check(text(mark) == "interrupted\n", text(mark))
    check(not alive(text(pids).split()[0]), "a hook outlived its agent")
    await agent.start()
    await plane.session()
    await until("the run begins again", lambda: len(text(pids).split()) == 2)
    os.kill(int(text(pids).split()[1]), signal.SIGKILL)
    check("signal 9" in (await failed(plane, order))["error_message"], "another end")


@scenario
async def no_hook_shows_the_targets_password_wherever_it_is_kept(case):
    kept = case.folder / "kept"
    kept.mkdir()
    secrets = {"env": "pass'word \"of the\" environment", "file": "pass word of the file \u00fc", "credential": "of systemd"}
    (kept / "file").write_text(secrets["file"] + "\n")
    (kept / "db").write_text(secrets["credential"])
    extra = {**ON, "A_PASSWORD": secrets["env"], "CREDENTIALS_DIRECTORY": str(kept)}
    references = {"env": "env:A_PASSWORD", "file": f"file:{kept}/file", "credential": "credential:db"}
    database = case.database()
    plane, agent, session, store, _ = await scene(case, database=database, extra=extra)
    for version, (kind, reference) in enumerate(references.items(), start=2):
        secret = secrets[kind]
        agent.secrets[f"the password in {kind}"] = secret
        said = kept / "said"
        said.write_text(f"it is {secret}, shown\n")
        spec = {"password": reference, "pre_hooks": [f"cat {said}", f"cat {said} >&2; exit 1"]}
        await session.ask("ConfigUpdate", {"config": config(version, database, **spec)}, f"config-{version}")
        await session.wait_for("Heartbeat", lambda beat, version=version: beat["config_version"] == version)
        order = Order(agent, store)
        check((await order.send(session))["accepted"], "refused")
        error = (await failed(plane, order))["error_message"]
        check("it is ***, shown" in error and secret not in error, error)
        logs = [log for log in plane.all("LogEvent") if log["fields"].get("run_id") == order.run]
        outputs = [log["fields"]["output"] for log in logs if "output" in log["fields"]]
        check(outputs == ["it is ***, shown\n"] * 2 and secret not in f"{logs}", f"{logs}")


@scenario
async def the_agent_key_stands_nowhere_in_the_process(case):
    plane, agent, session, store, _ = await scene(case)
    for name in ("environ", "cmdline"):
        check(agent.key not in agent.proc(name), f"the agent key stands in /proc/PID/{name}")
    check("BACKUPY_STATE_DIR" in agent.proc("environ"), "the environment was not read at all")
    limits = [line.split() for line in agent.proc("limits").splitlines() if line.startswith("Max core")]
    check(limits and limits[0][4:6] == ["0", "0"], f"core files are allowed: {limits}")
    check(os.readlink(f"/proc/{agent.pid}/fd/0").startswith(("pipe:", "/dev/null")), "standard input")
    agent.process.send_signal(signal.SIGHUP)
    await asyncio.sleep(0.5)
    check(agent.running() and not agent.logged("ERROR"), "a reload lost the key")
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await completed(plane, order)
