"""Health checks by order of the control plane: their schedule follows the configuration, and their
results are as durable as anything else."""

import asyncio
import contextlib
import ssl
import time

from case import check, scenario
from certificates import Authority

HTTP, HTTPS, TCP = 0, 1, 2
# Nothing here takes so long, but on a machine that is busy with other things.
PATIENCE_S = 40


class Endpoint:
    """Something to look at. Counts who is connected at once, and answers as it is told: not before `gate` is set."""

    def __init__(self, answer=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", delay=0.0, blunt=False, gate=None):
        self.answer, self.delay, self.blunt, self.gate = answer, delay, blunt, gate
        self.times, self.requests = [], []
        self.open = self.most = 0

    async def start(self, host="127.0.0.1", context=None):
        self.server = await asyncio.start_server(self.serve, host, 0, ssl=context)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def serve(self, reader, writer):
        self.times.append(time.monotonic())
        self.open += 1
        self.most = max(self.most, self.open)
        with contextlib.suppress(Exception, asyncio.CancelledError):
            request = await (reader.readexactly(1) if self.blunt else reader.readuntil(b"\r\n\r\n"))
            self.requests.append(request.decode(errors="replace"))
            await asyncio.sleep(self.delay)
            if self.gate:
                await self.gate.wait()
            if self.answer is not None:
                writer.write(self.answer)
                await writer.drain()
            else:
                await reader.read()
        self.open -= 1
        writer.close()

    def http(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"


def spec(name, target, kind=HTTP, interval=1, timeout=0, status=0):
    return {"id": name, "name": f"the {name}", "type": kind, "target": target, "interval_sec": interval,
            "timeout_sec": timeout, "expected_status": status}


def config(version, *checks):
    return {"version": version, "health_checks": list(checks)}


def of(plane, name):
    return [result for result in plane.all("HealthCheckResult") if result["check_id"] == name]


async def until(condition, what):
    """Waits for what the condition answers; `what` says what did not come."""
    limit = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        check(time.monotonic() < limit, what())
        await asyncio.sleep(0.02)
    return found


async def results(plane, name, count=1):
    def enough():
        plane.check()
        return len(of(plane, name)) >= count and of(plane, name)
    return await until(enough, lambda: f"{len(of(plane, name))} of {count} results of {name}")


async def result_with(plane, name, error):
    """The first result of a check with that error: one that runs into its timeout may do so at an earlier step than
    it is meant to, where others keep the machine busy."""
    def there():
        return next((result for result in of(plane, name) if error in result["error"]), None)
    return await until(there, lambda: f"{name}: no '{error}' in {[r['error'] for r in of(plane, name)]}")


def now_ms():
    return time.time() * 1000


@scenario
async def health_checks_of_every_kind_say_what_they_saw(case):
    well, busy, moved = Endpoint(), Endpoint(b"HTTP/1.1 503 Busy\r\n\r\n"), Endpoint(
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n")
    mute, slow, clear = Endpoint(None), Endpoint(delay=3), Endpoint(b"HTTP/1.1 400 Bad Request\r\n\r\n", blunt=True)
    secure = await Endpoint().start(context=case.authority.server_context())
    for endpoint in (well, busy, moved, mute, slow, clear):
        await endpoint.start()
    six = await Endpoint().start("::1")
    dead = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    dead_port = dead.sockets[0].getsockname()[1]
    dead.close()
    await dead.wait_closed()
    checks = [
        spec("well", f"http://ann:s3cr3t-word@127.0.0.1:{well.port}/live?token=s3cr3t-query"),
        spec("well-404", well.http(), status=404), spec("busy-503", busy.http(), status=503),
        spec("busy", busy.http()), spec("moved", moved.http()), spec("mute", mute.http(), timeout=1),
        spec("slow", slow.http(), timeout=1), spec("tls", f"https://127.0.0.1:{secure.port}/", HTTPS),
        spec("not-tls", f"https://127.0.0.1:{clear.port}/", HTTPS), spec("tcp", f"127.0.0.1:{well.port}", TCP),
        spec("dead", f"127.0.0.1:{dead_port}", TCP), spec("six", f"[::1]:{six.port}", TCP),
        spec("six-http", f"http://[::1]:{six.port}/"), spec("name", f"http://localhost:{well.port}/"),
        spec("no-name", "http://no-such-host.invalid/"), spec("odd", "x", 9),
    ]
    plane, agent, session = await case.pair(greet={"heartbeat": 1, "config": config(1, *checks)})
    agent.secrets["a URL's password"], agent.secrets["a URL's query"] = "s3cr3t-word", "s3cr3t-query"
    expected = {
        "well": (True, 200, ""), "well-404": (False, 200, "expected status 404, got 200"),
        "busy-503": (True, 503, ""), "busy": (False, 503, "expected a status from 200 to 299, got 503"),
        "moved": (False, 302, "got 302 (redirects are not followed)"),
        "mute": (False, 0, "timed out after 1 s, waiting for the answer"),
        "slow": (False, 0, "timed out after 1 s, waiting for the answer"), "tls": (True, 200, ""),
        "not-tls": (False, 0, "does not answer with TLS"), "tcp": (True, 0, ""),
        "dead": (False, 0, f"connection refused by 127.0.0.1:{dead_port}"), "six": (True, 0, ""),
        "six-http": (True, 200, ""), "name": (True, 200, ""),
        "no-name": (False, 0, "cannot resolve no-such-host.invalid"), "odd": (False, 0, "checks of type 9"),
    }
    for name, (ok, status, error) in expected.items():
        timed_out = error.startswith("timed out")
        result = await result_with(plane, name, error) if timed_out else (await results(plane, name))[0]
        check((result["ok"], result["status_code"]) == (ok, status), f"{name}: {result}")
        check(error in result["error"] and bool(error) == bool(result["error"]), f"{name}: {result}")
        check(result["latency_ms"] > 0 and abs(result["ts_ms"] - time.time() * 1000) < 30_000, f"{name}: {result}")
    check(all(" /live?token=s3cr3t-query HTTP/1.1\r\n" in request for request in well.requests if "live" in request),
          "the request lost its query")
    check(any("Authorization: Basic " in request for request in well.requests), "the request lost its user")
    check(any("User-Agent: backupy-agent/" in request for request in well.requests), "no User-Agent")
    code, out, _ = await agent.command("status")
    check(code == 0 and "health checks" in out and "expected status 404, got 200" in out, out)


def context(leaf):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf[0], leaf[1])
    return context


@scenario
async def health_checks_over_tls_say_what_is_wrong_with_a_certificate(case):
    ours, theirs = case.authority, Authority(case.folder / "theirs", "another authority")
    expired = await Endpoint().start(context=context(ours.leaf(days=(-3, -1), label="expired")))
    early = await Endpoint().start(context=context(ours.leaf(days=(1, 3), label="early")))
    other = await Endpoint().start(context=context(ours.leaf(hosts=("other",), addresses=(), label="other")))
    unknown = await Endpoint().start(context=context(theirs.leaf(label="unknown")))
    older = context(ours.leaf(label="older"))
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    older = await Endpoint().start(context=older)
    six = await Endpoint().start("::1", context(ours.leaf(label="six")))
    secure = {"expired": expired, "early": early, "other": other, "unknown": unknown, "older": older}
    checks = [spec(name, f"https://127.0.0.1:{endpoint.port}/", HTTPS) for name, endpoint in secure.items()]
    checks += [spec("six", f"https://[::1]:{six.port}/", HTTPS), spec("clear", "http://127.0.0.1:1/", HTTPS)]
    plane, agent, session = await case.pair(greet={"heartbeat": 1, "config": config(1, *checks)})
    expected = {
        "expired": "the certificate has expired", "early": "the certificate is not valid yet",
        "other": "the certificate is for another name", "unknown": "an authority that this host does not trust",
        "clear": "an HTTPS check needs an https:// target", "older": "", "six": "",
    }
    for name, error in expected.items():
        result = (await results(plane, name))[0]
        check(error in result["error"] and bool(error) != result["ok"], f"{name}: {result}")


@scenario
async def broken_and_endless_answers_fail_a_health_check_and_nothing_else(case):
    async def reset(reader, writer):
        await reader.read(1)
        writer.transport.abort()

    async def endless(_, writer):
        with contextlib.suppress(Exception, asyncio.CancelledError):
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                writer.write(b"X: " + b"y" * 1000 + b"\r\n")
                await writer.drain()

    async def trickle(_, writer):
        with contextlib.suppress(Exception, asyncio.CancelledError):
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.02)

    async def banner(_, writer):
        with contextlib.suppress(Exception, asyncio.CancelledError):
            writer.write(b"220 mail.example.org ESMTP\r\n")
            await asyncio.sleep(30)

    # The verdict is in the head; a body without end is not read to its end.
    async def body(_, writer):
        with contextlib.suppress(Exception, asyncio.CancelledError):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()

    checks, expected = [], {
        "reset": (reset, "connection"), "endless": (endless, "headers without end"),
        "trickle": (trickle, "timed out after 1 s, waiting for the answer"),
        "banner": (banner, "does not answer with HTTP/1.1"), "body": (body, "")}
    for name, (serve, _) in expected.items():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        timeout = 1 if name == "trickle" else 0
        checks.append(spec(name, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout=timeout))
    plane, agent, session = await case.pair(greet={"heartbeat": 1, "config": config(1, *checks)})
    for name, (_, error) in expected.items():
        await results(plane, name, 2)
        result = await result_with(plane, name, error) if name == "trickle" else of(plane, name)[1]
        check(error in result["error"] and bool(error) != result["ok"], f"{name}: {result}")


@scenario
async def a_config_update_starts_changes_and_stops_health_checks(case):
    first, second = await Endpoint().start(), await Endpoint().start()
    plane, agent, session = await case.pair(greet={"heartbeat": 1, "config": config(1)})
    await session.send("ConfigUpdate", {"config": config(2, spec("a", first.http()), spec("b", first.http("/b")))})
    before = [result["ts_ms"] for result in await results(plane, "a", 2)]
    await results(plane, "b", 1)
    ack = await session.ask("ConfigUpdate", {"config": config(3, spec("a", first.http()), spec("c", second.http()))},
                            "change")
    check(ack["accepted"], f"{ack}")
    changed = now_ms()
    await results(plane, "c", 2)
    await results(plane, "a", 6)

    # Turns are due a second apart, whatever was late: one that is on time again shows that the schedule is the same.
    def on_time():
        after = [result["ts_ms"] for result in of(plane, "a") if result["ts_ms"] > changed]
        return any(min((late - early) % 1000, (early - late) % 1000) < 100 for early in before for late in after)
    await until(on_time, lambda: f"an unchanged check lost its schedule: {[r['ts_ms'] for r in of(plane, 'a')]}")
    check(all(result["ts_ms"] <= changed for result in of(plane, "b")), "a check that was taken away goes on")
    await session.ask("ConfigUpdate", {"config": config(4)}, "none")
    ended, place = now_ms(), len(session.messages)
    # Heartbeats come as often as the checks were due.
    for _ in range(3):
        await session.wait_for("Heartbeat", timeout=PATIENCE_S, after=place)
        place = len(session.messages)
    late = [result for result in plane.all("HealthCheckResult") if result["ts_ms"] > ended]
    check(not late, f"checks go on without a configuration: {late}")


@scenario
async def a_slow_health_check_skips_turns_and_holds_nobody_up(case):
    slow, quick = await Endpoint(delay=2.5).start(), await Endpoint().start()
    checks = config(1, spec("slow", slow.http(), timeout=10), spec("quick", quick.http()))
    plane, agent, session = await case.pair(greet={"heartbeat": 1, "config": checks})
    await results(plane, "slow", 2)
    check(slow.most == 1, f"{slow.most} turns of one check at once")
    check(all(result["ok"] and result["latency_ms"] >= 2400 for result in of(plane, "slow")), f"{of(plane, 'slow')}")
    for turn in of(plane, "slow"):
        meanwhile = range(turn["ts_ms"], turn["ts_ms"] + turn["latency_ms"])
        check(any(result["ts_ms"] in meanwhile for result in of(plane, "quick")), f"no turn of the quick one: {turn}")


@scenario
async def run_health_check_runs_it_now_and_an_unknown_one_is_refused(case):
    endpoint = await Endpoint(gate=asyncio.Event()).start()
    plane, agent, session = await case.pair(
        greet={"heartbeat": 1, "config": config(1, spec("rare", endpoint.http(), interval=86_400))})
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1)
    for attempt in (1, 2):
        ack = await session.ask("RunHealthCheck", {"check_id": "rare"}, f"run-{attempt}")
        check(ack["accepted"], f"{ack}")
    endpoint.gate.set()
    await results(plane, "rare")
    check((await session.ask("RunHealthCheck", {"check_id": "rare"}, "again"))["accepted"], "refused")
    await results(plane, "rare", 2)
    check(len(endpoint.times) == 2, "the turn that was under way did not serve")
    ack = await session.ask("RunHealthCheck", {"check_id": "gone"}, "gone")
    check(not ack["accepted"] and ack["reason"] == 'unknown check_id "gone"', f"{ack}")


@scenario
async def results_of_health_checks_wait_for_the_link_and_come_in_order(case):
    endpoint = await Endpoint().start()
    plane, agent, session = await case.pair(greet={"heartbeat": 1, "config": config(1, spec("a", endpoint.http()))})
    await results(plane, "a", 2)
    port = plane.port
    await plane.stop()
    seen = len(endpoint.times)
    # The checks go on without a link, and after a kill, from the configuration on the disk.
    await until(lambda: len(endpoint.times) >= seen + 3, lambda: "the checks stopped with the link")
    await agent.kill()
    before = len(endpoint.times)
    await agent.start()
    await until(lambda: len(endpoint.times) >= before + 2, lambda: "the checks stopped with the kill")
    looks = len(endpoint.times)
    await plane.start(case.authority.server_context(), port)
    await plane.session(70)

    # A look that the kill cut off has no result; every other one has.
    def distinct():
        return list({result.seq: result for result in of(plane, "a")}.values())
    await until(lambda: len(distinct()) >= looks - 1, lambda: f"{looks} looks, {len(distinct())} results")
    seqs, times = [r.seq for r in distinct()], [r["ts_ms"] for r in distinct()]
    check(seqs == sorted(seqs), "not in the order of their seqs")
    check(times == sorted(times), "not in the order of their time")
