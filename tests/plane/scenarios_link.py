"""The channel: handshake, heartbeats, backoff, refusals, ends."""

import asyncio
import signal
import ssl
import statistics
import time

from case import check, config, scenario
from plane import CONNECT_PATH, Plane

# A timer must not be early; how late it may be is a matter of two busy cores.
LATE_S = 0.9


def gap_is(seconds, gap, what):
    """Within the jitter of 20 %, and late only by the machine's own lateness."""
    check(seconds * 0.8 - 0.02 <= gap <= seconds * 1.2 + LATE_S,
          f"{what}: {gap:.2f} s, not {seconds} s with 20 % of jitter")


@scenario
async def the_handshake_is_as_the_contract_says(case):
    plane, agent, session = await case.pair()
    request = plane.requests[0]
    check(request.path == CONNECT_PATH, f"path {request.path}")
    check(request.headers["Authorization"] == f"Bearer {agent.key}", "the Authorization header is wrong")
    register = session.register
    _, out, _ = await agent.command("version", "--json")
    check(register["agent_version"] and register["agent_version"] in out, f"{register} against {out}")
    check(register["os"] == "linux" and register["arch"] in ("amd64", "arm64"), f"{register}")
    check(register["hostname"], "no hostname")
    check("sqlite" in register["capabilities"], f"capabilities {register['capabilities']}")
    check(register["last_known_config_version"] == 0, "a config version before the first config")


@scenario
async def a_path_prefix_and_a_query_are_kept(case):
    plane = await case.plane()
    await case.agent(plane.url + "/behind/proxy?tenant=7").start()
    await plane.session()
    check(plane.requests[0].path == "/behind/proxy" + CONNECT_PATH + "?tenant=7", plane.requests[0].path)


@scenario
async def heartbeats_follow_an_interval_of_one_second(case):
    _, agent, session = await case.pair(greet={"heartbeat": 1})
    start = time.monotonic()
    first = await session.wait_for("Heartbeat", timeout=2)
    check(first.at - start < 0.8, f"the first heartbeat came {first.at - start:.2f} s after the handshake")
    while len(session.of_kind("Heartbeat")) < 7:
        check(time.monotonic() - start < 15, f"{len(session.of_kind('Heartbeat'))} heartbeats in 15 s")
        await asyncio.sleep(0.05)
    beats = session.of_kind("Heartbeat")
    gaps = [later.at - earlier.at for earlier, later in zip(beats, beats[1:], strict=False)]
    check(0.8 < statistics.median(gaps) < 1.25, f"gaps {gaps}")
    metrics = beats[-1]["metrics"]
    check(metrics["mem_total_bytes"] > metrics["mem_used_bytes"] > 0, f"{metrics}")
    check(metrics["disk_total_bytes"] >= metrics["disk_used_bytes"] > 0, f"{metrics}")
    check(0 <= metrics["cpu_percent"] <= 100, f"{metrics}")
    check(beats[-1]["active_job_ids"] == [], f"{beats[-1]}")


@scenario
async def heartbeats_follow_an_interval_of_thirty_seconds(case):
    _, _, session = await case.pair(greet={"heartbeat": 30})
    await session.wait_for("Heartbeat", timeout=2)
    await asyncio.sleep(25)
    check(len(session.of_kind("Heartbeat")) == 1, "a heartbeat before its time")
    await session.wait_for("Heartbeat", timeout=8, after=len(session.messages))
    first, second = session.of_kind("Heartbeat")
    check(29 < second.at - first.at < 31.5, f"{second.at - first.at:.1f} s")


@scenario
async def no_interval_means_thirty_seconds(case):
    _, _, session = await case.pair(greet={"heartbeat": 0})
    await session.wait_for("Heartbeat", timeout=2)
    await session.wait_for("Heartbeat", timeout=33, after=len(session.messages))
    first, second = session.of_kind("Heartbeat")
    check(29 < second.at - first.at < 31.5, f"{second.at - first.at:.1f} s")


@scenario
async def a_ping_is_answered_by_an_ack_and_a_websocket_ping_by_a_pong(case):
    _, _, session = await case.pair(greet={"heartbeat": 30})
    ack = await session.ask("Ping", {"ts_ms": int(time.time() * 1000)}, "ping-1", timeout=2)
    check(ack["accepted"] and ack.correlation_id == "ping-1", f"{ack}")
    for payload in (b"", b"token", bytes(125)):
        pong = await session.socket.ping(payload)
        await asyncio.wait_for(pong, 2)
    check(not session.ended.is_set(), "the connection ended")


@scenario
async def a_proved_link_that_is_cut_comes_back_after_one_second_every_time(case):
    plane, _, session = await case.pair(greet={"heartbeat": 1})
    for _ in range(3):
        await asyncio.sleep(1.4)
        session.cut()
        start, dials = time.monotonic(), len(plane.attempts)
        session = await plane.session()
        gap_is(1, plane.attempts[dials] - start, "redial of a proved link")


@scenario
async def a_server_that_accepts_and_drops_is_dialled_ever_more_slowly(case):
    async def drop(session):
        session.cut()

    plane = await case.plane(greet={"heartbeat": 30}, after_greeting=drop)
    await case.agent(plane).start()
    await plane.attempt(4, timeout=20)
    gaps = [later - earlier for earlier, later in zip(plane.attempts, plane.attempts[1:], strict=False)]
    for seconds, gap in zip((1, 2, 4), gaps, strict=False):
        gap_is(seconds, gap, f"of {[round(gap, 2) for gap in gaps]}")


@scenario
async def nobody_there_is_dialled_with_backoff_until_somebody_is(case):
    plane = await case.plane()
    port = plane.port
    await plane.stop()
    agent = await case.agent(plane).start()
    await asyncio.sleep(2.5)
    check(agent.running(), "the agent gave up")
    again = Plane()
    await again.start(case.authority.server_context(), port=port)
    case.planes.append(again)
    await again.session(timeout=8)


@scenario
async def a_refused_key_is_told_once_and_dialled_slowly(case):
    plane = await case.plane(refuse=(401, {}))
    agent = await case.agent(plane).start()
    await plane.attempt(1, timeout=10)
    await asyncio.sleep(10)
    check(len(plane.attempts) == 1, f"{len(plane.attempts)} dials in 10 s with a refused key")
    errors = agent.logged('"error"', "key")
    check(len(errors) == 1, f"{len(errors)} errors about the key: {agent.tail()}")
    code, out, _ = await agent.command("status")
    check("401" in out or "refused" in out.lower(), f"status ({code}) does not show the refusal: {out}")


@scenario
async def retry_after_is_obeyed(case):
    plane = await case.plane(refuse=(503, {"Retry-After": "4"}))
    await case.agent(plane).start()
    await plane.attempt(1, timeout=10)
    plane.refuse = None
    await plane.session(timeout=10)
    gap = plane.attempts[1] - plane.attempts[0]
    check(3.9 <= gap <= 4 * 1.2 + LATE_S + 0.5, f"the second dial came {gap:.2f} s after Retry-After: 4")


@scenario
async def tls_under_1_3_is_refused(case):
    plane = await case.plane(maximum=ssl.TLSVersion.TLSv1_2)
    agent = await case.agent(plane).start()
    await asyncio.sleep(4)
    check(not plane.requests, "an agent key went over TLS 1.2")
    check(agent.running(), "the agent gave up")
    check(agent.logged("tls"), f"the log does not say that it is TLS: {agent.tail()}")


@scenario
async def an_unknown_authority_is_refused(case):
    from certificates import Authority
    stranger = Authority(case.folder / "stranger", "a stranger")
    plane = Plane()
    await plane.start(stranger.server_context())
    case.planes.append(plane)
    agent = await case.agent(plane).start()
    await asyncio.sleep(3)
    check(not plane.requests, "an agent key went to a server that nobody vouches for")
    check(agent.logged("certificate"), f"the log does not say that it is the certificate: {agent.tail()}")


@scenario
async def clear_text_needs_the_switch(case):
    plane = await case.plane(tls=False)
    agent = await case.agent(plane).start()
    check(await agent.exit(5) == 78, f"exit {agent.process.returncode}: {agent.tail()}")
    check(not plane.requests, "it dialled")
    agent = await case.agent(plane, BACKUPY_DEV_ALLOW_INSECURE="true").start()
    await plane.session()


@scenario
async def a_server_that_never_acks_is_left_after_fifteen_seconds(case):
    plane = await case.plane()
    plane.greet = None
    agent = await case.agent(plane).start()
    session = await plane.session()
    await asyncio.wait_for(session.registered.wait(), 5)
    await session.closed(timeout=20)
    check(14.5 < time.monotonic() - session.opened_at < 17.5, f"{time.monotonic() - session.opened_at:.1f} s")
    check(agent.running(), "the agent gave up")
    await plane.attempt(2, timeout=5)


@scenario
async def a_server_that_never_answers_the_dial_is_left_after_fifteen_seconds(case):
    times = []

    async def mute(reader, writer):
        times.append(time.monotonic())
        await reader.read()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    agent = await case.agent(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}").start()
    start = time.monotonic()
    while len(times) < 2 and time.monotonic() - start < 22:
        await asyncio.sleep(0.05)
    server.close()
    check(len(times) == 2, f"{len(times)} dials in 22 s: {agent.tail()}")
    check(15.5 <= times[1] - times[0] <= 16.2 + 2 * LATE_S, f"{times[1] - times[0]:.1f} s between two dials")


@scenario
async def sigterm_closes_with_1000_and_exits_0(case):
    plane, agent, session = await case.pair()
    await session.wait_for("Heartbeat")
    code, seconds = await agent.terminate()
    check(code == 0, f"exit {code}: {agent.tail()}")
    check(await session.closed() == 1000, f"close code {session.close_code}")
    check(seconds < 3, f"an idle agent took {seconds:.1f} s to end")


@scenario
async def sigterm_ends_an_agent_that_has_no_link(case):
    plane = await case.plane(refuse=(503, {}))
    agent = await case.agent(plane).start()
    await plane.attempt(1, timeout=10)
    code, seconds = await agent.terminate()
    check(code == 0 and seconds < 3, f"exit {code} after {seconds:.1f} s")


@scenario
async def a_server_that_closes_is_dialled_again(case):
    plane, _, session = await case.pair(greet={"heartbeat": 1})
    await asyncio.sleep(1.3)
    start = time.monotonic()
    await session.socket.close(1001, "going away")
    await plane.session()
    gap_is(1, plane.attempts[1] - start, "redial after a close")


@scenario
async def a_stopped_agent_that_goes_on_takes_up_its_link_again(case):
    plane, agent, session = await case.pair(greet={"heartbeat": 1})
    await session.wait_for("Heartbeat")
    agent.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(4)
    agent.process.send_signal(signal.SIGCONT)
    place = len(session.messages)
    await session.wait_for("Heartbeat", timeout=5, after=place)
    await session.ask("Ping", {}, "still-there", timeout=3)
    beats = len(session.of_kind("Heartbeat"))
    check(beats <= 6, f"{beats} heartbeats: the missed ones were all sent at once")
    check(len(plane.sessions) == 1, "the link was given up")


@scenario(long=True)
async def a_silent_server_is_dead_after_ninety_seconds(case):
    plane, _, session = await case.pair(greet={"heartbeat": 5})
    await session.wait_for("Heartbeat")
    session.socket.transport.pause_reading()
    start = time.monotonic()
    await plane.attempt(2, timeout=110)
    check(89 < plane.attempts[1] - start < 100, f"{plane.attempts[1] - start:.1f} s")


@scenario(long=True)
async def a_quiet_but_healthy_link_is_kept(case):
    plane, _, session = await case.pair(greet={"heartbeat": 30})
    await asyncio.sleep(125)
    check(not session.ended.is_set() and len(plane.sessions) == 1, "pongs alone did not keep the link")


@scenario(long=True)
async def a_restarting_server_is_dialled_within_thirty_seconds(case):
    plane, _, session = await case.pair(greet={"heartbeat": 1})
    await asyncio.sleep(1.3)
    await session.socket.close(1012, "service restart")
    await plane.session(timeout=33)


@scenario
async def a_changed_interval_is_taken_after_a_reconnect(case):
    plane, _, session = await case.pair(greet={"heartbeat": 1})
    await session.wait_for("Heartbeat")
    plane.greet = {"heartbeat": 30}
    await asyncio.sleep(1.2)
    session.cut()
    session = await plane.session()
    await session.wait_for("Heartbeat", timeout=2)
    await asyncio.sleep(4)
    check(len(session.of_kind("Heartbeat")) == 1, "the old interval goes on")


@scenario
async def the_config_survives_a_kill(case):
    plane, agent, session = await case.pair(greet={"heartbeat": 1, "config": config(7)})
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 7)
    highest = plane.highest_seq
    await agent.kill()
    plane.greet = {"heartbeat": 1}
    await agent.start()
    session = await plane.session()
    check(session.register["last_known_config_version"] == 7, f"{session.register}")
    check(session.register.seq > highest, f"seq {session.register.seq} after {highest}")
