"""Uploads into a store that checks (rclone's S3 server), by URLs that boto3 signed: accepted, refused, too old,
given up; the object is fetched by boto3 and opened by `backupy-agent decrypt`.
"""

import asyncio
import hashlib
import time

from case import Order, check, config, scenario
from codec import CANCELLED
from parts import MIB, PART_BYTES, PartedOrder, noise
from rclone import Rclone
from scenarios_backup import completed, failed, spool_is_empty
from way import no_help

# Four parts and more.
PARTS_MEGABYTES = 18


async def stored_scene(case, tls=True, megabytes=1, **extra):
    """An agent with one SQLite job, and rclone's store."""
    path = await asyncio.to_thread(noise, case.folder / "shop.db", megabytes)
    store = await Rclone().start(case.folder, case.authority if tls else None)
    case.closing.append(store.stop)
    plane, agent, session = await case.pair(greet={"heartbeat": 1, "config": config(1, path)}, **extra)
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1)
    return plane, agent, session, store, path


async def stored_well(case, agent, done, order, path):
    """What a user does with the object: fetched from the store, opened with the key; it is what was told."""
    fetched, key, out = (case.folder / f"{order.run}.{name}" for name in ("bkp", "key", "db"))
    data = await asyncio.to_thread(order.object)
    check((done["size_bytes"], done["sha256"]) == (len(data), hashlib.sha256(data).hexdigest()), f"{done}")
    check((done["job_id"], done["s3_key"], done["encrypted_dek"]) == (order.job, order.key, order.dek), f"{done}")
    fetched.write_bytes(data)
    key.write_text(order.dek.hex())
    code, _, error = await agent.command("decrypt", "--key-file", str(key), "--in", str(fetched), "--out", str(out),
                                         timeout=60)
    check(code == 0, f"decrypt ended with {code}: {error}")
    check(out.read_bytes() == path.read_bytes(), "it is another database")


async def accepted(session, order):
    ack = await order.send(session)
    check(ack["accepted"], f"{ack}")


def refused_well(update, agent, store, denied, *words):
    """The words are there, the URL's query is not, and it was not tried twice."""
    error = update["error_message"]
    for word in words:
        check(word in error, f"{word!r} is not in: {error}")
    check("X-Amz" not in error and "?" not in error, f"the query is in: {error}")
    check(store.denied() == denied and not agent.logged("trying again"), f"{store.denied()} refusals")
    check(not store.unfinished(), f"{store.unfinished()}")
    spool_is_empty(agent)


@scenario
async def rclone_takes_one_put_and_the_object_opens(case):
    plane, agent, session, store, path = await stored_scene(case, megabytes=3)
    order = Order(agent, store, run="run ü+&=%2F 1")
    await accepted(session, order)
    done = await completed(plane, order, timeout=40)
    await stored_well(case, agent, done, order, path)
    check(done["size_bytes"] > 2 * MIB, "so small that the store is not asked before the body")
    spool_is_empty(agent)


@scenario
async def rclone_takes_one_put_in_the_clear_where_that_is_allowed(case):
    plane, agent, session, store, path = await stored_scene(case, tls=False, BACKUPY_DEV_ALLOW_INSECURE="true")
    order = Order(agent, store)
    await accepted(session, order)
    await stored_well(case, agent, await completed(plane, order), order, path)


@scenario
async def a_signature_without_the_content_type_is_as_good(case):
    plane, agent, session, store, path = await stored_scene(case)
    order = Order(agent, store)
    order.url = store.sign("put_object", 600, Key=order.key)
    check("content-type" not in order.url, order.url)
    await accepted(session, order)
    await stored_well(case, agent, await completed(plane, order), order, path)


@scenario
async def rclone_takes_parts_while_the_database_is_dumped_and_the_object_opens(case):
    plane, agent, session, store, path = await stored_scene(case, megabytes=PARTS_MEGABYTES)
    check("multipart_upload" in plane.all("Register")[0]["capabilities"], "the capability is not told")
    order = PartedOrder(agent, store)
    await accepted(session, order)
    spool, seen = agent.state / "spool", set()
    while not any(map(order.is_mine, plane.all("BackupCompleted"))):
        # A note of the stored parts has nothing of the object.
        seen.update(path for path in spool.rglob("*") if path.is_file() and path.suffix != ".ledger")
        if any(order.is_mine(update) and update["error_message"] for update in plane.all("JobUpdate")):
            break
        await asyncio.sleep(0.01)
    done = await completed(plane, order, timeout=60)
    check(not seen, f"something was spooled: {seen}")
    await stored_well(case, agent, done, order, path)
    count = -(-done["size_bytes"] // PART_BYTES)
    check(count > 3 and agent.logged("uploading in parts", f'"part_bytes":{PART_BYTES}'), f"{count} parts")
    check(not store.unfinished(), f"{store.unfinished()}")


@scenario
async def rclone_takes_the_parts_of_a_spool_and_after_a_kill_only_the_missing_ones(case):
    plane, agent, session, store, path = await stored_scene(case, megabytes=PARTS_MEGABYTES, BACKUPY_BACKUP_SPOOL="always")
    order = PartedOrder(agent, store)
    order.sign(dead_from=3)
    await asyncio.sleep(2.1)
    await accepted(session, order)
    await order.asked(session)
    await until_parts(store, order, {1, 2})
    await agent.kill()
    await agent.start()
    session = await plane.session()
    question = await order.asked(session)
    check(question["first_part_number"] >= 3, f"{question}")
    order.sign()
    await order.send(session, "fresh")
    done = await completed(plane, order, timeout=60)
    check(agent.logged("only the upload goes on") or agent.logged("the spool of an earlier life is whole"),
          "it was dumped again")
    check(agent.logged("not sent again"), "the parts that the store had were sent again")
    await stored_well(case, agent, done, order, path)
    check(not store.unfinished(), f"{store.unfinished()}")
    spool_is_empty(agent)


async def until_parts(store, order, numbers, timeout=20):
    """The store has these parts."""
    until = time.monotonic() + timeout
    while True:
        have = store.parts(order.key, order.upload_id)
        if numbers <= have:
            return
        check(time.monotonic() < until, f"the store has {have}, not {numbers}")
        await asyncio.sleep(0.05)


@scenario
async def one_put_whose_url_got_too_old_goes_on_with_a_fresh_one(case):
    plane, agent, session, store, path = await stored_scene(case)
    order = Order(agent, store)
    alive = order.url
    order.url, _, agent.secrets["the dead signature"] = store.presign(order.key, 1)
    await asyncio.sleep(2.1)
    await accepted(session, order)
    question = await session.wait_for("UploadUrlsRequest", order.is_mine)
    check(question["first_part_number"] == 0 and not question["multipart_upload_id"], f"{question}")
    order.url, order.expires_at_ms = alive, order.expires_at_ms + 1
    await order.send(session, "fresh")
    await stored_well(case, agent, await completed(plane, order), order, path)
    check(store.denied() == 1, f"{store.denied()} refusals")
    spool_is_empty(agent)


@scenario
async def parts_whose_urls_get_too_old_half_way_go_on_with_fresh_ones(case):
    plane, agent, session, store, path = await stored_scene(case, megabytes=PARTS_MEGABYTES)
    order = PartedOrder(agent, store)
    order.sign(dead_from=3)
    await asyncio.sleep(2.1)
    await accepted(session, order)
    question = await order.asked(session)
    check(question["multipart_upload_id"] == order.upload_id and question["first_part_number"] >= 3, f"{question}")
    order.sign()
    await order.send(session, "fresh")
    await stored_well(case, agent, await completed(plane, order, timeout=60), order, path)
    check(not store.unfinished(), f"{store.unfinished()}")


@scenario
async def urls_that_are_too_old_and_not_renewed_fail_the_run_in_words_and_give_the_parts_up(case):
    plane, agent, session, store, _ = await stored_scene(case, megabytes=PARTS_MEGABYTES)
    order = Order(agent, store)
    order.url, _, agent.secrets["the dead signature"] = store.presign(order.key, 1)
    parted = PartedOrder(agent, store)
    parted.sign(dead_from=3)
    await asyncio.sleep(2.1)
    for order in (order, parted):
        await accepted(session, order)
        async with no_help(session, order):
            update = await failed(plane, order, timeout=30)
        error = update["error_message"]
        check("too old" in error and "sign" in error and "X-Amz" not in error, error)
        check(not store.get(order.key), "there is an object")
        spool_is_empty(agent)
    check(not store.unfinished(), f"{store.unfinished()}")


@scenario
async def a_url_that_does_not_fit_is_refused_once_and_told_in_words(case):
    plane, agent, session, store, _ = await stored_scene(case)
    wrong_key = await asyncio.to_thread(store.signer, "another secret than the store has")
    urls = {
        "a broken signature": lambda key: flipped(store.presign(key)[0]),
        "another signer's secret": lambda key: store.sign("put_object", 600, wrong_key, Key=key),
        "another content type": lambda key: store.presign(key, content_type="text/plain")[0],
        "a URL for reading": lambda key: store.sign("get_object", 600, Key=key),
    }
    for number, (name, sign) in enumerate(urls.items(), 1):
        order = Order(agent, store)
        order.url = sign(order.key)
        begin = time.monotonic()
        await accepted(session, order)
        update = await failed(plane, order, timeout=10)
        check(time.monotonic() - begin < 8, f"{name}: after {time.monotonic() - begin:.1f} s")
        refused_well(update, agent, store, number, "403", "SignatureDoesNotMatch", "application/octet-stream")
    # Of parts: the same, and what was begun is given up.
    order = PartedOrder(agent, store)
    order.part_urls[0] = flipped(order.part_urls[0])
    await accepted(session, order)
    refused_well(await failed(plane, order, timeout=10), agent, store, number + 1, "403", "SignatureDoesNotMatch")


def flipped(url):
    return url[:-1] + ("0" if url[-1] != "0" else "1")


@scenario
async def a_bucket_or_an_upload_that_is_not_there_is_named(case):
    plane, agent, session, store, _ = await stored_scene(case)
    order = Order(agent, store)
    order.url = store.sign("put_object", 600, Key=order.key, Bucket="nowhere")
    await accepted(session, order)
    refused_well(await failed(plane, order, timeout=10), agent, store, 0, "404", "NoSuchBucket", "/nowhere/")
    order = PartedOrder(agent, store)
    store.client.abort_multipart_upload(Bucket="backups", Key=order.key, UploadId=order.upload_id)
    await accepted(session, order)
    # The agent asks for another upload first: this plane gives none.
    async with no_help(session, order):
        update = await failed(plane, order, timeout=40)
    refused_well(update, agent, store, 0, "404", "NoSuchUpload")


@scenario
async def a_cancelled_upload_in_parts_is_given_up_at_the_store(case):
    plane, agent, session, store, _ = await stored_scene(case, megabytes=PARTS_MEGABYTES)
    order = PartedOrder(agent, store)
    order.sign(dead_from=3)
    await asyncio.sleep(2.1)
    await accepted(session, order)
    await order.asked(session)
    check(len(store.unfinished()) == 1, f"{store.unfinished()}")
    begin = time.monotonic()
    check((await session.ask("CancelJob", {"job_id": order.job}, "cancel", timeout=2))["accepted"], "not cancelled")
    await session.wait_for("JobUpdate", lambda u: order.is_mine(u) and u["status"] == CANCELLED, timeout=3)
    check(time.monotonic() - begin < 2, f"cancelled after {time.monotonic() - begin:.1f} s")
    check(not store.unfinished(), f"{store.unfinished()}")
    check(not store.get(order.key), "there is an object")
    spool_is_empty(agent)
