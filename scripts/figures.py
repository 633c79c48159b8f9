"""The figures of the README, measured from outside on the machine at hand.

`make figures` runs it over the release binary. Each is given as minimum, median and maximum, and a backup beside
`zstd -3 -T2` over the same file in the same run, one after the other: machines differ, and are shared.
"""

import argparse
import asyncio
import os
import random
import secrets
import shlex
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "plane"))

from case import Case, config  # noqa: E402
from certificates import Authority  # noqa: E402
from codec import POSTGRESQL  # noqa: E402

MIB = 1024 * 1024


class Sink:
    """An object store that reads objects and parts as fast as they come and keeps nothing. `seconds`: how long it takes
    before it answers, as a store does that is far away."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.taken = 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.take, args=(connection,), daemon=True).start()

    def take(self, connection):
        buffer = bytearray(MIB)
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, body = data.split(b"\r\n\r\n", 1)
        if b"expect: 100-continue" in head.lower():
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")  # as every S3 does
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                      if line.startswith(b"content-length:"))
        left = length - len(body)
        while left:
            left -= connection.recv_into(buffer, min(left, MIB))
        time.sleep(self.seconds)
        body = b"<CompleteMultipartUploadResult/>" if head.startswith(b"POST") else b""
        connection.sendall(b"HTTP/1.1 200 OK\r\netag: \"opaque\"\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
                           % len(body) + body)
        connection.close()

    def creds(self, key, parts):
        """Where that object goes; with URLs for so many parts, where there are any."""
        url = f"http://127.0.0.1:{self.port}/bucket/{key}?signature={secrets.token_hex(8)}"
        creds = {"presigned_put_url": url, "expires_at_ms": int((time.time() + 3600) * 1000), "final_s3_key": key}
        if parts:
            creds |= {"presigned_part_urls": [f"{url}&partNumber={number + 1}" for number in range(parts)],
                      "presigned_complete_url": url}
        return creds


def spread(values, unit, digits=1):
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{low:.{digits}f} / {middle:.{digits}f} / {high:.{digits}f} {unit}  (min / median / max of {len(values)})"


def cpu_ms(agent):
    """CPU of the process so far, milliseconds; the scheduler's own count, finer than clock ticks."""
    total = 0
    for task in Path(f"/proc/{agent.pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e6


def switches(agent):
    total = 0
    for task in Path(f"/proc/{agent.pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


async def start_up(binary, root, authority, runs):
    """From exec to the arrival of Register, on a state that exists."""
    times = []
    case = Case(binary, root / "start", authority)
    case.folder.mkdir()
    plane = await case.plane(greet={"heartbeat": 30})
    agent = case.agent(plane, BACKUPY_LOG_LEVEL="info")
    for _ in range(runs + 1):
        before = time.monotonic()
        await agent.start()
        session = await plane.session()
        times.append((session.register.at - before) * 1000)
        await agent.terminate()
    await case.finish()
    print(f"exec to Register:  {spread(times[1:], 'ms')}", flush=True)


async def idle(binary, root, authority, minutes):
    """Connected, a heartbeat every 30 s, nothing to do."""
    case = Case(binary, root / "idle", authority)
    case.folder.mkdir()
    plane, agent, session = await case.pair(greet={"heartbeat": 30}, BACKUPY_LOG_LEVEL="info",
                                            BACKUPY_METRICS_LISTEN_ADDR="127.0.0.1:0")
    await asyncio.sleep(5)
    memory, cpu, wakeups = [], [], []
    for _ in range(minutes):
        used, woken = cpu_ms(agent), switches(agent)
        await asyncio.sleep(60)
        cpu.append(cpu_ms(agent) - used)
        wakeups.append(switches(agent) - woken)
        memory.append(agent.memory() / MIB)
    await case.finish()
    print(f"idle, memory:      {spread(memory, 'MiB RSS')}")
    print(f"idle, CPU:         {spread(cpu, 'ms a minute', 2)}")
    print(f"idle, wake-ups:    {spread(wakeups, 'a minute', 0)}", flush=True)


def sample(path, size):
    """A database whose pages compress about as well as an application's do."""
    dice = random.Random(7)
    words = ["".join(dice.choices("etaoinshrdlucmfwyp", k=dice.randint(2, 9))) for _ in range(20000)]
    connection = sqlite3.connect(path)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = off")
    connection.execute("create table orders (id integer primary key, customer text, email text, note text, total real)")
    while path.stat().st_size < size:
        connection.executemany("insert into orders (customer, email, note, total) values (?, ?, ?, ?)", (
            (" ".join(dice.choices(words, k=2)), f"{dice.choice(words)}{dice.randint(1, 999)}@example.com",
             " ".join(dice.choices(words, k=14)), round(dice.random() * 500, 2)) for _ in range(50000)))
        connection.commit()
        connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()


async def peer(path):
    before = time.monotonic()
    process = await asyncio.create_subprocess_exec("zstd", "-3", "-T2", "-q", "-f", "-o", f"{path}.zst", str(path))
    if await process.wait():
        raise SystemExit("zstd failed")
    return time.monotonic() - before


async def order(session, sink, run, parts=0):
    """Orders a backup into the sink. How long it took, and what the agent says of it."""
    before = time.monotonic()
    await session.send("RunBackup", {"job_id": "job-1", "run_id": run, "manual_trigger": True,
                                     "encrypted_dek": os.urandom(32), "upload_creds": sink.creds(run, parts)},
                       f"cmd-{run}")
    done = await session.wait_for("BackupCompleted", lambda result: result["run_id"] == run, 3600)
    return time.monotonic() - before, done


async def streamed(binary, root, authority, runs, path):
    """The same file in parts, while it is read: nothing is spooled, and what is on its way is in memory. The store takes
    its time, so that every buffer there may be is there."""
    case = Case(binary, root / "streamed", authority)
    case.folder.mkdir()
    plane, agent, session = await case.pair(
        greet={"heartbeat": 30, "config": config(1, path)}, BACKUPY_LOG_LEVEL="info",
        BACKUPY_DEV_ALLOW_INSECURE="true")
    sink = Sink(seconds=0.3)
    times = [(await order(session, sink, f"run-{number}", parts=1000))[0] for number in range(runs)]
    print(f"in parts:          {spread(times, 's', 2)}")
    print(f"peak memory:       {agent.memory('VmHWM') / MIB:.1f} MiB RSS over all {runs} runs", flush=True)
    await case.finish()


async def backup(binary, root, authority, runs, size):
    case = Case(binary, root / "backup", authority)
    case.folder.mkdir()
    path = root / "sample.db"
    sample(path, size)
    sink = Sink()
    plane, agent, session = await case.pair(
        greet={"heartbeat": 30, "config": config(1, path)}, BACKUPY_LOG_LEVEL="info",
        BACKUPY_DEV_ALLOW_INSECURE="true")
    ours, theirs, ratios, stored = [], [], [], []
    for number in range(runs + 1):
        mine, done = await order(session, sink, f"run-{number}")
        other = await peer(path)
        if number == 0:
            continue  # the first warms the page cache for both
        ours.append(mine)
        theirs.append(other)
        ratios.append(mine / other)
        stored.append(done["size_bytes"] / MIB)
    peak = agent.memory("VmHWM") / MIB
    zst = Path(f"{path}.zst").stat().st_size / MIB
    print(f"backup of {path.stat().st_size / 1e6:.0f} MB:  {spread(ours, 's', 2)}")
    print(f"zstd -3 -T2:       {spread(theirs, 's', 2)}")
    print(f"ratio:             {spread(ratios, 'times', 2)}")
    print(f"stored:            {stored[0]:.0f} MiB sealed, {zst:.0f} MiB by zstd alone")
    print(f"peak memory:       {peak:.1f} MiB RSS over all {runs + 1} runs", flush=True)
    await case.finish()


class Postgres:
    """A server of its own on loopback, for this host only and without passwords."""

    def __init__(self, folder):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4]))
        if not found:
            raise SystemExit("figures: no PostgreSQL below /usr/lib/postgresql: run `make deps`")
        self.programs, self.folder = found[-1].parent, folder / "postgres"
        self.folder.mkdir()
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            folder.chmod(0o711)  # ours alone until now; the server's user must come through
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        data = str(self.folder / "data")
        subprocess.run(self.call("initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8",
                                 "--locale=C.UTF-8", "--no-sync"), check=True, stdout=subprocess.DEVNULL)
        self.server = subprocess.Popen(
            self.call("postgres", "-D", data, "-k", str(self.folder), "-p", str(self.port), "-F", "-c",
                      "listen_addresses=127.0.0.1", "-c", "autovacuum=off", "-c", "max_wal_size=4GB"),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(300):
            if subprocess.run(self.client("psql", "-c", "select 1"), capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        raise SystemExit("figures: PostgreSQL did not start")

    def call(self, program, *arguments):
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"] if os.geteuid() == 0 else []
        return [*user, str(self.programs / program), *arguments]

    def client(self, program, *arguments, database="postgres"):
        return [str(self.programs / program), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database,
                *arguments]

    def sql(self, database, *statements):
        for statement in statements:
            subprocess.run(self.client("psql", "-q", "-c", statement, database=database), check=True)

    def fill(self, name, table, rows):
        """A database of its own with one table, which the dice make the same each time."""
        self.sql("postgres", f"create database {name}")
        # What the first reader of new rows writes, nobody who is measured shall write.
        self.sql(name, f"create table orders as select {table} from (select setseed(0.7)) dice, "
                       f"generate_series(1, {rows}) i", "vacuum analyze orders", "checkpoint")

    def stop(self):
        self.server.send_signal(3)
        self.server.wait()


async def timed(*command, out=None):
    before = time.monotonic()
    process = await asyncio.create_subprocess_exec(*command, stdout=out)
    if await process.wait():
        raise SystemExit(f"figures: {command[0]} failed")
    return time.monotonic() - before


# Rows as applications have them, and rows of which nearly every byte is a random one: about 200 bytes each in a dump.
TABLES = {
    "rows": """i as id, md5(i::text)::uuid as uid, (random() * 1e6)::int as customer,
        now() - random() * interval '400 days' as at,
        (array['created', 'paid', 'shipped', 'refunded', 'cancelled'])[1 + (random() * 4)::int] as state,
        jsonb_build_object('ip', (random() * 255)::int || '.' || (random() * 255)::int || '.10.7',
            'agent', 'Mozilla/5.0 (X11; Linux x86_64) v' || (random() * 100)::int,
            'amount', round((random() * 500)::numeric, 2), 'sku', 'SKU-' || (random() * 99999)::int) as body""",
    "hashes": """i as id, md5(i::text) as name, random() as weight, now() - random() * interval '400 days' as at,
        md5(random()::text) || md5(random()::text) || md5(random()::text) as token""",
}


async def postgres(binary, root, authority, runs, size):
    """From RunBackup to BackupCompleted, in turn with pg_dump alone and zstd alone, of which the slower one bounds any
    backup that dumps and compresses, and with both as one pipeline of the shell."""
    server = Postgres(root)
    try:
        for name, table in TABLES.items():
            server.fill(name, table, size // 200)
            await postgres_table(binary, root, authority, runs, server, name)
    finally:
        server.stop()


async def postgres_table(binary, root, authority, runs, server, name):
    case = Case(binary, root / name, authority)
    case.folder.mkdir()
    sink = Sink()
    target = {"id": "target-1", "type": POSTGRESQL, "display_name": "figures",
              "connection": {"host": "127.0.0.1", "port": server.port, "database": name, "username": "postgres"}}
    job = {"id": "job-1", "target_id": "target-1", "compression": "zstd", "encryption_enabled": True}
    greet = {"heartbeat": 30, "config": {"version": 1, "jobs": [job], "targets": [target]}}
    plane, agent, session = await case.pair(greet=greet, BACKUPY_LOG_LEVEL="info", BACKUPY_DEV_ALLOW_INSECURE="true")
    dump, packed = case.folder / "dump", case.folder / "dump.zst"
    pg_dump = server.client("pg_dump", "-Fc", "-Z0", database=name)
    zstd = ["zstd", "-3", "-T2", "-q", "-f", "-o", str(packed)]
    with open(dump, "wb") as file:
        await timed(*pg_dump, out=file)
    times = {"the agent": [], "pg_dump -Fc -Z0": [], "zstd -3 -T2": [], "pg_dump | zstd": []}
    for number in range(runs + 1):
        mine, done = await order(session, sink, f"run-{number}")
        with open(os.devnull, "wb") as nothing:
            dumping = await timed(*pg_dump, out=nothing)
        packing = await timed(*zstd, str(dump))
        piped = await timed("sh", "-c", f"{shlex.join(pg_dump)} | {shlex.join(zstd)}")
        if number:  # the first warms the caches for all of them
            for kept, time_taken in zip(times.values(), (mine, dumping, packing, piped)):
                kept.append(time_taken)
    peak = agent.memory("VmHWM") / MIB
    ours, dumps, packs, pipes = times.values()
    print(f"PostgreSQL, {name}, dump of {dump.stat().st_size / 1e6:.0f} MB")
    for what, values in times.items():
        print(f"  {what + ':':17}{spread(values, 's', 2)}")
    slower = [mine / max(pair) for mine, *pair in zip(ours, dumps, packs)]
    print(f"  ratio to slower: {spread(slower, 'times', 2)}")
    print(f"  ratio to both:   {spread([mine / piped for mine, piped in zip(ours, pipes)], 'times', 2)}")
    print(f"  stored:          {done['size_bytes'] / MIB:.0f} MiB sealed, {packed.stat().st_size / MIB:.0f} MiB by zstd")
    print(f"  peak memory:     {peak:.1f} MiB RSS over all {runs + 1} runs", flush=True)
    await case.finish()


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--only", choices=["start", "idle", "backup", "postgres"])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--minutes", type=int, default=3)
    parser.add_argument("--size-mb", type=int, default=507)
    parser.add_argument("--postgres-mb", type=int, default=300, help="3000 for the long form")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="backupy-figures-"))
    authority = Authority(root / "authority")
    binary = str(Path(options.binary).resolve())
    try:
        if options.only in (None, "start"):
            await start_up(binary, root, authority, options.runs * 3)
        if options.only in (None, "idle"):
            await idle(binary, root, authority, options.minutes)
        if options.only in (None, "backup"):
            await backup(binary, root, authority, options.runs, options.size_mb * 10**6)
            await streamed(binary, root, authority, options.runs, root / "sample.db")
        if options.only in (None, "postgres"):
            await postgres(binary, root, authority, options.runs, options.postgres_mb * 10**6)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main())
