"""A backup that an agent made, restored for a look with the token of its run and what the agent noted of it."""

import asyncio
import base64
import contextlib
import json
import os
import sqlite3
import subprocess
import time

from case import Order, check, scenario
from scenarios_backup import completed, scene
from scenarios_midway import postgres

MIB = 1024 * 1024


def part(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def token(order, sha256):
    now = int(time.time())
    claims = {"iss": "backupy-server", "aud": "backupy-decrypt", "exp": now + 900, "iat": now, "sub": "u-1",
              "run_id": order.run, "company_id": "c-1", "dek": base64.b64encode(order.dek).decode(),
              "alg": "AES-256-GCM", "format_version": 1, "sha256": sha256}
    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.{part(bytes(32))}"


async def look(case, agent, order, sha256, *more):
    """`verify --restore` as its operator calls it."""
    (case.folder / "object").write_bytes(order.object())
    (case.folder / "token").write_text(token(order, sha256))
    place = case.folder / "looked at"
    place.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        case.binary, "verify", "--restore", "--json", "--token-file", str(case.folder / "token"), "--in",
        str(case.folder / "object"), "--restore-dir", str(place), "--state-dir", str(agent.state), *more,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    said, errors = await process.communicate()
    check(not any(place.iterdir()), "something is left of the look")
    return process.returncode, json.loads(said), errors.decode()


@scenario
async def a_backup_is_held_against_what_its_run_noted(case):
    plane, agent, session, store, path = await scene(case)
    order = Order(agent, store)
    await order.send(session)
    done = await completed(plane, order)
    code, told, errors = await look(case, agent, order, done["sha256"])
    check(code == 0 and told["ok"], f"{told} {errors}")
    check(told["restored"]["tables"] == {"orders": 2000}, f"{told}")
    check(told["manifest"] == f"the agent on {agent.state}", f"{told}")

    # The server hears numbers, and no name of a table.
    log = [event for event in plane.all("LogEvent") if event["fields"].get("rows")]
    check(log and log[0]["fields"]["rows"] == "2000" and log[0]["fields"]["tables"] == "1", f"{log}")
    check("orders" not in json.dumps([event["fields"] for event in plane.all("LogEvent")]), f"{log}")

    # A later backup, with fewer rows, is none of the first run: its own note fits, the first one's does not.
    connection = sqlite3.connect(path)
    connection.execute("delete from orders where id % 2 = 0")
    connection.commit()
    connection.close()
    later = Order(agent, store)
    await later.send(session)
    done = await completed(plane, later)
    code, told, errors = await look(case, agent, later, done["sha256"])
    check(code == 0 and told["restored"]["rows"] == 1000, f"{told} {errors}")
    note = case.folder / "note"
    note.write_text(json.dumps({"tables": 1, "rows": 2000, "digest": "0" * 64,
                                "largest": [{"name": "orders", "rows": 2000}]}))
    code, told, errors = await look(case, agent, later, done["sha256"], "--manifest", str(note))
    check(code == 65 and told["error"] == "manifest_differs", f"{told} {errors}")
    check("orders has 2000 rows in the manifest" in errors and "has 1000 rows in the object" in errors, errors)

    # Without an agent nothing is compared with, and that is said.
    await agent.terminate()
    code, told, errors = await look(case, agent, later, done["sha256"])
    check(code == 0 and "manifest" not in told, f"{told} {errors}")


@contextlib.asynccontextmanager
async def least_free(place):
    """How little of a file system was ever free, in a list."""
    least = [os.statvfs(place).f_bavail]

    async def look_on():
        while True:
            least[0] = min(least[0], os.statvfs(place).f_bavail)
            await asyncio.sleep(0.01)
    looking = asyncio.create_task(look_on())
    try:
        yield least
    finally:
        looking.cancel()
        least[0] *= os.statvfs(place).f_frsize


@scenario
async def a_look_that_has_no_room_for_indexes_leaves_the_disk_room_and_does_not_blame_the_backup(case):
    async def run(*command):
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, "PGPASSWORD": "pw-of-the-database"}, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE)
        said, errors = await process.communicate()
        return process.returncode, said, errors.decode()

    small = case.folder / "small"
    small.mkdir()
    async with postgres(case) as (port, _):
        indexes = "".join(f"create index on t ({', '.join(['body'] * count)});" for count in range(1, 6))
        code, _, errors = await run("psql", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "bk", "-d", "postgres",
                                    "-c", indexes)
        check(code == 0, errors)
        (case.folder / "agent.toml").write_text(
            f'[targets.t]\ntype = "postgresql"\nport = {port}\nusername = "bk"\ndatabase = "postgres"\n'
            'password_ref = "env:PGPASSWORD"\n')
        key, backup = case.folder / "key", case.folder / "backup"
        code, _, errors = await run(case.binary, "backup", "--config", str(case.folder / "agent.toml"), "--target",
                                    "t", "--key-out", str(key), "--out", str(backup))
        check(code == 0, errors)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=280m,mode=1777", "tmpfs", str(small)], check=True)
    try:
        async with least_free(small) as least:
            code, said, errors = await run(case.binary, "verify", "--restore", "--json", "--restore-dir", str(small),
                                           "--key-file", str(key), "--in", str(backup))
        check(not any(small.iterdir()), "something is left of the look")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    told = json.loads(said)
    check(code == 74 and told["error"] == "write_failed" and "are free in" in told["message"], f"{code} {told} {errors}")
    check(32 * MIB < least[0] < 64 * MIB, f"{least[0]} bytes were free")
