"""The way to the server: certificates, addresses, proxies, refusals that ask for patience, a twin."""

import asyncio
import base64
import contextlib
import email.utils
import json
import ssl
import time

from case import check, scenario
from plane import Plane
from scenarios_face import free_port, scrape


@scenario
async def each_certificate_that_is_not_acceptable_is_refused_with_what_is_wrong_with_it(case):
    house = case.authority
    stranger = type(house)(case.folder / "stranger", "a stranger")
    wrong_pin = base64.b64encode(bytes(32)).decode()
    cases = {
        "expired": (house.server_context(days=(-9, -1), label="old"), {}, ["expired", "renew"]),
        "not-yet": (house.server_context(days=(1, 9), label="new"), {}, ["not valid yet", "clock"]),
        "wrong-host": (house.server_context(hosts=["other.test"], addresses=[], label="other"), {},
                       ["not for 127.0.0.1", "other.test"]),
        "unknown-ca": (stranger.server_context(), {}, ["not issued by the CA", "ca.pem"]),
        "tls-1.2": (house.server_context(ssl.TLSVersion.TLSv1_2), {}, ["TLS 1.3, which this agent requires"]),
        "pin": (house.server_context(), {"BACKUPY_PINS": wrong_pin}, ["server.pins", house.pin]),
    }

    async def refused(name, context, extra, words):
        plane = await Plane().start(context)
        case.planes.append(plane)
        agent = await case.agent(plane, state=f"state-{name}", **extra).start()
        until = time.monotonic() + 20
        while not agent.logged("TLS failed", *words):
            check(time.monotonic() < until, f"{name}: the log does not say {words}: {agent.tail(5)}")
            await asyncio.sleep(0.05)
        code, out, _ = await agent.command("status", "--json")
        told = json.loads(out)["link"]["last_error"]
        check(code == 0 and all(word in told for word in words), f"{name}: status says {told}")
        check(not plane.requests, f"{name}: an agent key went to it")
        check(agent.running(), f"{name}: the agent gave up")
        await agent.kill()

    for name, how in cases.items():
        await refused(name, *how)
    plane = await case.plane()
    await case.agent(plane, BACKUPY_PINS=f"{wrong_pin},{house.pin}").start()
    await plane.session()


@scenario
async def an_ipv6_address_is_dialled_over_tls(case):
    plane = await Plane().start(case.authority.server_context(), host="::1")
    case.planes.append(plane)
    await case.agent(f"https://[::1]:{plane.port}").start()
    await plane.session()
    check(plane.requests[0].headers["Host"] == f"[::1]:{plane.port}", plane.requests[0].headers["Host"])


@scenario
async def nobody_there_is_told_without_saying_the_host_twice(case):
    port = free_port()
    agent = await case.agent(f"https://127.0.0.1:{port}").start()
    until = time.monotonic() + 10
    while not agent.logged("dialling again"):
        check(time.monotonic() < until, agent.tail())
        await asyncio.sleep(0.05)
    _, out, _ = await agent.command("status", "--json")
    told = json.loads(out)["link"]["last_error"]
    check(told.count(str(port)) == 1 and "refused" in told.lower(), told)


class Tunnel:
    """An HTTP proxy: CONNECT, and a password if it is told one."""

    def __init__(self, port, login=None):
        self.target, self.login, self.heads = port, login, []

    async def start(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def stop(self):
        self.server.close()

    async def accept(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            login = "Basic " + base64.b64encode(self.login.encode()).decode() if self.login else None
            if login and f"Proxy-Authorization: {login}\r\n" not in head:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
                return writer.close()
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.target)
            writer.write(b"HTTP/1.1 200 Connection established\r\nVia: a test\r\n\r\n")
            await asyncio.gather(carry(reader, back_writer), carry(back_reader, writer))


async def carry(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def tunnelled(case, login=None):
    """A server under a name that only the proxy can find."""
    plane = await Plane().start(case.authority.server_context(hosts=["plane.test"], label="plane"))
    case.planes.append(plane)
    tunnel = await Tunnel(plane.port, login).start()
    case.closing.append(tunnel.stop)
    return plane, tunnel


@scenario
async def a_proxy_is_asked_for_a_tunnel_with_its_password_and_sees_no_key(case):
    plane, tunnel = await tunnelled(case, "me:p@ss:w/rd")
    agent = case.agent("https://plane.test:8443/prefix", HTTPS_PROXY=f"http://me:p%40ss%3Aw%2Frd@127.0.0.1:{tunnel.port}")
    agent.secrets |= {"the proxy's password": "p@ss:w/rd", "the proxy's password, encoded": "p%40ss%3Aw%2Frd"}
    await agent.start()
    session = await plane.session()
    await session.ask("Ping", {}, "through the tunnel")
    head = tunnel.heads[0]
    check(head.startswith("CONNECT plane.test:8443 HTTP/1.1\r\nHost: plane.test:8443\r\n"), head)
    check(agent.key not in head and "prefix" not in head, "the proxy sees what is not for it")
    session.cut()
    await plane.session()
    check(len(tunnel.heads) == 2, "a later dial went another way")
    await agent.command("status")
    await agent.command("check-config")


@scenario
async def a_proxy_that_wants_a_password_is_named_and_no_proxy_keeps_away_from_it(case):
    plane, tunnel = await tunnelled(case, "me:right")
    url = "https://plane.test:8443"

    async def told(state, *words, **extra):
        agent = await case.agent(url, state=state, **extra).start()
        until = time.monotonic() + 15
        while not agent.logged("no connection", *words):
            check(time.monotonic() < until, f"{state}: {agent.tail(4)}")
            await asyncio.sleep(0.05)
        check(agent.running(), f"{state}: the agent gave up")
        await agent.kill()

    bare, wrong = (f"http://{login}127.0.0.1:{tunnel.port}" for login in ("", "me:wr0ng-password@"))
    await told("bare", "407", "wants a user and a password", HTTPS_PROXY=bare)
    await told("wrong", "407", "refused the user and the password", HTTPS_PROXY=wrong)
    check(not any("wr0ng-password" in line for agent in case.agents for line in agent.lines), "it is in the log")
    heads = len(tunnel.heads)
    for number, entry in enumerate(("plane.test", ".test", "plane.test:8443", "*")):
        await told(f"none-{number}", "plane.test:8443", "resolve", HTTPS_PROXY=bare, NO_PROXY=f"other.test,{entry}")
    check(len(tunnel.heads) == heads, "the proxy was asked although NO_PROXY names the host")
    await told("other", "407", HTTPS_PROXY=bare, NO_PROXY="other.test,plane.test:1,10.0.0.0/8")
    check(not plane.requests, "a dial came through without the password")


@scenario
async def a_date_in_retry_after_is_obeyed(case):
    date = email.utils.formatdate(time.time() + 6, usegmt=True)
    plane = await case.plane(refuse=(429, {"Retry-After": date}))
    await case.agent(plane).start()
    await plane.attempt(1, timeout=10)
    plane.refuse = None
    await plane.session(timeout=12)
    gap = plane.attempts[1] - plane.attempts[0]
    # Dates have whole seconds, and the agent's start has taken some of them.
    check(2.5 <= gap <= 7, f"the second dial came after {gap:.2f} s")


@scenario
async def a_refused_key_shows_in_status_and_metrics(case):
    port = free_port()
    plane = await case.plane(refuse=(403, {"Retry-After": "1"}))
    agent = await case.agent(plane, BACKUPY_METRICS_LISTEN_ADDR=f"127.0.0.1:{port}").start()
    await plane.attempt(1, timeout=10)
    until = time.monotonic() + 5
    while not agent.logged('"error"', "agent key", "server.agent_key"):
        check(time.monotonic() < until, f"the log does not say what to do: {agent.tail()}")
        await asyncio.sleep(0.05)
    _, out, _ = await agent.command("status")
    check("refused the agent key (403)" in out, out)
    check("backupy_agent_key_refused 1" in await scrape(port), "not in the metrics")


@scenario
async def a_session_that_a_clone_took_is_reported_and_not_fought_for(case):
    port = free_port()
    plane = await case.plane(greet={"heartbeat": 1})
    agent = await case.agent(plane, BACKUPY_METRICS_LISTEN_ADDR=f"127.0.0.1:{port}").start()
    session = await plane.session()
    # A link that has proved itself, so that only the reason can make it wait.
    await asyncio.sleep(1.3)
    await session.socket.close(4001, "superseded by another connection")
    await asyncio.sleep(8)
    check(len(plane.attempts) == 1, "it came back at once and throws its twin off")
    errors = agent.logged('"error"', "probable clone")
    check(len(errors) == 1 and "key and a state directory of its own" in errors[0], f"{errors}")
    _, out, _ = await agent.command("status")
    check("probable clone" in out and "superseded by another connection" in out, out)
    check("backupy_agent_superseded_total 1" in await scrape(port), "not in the metrics")
    code, seconds = await agent.terminate()
    check(code == 0 and seconds < 3, f"exit {code} after {seconds:.1f} s")


@scenario
async def reconnects_are_counted_once_each(case):
    port = free_port()
    plane = await case.plane(greet={"heartbeat": 1})
    agent = await case.agent(plane, BACKUPY_METRICS_LISTEN_ADDR=f"127.0.0.1:{port}").start()
    session = await plane.session()
    for count in range(3):
        text = await scrape(port)
        check(f"backupy_agent_wss_reconnects_total {count}\n" in text, f"{count}: {text[:2000]}")
        await asyncio.sleep(1.2)
        session.cut()
        session = await plane.session()
        await session.wait_for("Heartbeat")
    _, out, _ = await agent.command("status", "--json")
    link = json.loads(out)["link"]
    check(link["reconnects"] == 3 and link["last_error"].startswith("the connection broke"), out)
