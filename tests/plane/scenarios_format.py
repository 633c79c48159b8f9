"""The reader that docs/backups.md shows, taken out of the page and run on what the real binary stored."""

import asyncio
import base64
import re
import struct
import sys
from pathlib import Path

from case import Order, check, config, scenario
from scenarios_backup import completed, scene

PAGE = Path(__file__).parents[2] / "docs" / "backups.md"
MAX_LINES = 36


def reader(case):
    """The page's own code, as a file."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    check(len(blocks) == 1, f"{len(blocks)} pieces of Python on the page")
    check(len(blocks[0].splitlines()) <= MAX_LINES, "it grew")
    path = case.folder / "reader.py"
    path.write_text(blocks[0])
    return path


async def read(program, key, data):
    """Exit code, output, errors."""
    key_file = program.with_name("key")
    key_file.write_text(base64.b64encode(key).decode() + "\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-B", str(program), str(key_file), stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, error = await asyncio.wait_for(process.communicate(data), 60)
    return process.returncode, out, error.decode()


def frames(data):
    """Each frame with its length; without the final zero."""
    found, at = [], 0
    while length := struct.unpack_from(">I", data, at)[0]:
        found.append(data[at:at + 4 + length])
        at += 4 + length
    return found


@scenario
async def the_reader_of_the_documentation_opens_what_the_agent_stored(case):
    program = reader(case)
    path = await asyncio.to_thread(case.database, rows=8000)
    plane, agent, session, store, _ = await scene(case, database=path)
    stored = {}
    for version, compression in enumerate(("zstd", "gzip", "none"), 2):
        ack = await session.ask("ConfigUpdate", {"config": config(version, path, compression=compression)}, compression)
        check(ack["accepted"], f"{ack}")
        order = Order(agent, store)
        check((await order.send(session))["accepted"], "refused")
        await completed(plane, order, timeout=60)
        code, out, error = await read(program, order.dek, order.object())
        check(code == 0 and out == path.read_bytes(), f"{compression}: {code}, {len(out)} bytes, {error}")
        stored[compression] = order
    await tampering_is_refused(program, path, stored["none"])


async def tampering_is_refused(program, path, order):
    data, end = order.object(), bytes(4)
    pieces = frames(data)
    check(len(pieces) > 3 and b"".join(pieces) + end == data, f"{len(pieces)} frames")
    first, second, *rest = pieces
    middle = len(data) // 2
    changed = {
        "a flipped bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:],
        "two frames swapped": b"".join([second, first, *rest]) + end,
        "a frame dropped": b"".join([first, *rest]) + end,
        "the first frame dropped": b"".join([second, *rest]) + end,
        "a frame doubled": b"".join([first, first, second, *rest]) + end,
        "the last frame dropped": b"".join(pieces[:-1]) + end,
        "no end": data[:-4],
        "cut in a frame": data[:middle],
        "something behind the end": data + b"x",
        "a frame behind the last": data[:-4] + pieces[-1] + end,
        "a frame of 4 GiB": b"\xff\xff\xff\xff" + data[4:],
        "nothing": b"",
    }
    for name, bad in changed.items():
        code, _, error = await read(program, order.dek, bad)
        check(code == 1 and error, f"{name}: exit {code}")
    code, out, _ = await read(program, bytes(32), data)
    check(code == 1 and not out, "another key opened it")
