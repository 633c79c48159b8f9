"""What an operator sees of a working agent: status, metrics, dump-state, credentials, a full disk."""

import asyncio
import contextlib
import json
import os
import socket
import time

from case import Order, check, config, scenario
from scenarios_backup import completed, scene

NAMES = ("backupy_agent_runs_total", "backupy_agent_run_duration_seconds", "backupy_agent_run_size_bytes",
         "backupy_agent_wss_connection_state", "backupy_agent_wss_reconnects_total",
         "backupy_agent_dispatch_pending", "backupy_agent_build_info")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def scrape(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    text = (await asyncio.wait_for(reader.read(), 5)).decode()
    writer.close()
    return text


@scenario
async def status_metrics_and_dump_state_tell_what_is_so(case):
    port = free_port()
    plane, agent, session, store, path = await scene(
        case, extra={"BACKUPY_METRICS_LISTEN_ADDR": f"127.0.0.1:{port}"})
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await completed(plane, order)
    code, out, _ = await agent.command("status", "--json")
    status = json.loads(out)
    check(code == 0 and status["link"]["state"] == "established", out)
    check(status["link"]["session_id"] == "session-1" and status["config_version"] == 1, out)
    check(status["pid"] == agent.pid and status["link"]["reconnects"] == 0, out)
    code, out, err = await agent.command("health-check")
    check(code == 0, f"{code}: {out}{err}")
    text = await scrape(port)
    for name in NAMES:
        check(name in text, f"no metric {name}")
    check(f'{NAMES[0]}{{job_id="job-1",status="success"}} 1' in text, text[:3000])
    check(f'{NAMES[3]}{{state="established"}} 1' in text, text[:3000])
    for title, secret in agent.secrets.items():
        check(secret not in text, f"{title} is in the metrics")
    code, out, _ = await agent.command("dump-state")
    check(code == 0 and order.run in out and "job-1" in out, out)

    start = len(plane.sessions)
    await asyncio.sleep(1.1)
    session.cut()
    await plane.session()
    check(len(plane.sessions) == start + 1, "more than one connection")
    code, out, _ = await agent.command("status", "--json")
    check(json.loads(out)["link"]["reconnects"] == 1, out)
    check(f"{NAMES[4]} 1" in await scrape(port), "the reconnect is not counted")


@scenario
async def the_key_comes_from_the_init_systems_credentials(case):
    plane = await case.plane()
    agent = case.agent(plane)
    folder = case.folder / "credentials"
    folder.mkdir()
    (folder / "agent-key").write_text(agent.key + "\n")
    del agent.environment["BACKUPY_AGENT_KEY"]
    agent.environment["CREDENTIALS_DIRECTORY"] = str(folder)
    await agent.start()
    await plane.session()
    check(plane.requests[0].headers["Authorization"] == f"Bearer {agent.key}", "another key")


@scenario
async def an_idle_agent_does_next_to_nothing(case):
    _, agent, session = await case.pair(greet={"heartbeat": 30})
    await session.wait_for("Heartbeat")
    await asyncio.sleep(2)

    def cpu_ms():
        total = 0
        for task in os.listdir(f"/proc/{agent.pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{agent.pid}/task/{task}/schedstat") as file:
                total += int(file.read().split()[0])
        return total / 1e6

    before = cpu_ms()
    await asyncio.sleep(10)
    spent = cpu_ms() - before
    # A debug build on a busy machine; the release build's bound is measured by the benchmarks.
    check(spent < 30, f"{spent:.1f} ms of processor time in 10 idle seconds")


@scenario
async def a_full_disk_is_borne_and_told(case):
    """A small file system of its own; needs root and mounts, else there is nothing to try."""
    state = case.folder / "state"
    state.mkdir(mode=0o700)
    mount = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "tmpfs", str(state),
                                                 stderr=asyncio.subprocess.DEVNULL)
    if await mount.wait():
        print("       (no mounts here: a full disk was not tried)")
        return
    try:
        path = case.database()
        plane, agent, session, store, _ = await scene(case, database=path)
        filler = state / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        big = config(2, path)
        big["targets"][0]["display_name"] = "x" * 600_000
        ack = await session.ask("ConfigUpdate", {"config": big}, "no-room", timeout=15)
        check(not ack["accepted"] and "space" in ack["reason"].lower(), f"{ack}")
        check(agent.running(), "the agent died of a full disk")
        # Now until nothing more can be kept at all.
        session.withhold_pongs()
        for number in range(900):
            await session.send("CancelJob", {"job_id": "j"}, f"{number}-{'x' * 2000}")
        until = time.monotonic() + 20
        while True:
            _, out, _ = await agent.command("status", "--json")
            if "space" in (json.loads(out)["store"]["write_error"] or ""):
                break
            check(time.monotonic() < until, f"status does not say it: {out}")
            await asyncio.sleep(0.2)
        check(agent.running(), "the agent died of a full disk")
        check(agent.logged("space"), "the log does not say it")
        filler.unlink()
        session.cut()
        session = await plane.session(20)
        ack = await session.ask("ConfigUpdate", {"config": config(3, path)}, "room-again", timeout=15)
        check(ack["accepted"], f"{ack}")
        order = Order(agent, store)
        check((await order.send(session))["accepted"], "refused")
        await completed(plane, order)
    finally:
        await case.finish()
        await (await asyncio.create_subprocess_exec("umount", str(state))).wait()
