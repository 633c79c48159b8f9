"""Nothing is lost: through a proxy that breaks lines, and through kills at any moment.

CHAOS_SEED repeats a run's weather. The long forms: `LONG=1 make plane ARGS=long_form` (15 minutes).
"""

import asyncio
import os
import random
import time

from case import Order, check, config, scenario
from chaos import BOTH, DOWN, STALL, SWALLOW, UP, Proxy
from ledger import Feeder, check_all_arrived, drained
from probed import Probed
from relay import Relay
from scenarios_backup import completed

LONG_S = 600
KILLS, LONG_KILLS = 10, 200


def seed_of(title):
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 31))
    print(f"       {title}: CHAOS_SEED={seed}", flush=True)
    return seed


async def storm(case, title, seconds):
    """An agent in bad weather for so long, then fair weather until nothing waits."""
    probed = await Probed().start()
    plane = await case.plane(greet={"heartbeat": 1, "config": probed.config(1)})
    proxy = await Proxy(plane.port, seed_of(title)).start()
    case.closing.append(proxy.stop)
    case.closing.append(probed.stop)
    agent = await case.agent(proxy.url).start()
    feeder = Feeder(plane)
    await asyncio.sleep(seconds)
    await feeder.stop()
    proxy.clear_up()
    # Without checks nothing new is made: what is counted at the target is all there will be.
    plane.greet = {"heartbeat": 1, "config": config(2)}
    await drained(agent, timeout=90)
    await probed.settled(plane)
    await drained(agent)
    check(len(plane.sessions) >= seconds / 12, f"{len(plane.sessions)} connections only")
    check(sum(proxy.happened.values()) >= seconds / 12, f"{proxy.happened}: no weather to speak of")
    messages, again = check_all_arrived(agent, plane)
    answered = feeder.check()
    probed.check(plane, at_least=seconds / 2)
    faults = ", ".join(f"{count} {fault}" for fault, count in proxy.happened.most_common())
    print(f"       {title}: {messages} durable messages ({answered} answers, {probed.count} probes), {again} came "
          f"again, over {len(plane.sessions)} connections; {faults}", flush=True)


@scenario(heavy=True)
async def nothing_is_lost_or_invented_in_a_chaos_of_faults(case):
    await storm(case, "chaos", 24)


@scenario(long=True, heavy=True, limit_s=LONG_S + 200)
async def the_long_form_of_the_chaos_of_faults(case):
    await storm(case, "chaos, ten minutes", LONG_S)


async def slaughter(case, title, kills):
    """kill -9 at any moment, from the first instant of a life on, with much to do."""
    noise = random.Random(seed_of(title))
    probed = await Probed().start()
    case.closing.append(probed.stop)
    plane = await case.plane(greet={"heartbeat": 1, "config": probed.config(1)})
    agent = await case.agent(plane).start()
    feeder = Feeder(plane, pause_s=0.004)
    for _ in range(kills):
        await asyncio.sleep(noise.choice((noise.uniform(0, 0.15), noise.uniform(0.1, 1.6))))
        await agent.kill()
        await agent.start()
    await plane.session()
    await feeder.stop()
    plane.greet = {"heartbeat": 1, "config": config(2)}
    for session in plane.sessions:
        session.cut()
    await drained(agent)
    messages, again = check_all_arrived(agent, plane, killed=True)
    answered = feeder.check()
    check(answered > kills * 5, f"{answered} answers in {kills + 1} lives: no load to speak of")
    print(f"       {title}: {kills} kills, {messages} durable messages ({answered} answers), {again} came again",
          flush=True)


@scenario(heavy=True)
async def nothing_that_was_promised_is_lost_by_ten_kills(case):
    await slaughter(case, "kill -9", KILLS)


@scenario(long=True, heavy=True, limit_s=LONG_S)
async def the_long_form_of_the_kills(case):
    await slaughter(case, "kill -9, long", LONG_KILLS)


async def behind_a_proxy(case, **greet):
    plane = await case.plane(greet={"heartbeat": 1, **greet})
    proxy = await Proxy(plane.port).start()
    case.closing.append(proxy.stop)
    agent = await case.agent(proxy.url).start()
    session = await plane.session()
    await session.wait_for("Heartbeat")
    return plane, proxy, agent, session


async def left_after(plane, start, seconds, what):
    """The next dial comes when the dead link was noticed, and a second later at the most."""
    dials = len(plane.attempts)
    while len(plane.attempts) == dials:
        check(time.monotonic() - start < seconds + 8, f"{what}: not noticed within {seconds + 8} s")
        await asyncio.sleep(0.05)
    took = plane.attempts[dials] - start
    check(seconds - 1.5 < took < seconds + 4, f"{what}: noticed after {took:.1f} s, not {seconds} s")


@scenario
async def a_half_open_link_is_dead_after_thirty_seconds_where_something_waits_for_its_pong(case):
    plane, proxy, agent, session = await behind_a_proxy(case)
    proxy.lines[-1].set(SWALLOW, (UP,))
    start = time.monotonic()
    # Heartbeats of the server still come: only the agent's own direction is dead.
    await session.send("CancelJob", {"job_id": "no-such-job"}, "swallowed")
    noise = asyncio.create_task(keep_talking(session))
    await left_after(plane, start, 30, "a link that swallows what the agent says")
    noise.cancel()
    check(agent.logged("pong", "barrier"), f"the log does not say why: {agent.tail()}")
    session = await plane.session()
    ack = await session.wait_for("Ack", lambda ack: ack["correlation_id"] == "swallowed", timeout=10)
    check(not ack["accepted"], f"{ack}")


async def keep_talking(session):
    while True:
        await session.socket.ping()
        await asyncio.sleep(0.5)


@scenario
async def a_server_that_froze_is_left_and_served_again_when_it_thaws(case):
    """The kernel of a frozen process goes on acknowledging: TCP sees nothing. SIGSTOP to a program of its
    own between both ends is such a process; new connections hang in its queue as well."""
    store = await case.store()
    store.gate.clear()
    plane = await case.plane(greet={"heartbeat": 1, "config": config(1, case.database())})
    relay = await Relay.start(plane.port)
    case.closing.append(relay.stop)
    agent = await case.agent(f"https://127.0.0.1:{relay.port}").start()
    session = await plane.session()
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1)
    order = Order(agent, store)
    check((await order.send(session))["accepted"], "refused")
    await store.wait_for_puts(1)
    relay.freeze()
    start = time.monotonic()
    # The run ends in the frost: its result goes out, and the pong behind it never comes.
    store.gate.set()
    while not agent.logged("dialling again", "no pong for the delivery barrier"):
        check(time.monotonic() - start < 38, f"a frozen server is not noticed: {agent.tail()}")
        await asyncio.sleep(0.05)
    check(time.monotonic() - start > 28, f"given up after {time.monotonic() - start:.1f} s")
    relay.thaw()
    await completed(plane, order, timeout=25)
    session = await plane.session(timeout=25)
    await drained(agent)
    check_all_arrived(agent, plane)
    await session.ask("Ping", {}, "after the thaw")


@scenario
async def a_line_that_stalls_for_a_while_is_kept(case):
    plane, proxy, agent, session = await behind_a_proxy(case)
    await session.send("CancelJob", {"job_id": "no-1"}, "c-1")
    proxy.lines[-1].set(STALL)
    await session.send("CancelJob", {"job_id": "no-2"}, "c-2")
    await asyncio.sleep(12)
    proxy.lines[-1].set("calm")
    await session.wait_for("Ack", lambda ack: ack["correlation_id"] == "c-2", timeout=10)
    await drained(agent)
    check(len(plane.sessions) == 1, "the link was given up")
    check_all_arrived(agent, plane)


@scenario(long=True)
async def a_half_open_link_without_messages_is_dead_after_ninety_seconds(case):
    plane, proxy, agent, session = await behind_a_proxy(case)
    proxy.lines[-1].set(SWALLOW, BOTH)
    await left_after(plane, time.monotonic(), 90, "a link that swallows everything")
    check(agent.logged("nothing received"), f"the log does not say why: {agent.tail()}")


@scenario(long=True)
async def own_pings_find_a_link_that_only_the_agents_side_is_deaf_on(case):
    plane, proxy, agent, session = await behind_a_proxy(case)
    proxy.lines[-1].set(SWALLOW, (DOWN,))
    await left_after(plane, time.monotonic(), 90, "a link whose answers are swallowed")
