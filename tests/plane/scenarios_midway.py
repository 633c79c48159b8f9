"""Dump tools, database servers and disks that fail a backup half-way: the run ends FAILED with the reason, no child is
left, nothing on the disk, no upload open at the store.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from case import check, scenario
from parts import MIB
from scenarios_disk import eventually
from scenarios_hooks import alive
from way import both, children

POSTGRESQL, MONGODB = 1, 4


@scenario
async def a_spool_that_fills_up_half_way_fails_the_run_with_the_figures(case):
    async def play(scene):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=84m", "tmpfs", str(scene.spool)], check=True)
        try:
            # 20 MiB over the guard, and an object of 32: the estimate gave hope. Parts so large that they wait in
            # files: the second finds no room.
            order = scene.order(**({"part_bytes": 17 * MIB} if scene.way == "parts" else {}))
            await scene.send(order)
            await scene.fails(order, "not enough room", "bytes are free", "set backup.spool_dir", within=15)
        finally:
            subprocess.run(["umount", "-l", str(scene.spool)], check=True)
        await scene.recovers()
    for way in ("put", "parts"):
        (case.folder / f"{way}-spool").mkdir(mode=0o700)
    await both(case, play, megabytes=32)


# Writes the beginning of an archive, and then waits: in the middle of a collection.
MONGODUMP = """#!/usr/bin/env python3
import os, struct, subprocess, sys
child = subprocess.Popen(["sleep", "600"])
def document(**fields):
    body = b"".join(b"\\x02" + name.encode() + b"\\0" + struct.pack("<i", len(text) + 1) + text.encode() + b"\\0"
                    for name, text in fields.items())
    return struct.pack("<i", len(body) + 5) + body + b"\\0"
out = sys.stdout.buffer
out.write(b"\\x6d\\xe2\\x99\\x81" + document(version="0.1", server_version="7.0.5", tool_version="100.9"))
out.write(document(db="d", collection="c", metadata="{}") + b"\\xff" * 4 + document(db="d", collection="c"))
for _ in range(200):
    out.write(document(text=os.urandom(40000).hex()))
out.flush()
with open("PIDS", "a") as file:
    file.write(f"{os.getpid()} {child.pid}\\n")
child.wait()
"""


def scripted_tool(case, name, text):
    """A dump tool of our own, and a PATH with it."""
    tools = case.folder / "bin"
    tools.mkdir()
    (tools / name).write_text(text)
    (tools / name).chmod(0o755)
    return f"{tools}:{os.environ['PATH']}"


def settings(engine, **connection):
    return {"version": 1, "jobs": [{"id": "job-1", "target_id": "target-1", "compression": "none"}],
            "targets": [{"id": "target-1", "type": engine, "connection": connection}]}


@scenario
async def a_dump_tool_that_is_killed_half_way_is_no_short_success(case):
    notes = case.folder / "pids"
    path = scripted_tool(case, "mongodump", MONGODUMP.replace("PIDS", str(notes)))

    def noted():
        lines = notes.read_text().splitlines() if notes.exists() else []
        return [tuple(map(int, line.split())) for line in lines]

    async def play(scene):
        order = await scene.begin()
        tool, child = (await eventually("the tool waits", lambda: [
            pair for pair in noted() if pair[0] in children(scene.agent.pid)], 15))[0]
        check(alive(child), "its child ended before it")
        os.kill(tool, signal.SIGKILL)
        await scene.fails(order, "mongodump was killed (SIGKILL)", within=10)
        await eventually("its child is gone as well", lambda: not alive(child), 3)
    await both(case, play, settings=settings(MONGODB, host="127.0.0.1", database="shop"), PATH=path)


@contextlib.asynccontextmanager
async def postgres(case):
    """A real server with one table of noise, and how to kill it."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    home = case.folder / "postgres"
    home.mkdir()
    case.folder.chmod(0o755)
    case.folder.parent.chmod(0o755)
    shutil.chown(home, "postgres", "postgres")
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
    (home / "password").write_text("pw-of-the-database")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def run(*command, **other):
        process = await asyncio.create_subprocess_exec(*command, cwd="/", stdout=asyncio.subprocess.DEVNULL, **other)
        check(await asyncio.wait_for(process.wait(), 60) == 0, f"{command}")

    await run(*as_postgres, str(binaries / "initdb"), "-D", str(home / "data"), "-A", "scram-sha-256", "-U", "bk",
              f"--pwfile={home / 'password'}", "--no-sync")
    server = await asyncio.create_subprocess_exec(
        *as_postgres, str(binaries / "postgres"), "-D", str(home / "data"), "-c", "listen_addresses=127.0.0.1", "-p",
        str(port), "-k", str(home), "-F", cwd="/", start_new_session=True, stdout=asyncio.subprocess.DEVNULL,
        stderr=(home / "log").open("wb"))
    environment = {**os.environ, "PGPASSWORD": "pw-of-the-database"}
    client = ["psql", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "bk", "-d", "postgres", "-v", "ON_ERROR_STOP=1"]
    try:
        await eventually("PostgreSQL", lambda: subprocess.run(
            [*client, "-c", "select 1"], env=environment, capture_output=True).returncode == 0, 30)
        await run(*client, "-c", "create table t as select n, md5(n::text) || md5((n * 7)::text) as body "
                  "from generate_series(1, 300000) n", env=environment)
        yield port, lambda: os.killpg(server.pid, signal.SIGKILL)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        await server.wait()


@scenario
async def a_database_server_that_dies_half_way_fails_the_run_with_its_tools_words(case):
    async with postgres(case) as (port, kill):
        dumping = []

        async def play(scene):
            scene.agent.secrets["the database's password"] = "pw-of-the-database"
            order = await scene.begin()

            def is_dumping():
                return [pid for pid in children(scene.agent.pid) if b"pg_dump\0--format" in cmdline(pid)]
            await eventually("pg_dump", is_dumping, 20)
            # Some of the table is through: the rate lets 1 MB a second pass.
            await asyncio.sleep(2)
            check(is_dumping(), "the dump was over too soon")
            dumping.append(scene)
            await eventually("the other one", lambda: len(dumping) == 2, 20)
            with contextlib.suppress(ProcessLookupError):
                kill()
            await scene.fails(order, "pg_dump", "server closed the connection", within=20)
        await both(case, play, BACKUPY_BACKUP_MAX_READ_BYTES_PER_SEC="1 MiB", settings=settings(
            POSTGRESQL, host="127.0.0.1", port=port, database="postgres", username="bk",
            password_secret_ref="literal:pw-of-the-database"))


def cmdline(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
