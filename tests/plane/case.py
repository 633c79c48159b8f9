"""What a scenario works with: its folder, its control plane, its agents, its object store."""

import asyncio
import os
import secrets
import sqlite3
import string
from pathlib import Path

from agent import Agent
from codec import SQLITE
from plane import Plane
from store import ObjectStore

SCENARIOS = []


# Beyond it a scenario hangs.
LIMIT_S = 180


def scenario(function=None, *, long=False, heavy=False, limit_s=LIMIT_S):
    """Registers a scenario; a long one runs only with LONG=1, a heavy one apart from those that measure
    time: it keeps this side of the wire busy as well."""
    def register(function):
        function.long, function.heavy, function.limit_s = long, heavy, limit_s
        SCENARIOS.append(function)
        return function
    return register(function) if function else register


def check(condition, message):
    if not condition:
        raise AssertionError(message)


class Case:
    def __init__(self, binary, folder, authority):
        self.binary, self.folder, self.authority = binary, Path(folder), authority
        self.planes, self.agents, self.stores = [], [], []
        self.closing = []   # what else must be ended: coroutine functions

    async def plane(self, tls=True, maximum=None, greet=None, **settings):
        plane = Plane()
        if greet is not None:
            plane.greet = greet
        for name, value in settings.items():
            setattr(plane, name, value)
        await plane.start(self.authority.server_context(maximum) if tls else None)
        self.planes.append(plane)
        return plane

    def agent(self, url, key=None, state="state", **extra):
        """An agent that is not started yet."""
        key = key or "bkpy_test_" + "".join(secrets.choice(string.ascii_letters) for _ in range(32))
        url = url.url if isinstance(url, Plane) else url
        agent = Agent(self.binary, self.folder / state, url, key, self.authority.ca_file, extra)
        self.agents.append(agent)
        return agent

    async def pair(self, greet=None, **extra):
        """A control plane, an agent that dials it, and their first session."""
        plane = await self.plane(greet=greet)
        agent = await self.agent(plane, **extra).start()
        session, ended = (asyncio.ensure_future(wait) for wait in (plane.session(), agent.process.wait()))
        await asyncio.wait((session, ended), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not session.done():
            session.cancel()
            raise AssertionError(f"the agent ended at once with {agent.process.returncode}")
        return plane, agent, session.result()

    async def store(self, tls=True):
        store = await ObjectStore().start(self.authority.server_context() if tls else None)
        self.stores.append(store)
        return store

    def database(self, name="shop.db", rows=2000, wal=False):
        """A SQLite file with rows that compress about as well as real ones."""
        path = self.folder / name
        connection = sqlite3.connect(path)
        if wal:
            connection.execute("pragma journal_mode = wal")
        connection.execute("create table orders (id integer primary key, customer text, note text, proof blob)")
        connection.executemany("insert into orders values (?, ?, ?, ?)", (
            (number, f"customer {number % 97}", f"order {number}: " + "as agreed, " * (number % 40),
             secrets.token_bytes(number % 700)) for number in range(rows)))
        connection.execute("create index by_customer on orders (customer)")
        connection.commit()
        connection.close()
        return path

    async def finish(self):
        for agent in self.agents:
            if agent.process is not None and agent.running():
                await agent.kill()
        for close in reversed(self.closing):
            await close()
        for plane in self.planes:
            await plane.stop()
        for store in self.stores:
            await store.stop()

    def verify(self):
        """What holds in every scenario, whatever it was about."""
        for plane in self.planes:
            plane.check()
        for agent in self.agents:
            agent.check_no_panic()
            agent.check_secrets()


def config(version, path=None, job="job-1", more_jobs=(), password="literal:unused-secret", **spec):
    """An AgentConfig with one SQLite target and its job."""
    if path is None:
        return {"version": version}
    jobs = [{"id": job, "target_id": "target-1", "cron": "0 3 * * *", "retention_days": 7,
             "compression": "zstd", "encryption_enabled": True, **spec}]
    jobs += [{"id": other, "target_id": "target-1"} for other in more_jobs]
    return {"version": version, "jobs": jobs,
            "targets": [{"id": "target-1", "type": SQLITE, "display_name": "the shop",
                         "connection": {"database": str(path), "password_secret_ref": password}}]}


class Order:
    """A RunBackup with its own key and its own place in the store."""

    def __init__(self, agent, store, job="job-1", run=None, lifetime_s=600):
        self.job, self.run = job, run or f"run-{secrets.token_hex(6)}"
        self.dek = os.urandom(32)
        self.key = f"{self.job}/{self.run}.bkp"
        self.url, self.expires_at_ms, signature = store.presign(self.key, lifetime_s)
        self.store = store
        agent.secrets["the presigned signature"] = signature
        agent.secrets["the DEK in hex"] = self.dek.hex()
        agent.secrets["the target's password"] = "unused-secret"

    def body(self, **other):
        return {"job_id": self.job, "run_id": self.run, "manual_trigger": True, "encrypted_dek": self.dek,
                "upload_creds": {"presigned_put_url": self.url, "expires_at_ms": self.expires_at_ms,
                                 "final_s3_key": self.key}, **other}

    def is_mine(self, envelope):
        return envelope["run_id"] == self.run

    async def send(self, session, correlation_id=None, **other):
        return await session.ask("RunBackup", self.body(**other), correlation_id or f"cmd-{self.run}")

    def object(self):
        """The newest: a life of the agent that was ended may have sent all of it as well."""
        stored = self.store.objects.get(self.key, [])
        check(stored, f"no object under {self.key}, refusals: {self.store.refusals}")
        return stored[-1]


def rows(path):
    """Everything in a SQLite file, after its own check of itself."""
    connection = sqlite3.connect(path)
    try:
        verdict = connection.execute("pragma integrity_check").fetchone()[0]
        check(verdict == "ok", f"integrity_check: {verdict}")
        return list(connection.iterdump())
    finally:
        connection.close()


def plaintext_on_disk(folder, marker=b"SQLite format 3\0"):
    """Files below the folder that begin as a database in the clear does."""
    found = []
    for path in Path(folder).rglob("*"):
        if path.is_file() and path.open("rb").read(len(marker)) == marker:
            found.append(path)
    return found
