"""A backup that an agent made, restored for a look with the token of its run and what the agent noted of it."""

import asyncio
import base64
import json
import sqlite3
import time

from case import Order, check, scenario
from scenarios_backup import completed, scene


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
