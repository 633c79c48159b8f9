"""Stores that fail a backup half-way: each run ends in the right state with the right words, nothing on the disk, no
upload left open at the store, and the next run goes well. SHOW=1 prints the words.
"""

import asyncio
import itertools
import time

from case import check, scenario
from scenarios_backup import completed, failed
from scenarios_disk import eventually
from way import MANY_MEGABYTES, Scene, both, fault_of_all, first_of, no_help

# A server that answers with nothing that helps is asked again after so long, and then believed.
FRESH_URLS_S = 10
# So short a life is enough for the dump and some tries on a busy machine.
LIFE_S = 9


@scenario
async def a_store_that_stays_busy_fails_the_run_when_its_url_expires(case):
    async def play(scene):
        statuses = itertools.cycle((500, 503))
        scene.store.fault = lambda request: next(statuses) if request.what == first_of(scene.way) else None
        order = await scene.begin(lifetime_s=LIFE_S)
        async with no_help(scene.session, order):
            await scene.fails(order, "the store answered 50", "until its URL expired at", "was asked",
                              within=LIFE_S + FRESH_URLS_S + 10)
        check(len(scene.store.tries(first_of(scene.way))) >= 3, "it was not tried again")
        told = [log for log in scene.plane.all("LogEvent") if log["fields"].get("run_id") == order.run]
        check(any("tried again" in log["message"] and "the store answered 50" in log["fields"]["error"]
                  for log in told), f"the server was not told: {told}")
        await scene.recovers()
    await both(case, play)


@scenario
async def a_connection_reset_at_every_try_fails_the_run_when_its_url_expires(case):
    async def play(scene):
        scene.store.fault = fault_of_all("reset", first_of(scene.way))
        order = await scene.begin(lifetime_s=LIFE_S)
        async with no_help(scene.session, order):
            await scene.fails(order, "the connection broke", "until its URL expired at",
                              within=LIFE_S + FRESH_URLS_S + 10)
        check(len(scene.store.tries(first_of(scene.way))) >= 3, "it was not tried again")
        await scene.recovers()
    await both(case, play)


@scenario
async def a_store_that_nobody_listens_at_fails_the_run_when_its_url_expires(case):
    async def play(scene):
        order = scene.order(lifetime_s=LIFE_S)
        scene.store.server.close()
        await scene.send(order)
        async with no_help(scene.session, order):
            update = await failed(scene.plane, order, timeout=LIFE_S + FRESH_URLS_S + 10)
        check("no connection" in update["error_message"] and "refused" in update["error_message"], f"{update}")
        await scene.left_nothing()
    await both(case, play)


@scenario
async def a_store_that_says_no_half_way_is_believed_at_once(case):
    async def play(scene):
        hit = []

        def fault(request):
            if request.what != first_of(scene.way):
                return None
            hit.append(request)
            return 503 if len(hit) == 1 else 403
        scene.store.fault = fault
        order = await scene.begin()
        await scene.fails(order, "403 Told", "compare the clocks", within=10)
        check(len(hit) == 2, f"{len(hit)} tries")
        await scene.recovers()
    await both(case, play)


@scenario
async def a_url_that_expires_half_way_is_renewed_or_fails_the_run_in_words(case):
    async def play(scene):
        what = first_of(scene.way)
        # In the middle of the first try the line breaks, and the second comes too late.
        scene.store.fault = lambda request: (
            None if request.what != what or request.generation else
            "reset" if len(scene.store.tries(what)) == 1 else "expired")
        order = await scene.begin()
        async with no_help(scene.session, order):
            await scene.fails(order, "403 AccessDenied", "its URL is too old", "no fresh one", within=FRESH_URLS_S + 10)
        check(len(scene.store.tries(what)) == 2, "a URL that is too old was tried again")
        scene.store.requests.clear()
        order = await scene.begin()
        await scene.session.wait_for("UploadUrlsRequest", order.is_mine)
        scene.store.generation = 1
        if scene.way == "parts":
            order.sign()
        else:
            order.url, order.expires_at_ms, scene.agent.secrets["the fresh one"] = scene.store.presign(order.key)
        await order.send(scene.session, "fresh")
        await completed(scene.plane, order, timeout=30)
        await scene.left_nothing()
    await both(case, play)


@scenario
async def fresh_urls_that_are_too_old_as_well_end_the_run_soon(case):
    async def play(scene):
        what = first_of(scene.way)
        scene.store.fault = fault_of_all("expired", what)
        order = await scene.begin()
        renewing = asyncio.create_task(renew_always(scene, order))
        await scene.fails(order, "its URL is too old", within=20)
        renewing.cancel()
        check(2 <= len(scene.store.tries(what)) <= 6, f"{len(scene.store.tries(what))} tries")
    await both(case, play)


async def renew_always(scene, order):
    place = number = 0
    while True:
        await scene.session.wait_for("UploadUrlsRequest", order.is_mine, timeout=60, after=place)
        place, number = len(scene.session.messages), number + 1
        if scene.way == "parts":
            order.sign()
        else:
            order.url, order.expires_at_ms, scene.agent.secrets[f"fresh {number}"] = scene.store.presign(order.key)
        await order.send(scene.session, f"fresh-{number}")


@scenario
async def a_slow_store_is_waited_for(case):
    async def play(scene):
        scene.store.fault = lambda request: "slow" if request.method == "PUT" else None
        order = await scene.begin()
        await completed(scene.plane, order, timeout=60)
        check(not scene.agent.logged("trying again"), "it was not waited for")
        await scene.left_nothing()
    await both(case, play)


@scenario
async def a_store_that_stands_still_is_noticed_and_the_next_try_is_taken(case):
    async def play(scene):
        what = first_of(scene.way)
        faults = [{"put": "stall", "parts": "crawl"}[scene.way]]
        scene.store.fault = lambda request: faults.pop() if request.what == what and faults else None
        order = await scene.begin()
        await completed(scene.plane, order, timeout=100)
        check(len(scene.store.tries(what)) == 2, f"{len(scene.store.tries(what))} tries")
        said = "\n".join(scene.agent.logged("trying again"))
        check("took nothing for 30 s" in said or "took only" in said
              or scene.way == "parts" and "gave no answer for 3" in said, said)
        await scene.left_nothing()
    await both(case, play, megabytes=MANY_MEGABYTES)


@scenario
async def a_store_that_never_says_a_word_fails_the_run_when_its_url_has_expired(case):
    async def play(scene):
        scene.store.fault = lambda request: "dumb" if request.method != "DELETE" else None
        order = await scene.begin(lifetime_s=LIFE_S)
        async with no_help(scene.session, order):
            await scene.fails(order, "the store took", "too short for a second try", within=110)
        await scene.recovers()
    await both(case, play)


@scenario
async def renewed_urls_and_what_is_stored_by_them_outlive_a_kill_after_the_first_urls_end(case):
    scene = await Scene.new(case, "parts", BACKUPY_BACKUP_SPOOL="always")
    scene.store.fault = lambda request: (
        "stall" if request.what == "part 5" else "expired" if request.part > 2 and not request.generation else None)
    order = await scene.begin(lifetime_s=LIFE_S)
    await order.asked(scene.session)
    scene.store.generation = 1
    order.sign()
    # Exactly what was asked for.
    order.first_part, order.part_urls = 3, order.part_urls[2:]
    await order.send(scene.session, "fresh")
    stored = lambda: set(scene.store.uploads[order.upload_id]) >= {1, 2, 3, 4}
    await eventually("four parts", stored, 20)
    await asyncio.sleep(max(0, scene.begun + LIFE_S + 1 - time.monotonic()))
    await scene.agent.kill()
    scene.store.fault = lambda request: None
    scene.store.requests.clear()
    await scene.agent.start()
    await completed(scene.plane, order, timeout=30)
    again = {request.part for request in scene.store.requests}
    check(5 in again and not again & {1, 2}, f"parts {again} were sent")
    await scene.left_nothing()


@scenario
async def a_question_for_fresh_urls_that_got_lost_is_asked_again_over_the_next_link(case):
    async def play(scene):
        what = first_of(scene.way)
        scene.store.fault = lambda request: "expired" if request.what == what and not request.generation else None
        order = await scene.begin()
        await scene.session.wait_for("UploadUrlsRequest", order.is_mine)
        # The server that was asked is gone before it answers.
        scene.session.cut()
        session = await scene.plane.session()
        await session.wait_for("UploadUrlsRequest", order.is_mine, timeout=30)
        scene.store.generation = 1
        if scene.way == "parts":
            order.sign()
        else:
            order.url, order.expires_at_ms, scene.agent.secrets["the fresh one"] = scene.store.presign(order.key)
        await order.send(session, "fresh")
        await completed(scene.plane, order, timeout=30)
        await scene.left_nothing()
    await both(case, play)
