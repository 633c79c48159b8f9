"""A backup on one of both ways to the store, by one PUT or in parts, and what must hold when it ended half-way."""

import asyncio
import contextlib
import itertools
import os
import time
from pathlib import Path

from case import Order, check, config
from codec import FAILED
from faulty import FaultyStore
from parts import MIB, PartedOrder, noise
from scenarios_backup import completed, failed
from scenarios_disk import eventually
from scenarios_hooks import alive

# A few of these parts, and more than a store is not asked about before.
MEGABYTES, PART_BYTES = 5, MIB
# More than the sockets between agent and store hold.
MANY_MEGABYTES = 22


def children(pid):
    """The processes that it started and that are still there."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return [child for child in found if alive(child)]


class Scene:
    """An agent, one database, a store that fails as it is told, and one way to it."""

    @classmethod
    async def new(cls, case, way, path=None, megabytes=MEGABYTES, settings=None, **extra):
        scene = cls()
        scene.case, scene.way = case, way
        if path is None and settings is None:
            path = await asyncio.to_thread(noise, case.folder / f"{way}.db", megabytes)
        scene.store = await FaultyStore().start(case.authority.server_context())
        case.stores.append(scene.store)
        scene.spool = case.folder / f"{way}-spool"
        scene.plane, scene.agent, scene.session = await case.pair(
            greet={"heartbeat": 1, "config": settings or config(1, path)}, state=way,
            **{"BACKUPY_BACKUP_SPOOL_DIR": str(scene.spool), **extra})
        await scene.session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 1)
        return scene

    def order(self, **other):
        if self.way == "parts":
            return PartedOrder(self.agent, self.store, **{"part_bytes": PART_BYTES, **other})
        return Order(self.agent, self.store, **other)

    async def begin(self, **other):
        order = self.order(**other)
        await self.send(order)
        return order

    async def send(self, order):
        self.begun = time.monotonic()
        ack = await order.send(self.session)
        check(ack["accepted"], f"{ack}")

    async def fails(self, order, *words, within):
        """FAILED in time, with these words, and nothing of the run is left anywhere."""
        update = await failed(self.plane, order, timeout=within)
        error, took = update["error_message"], time.monotonic() - self.begun
        for word in words:
            check(word in error, f"{self.way}: {word!r} is not in: {error}")
        check("X-Amz" not in error and "?" not in error.replace("exist?", ""), f"the query is in: {error}")
        await self.left_nothing()
        check(order.key not in self.store.objects, "there is an object")
        if self.way == "parts":
            check(order.upload_id in self.store.ended, f"not given up: {[r.what for r in self.store.requests]}")
        check([u["status"] for u in self.plane.all("JobUpdate") if order.is_mine(u)][-1] == FAILED, "not the last word")
        if os.environ.get("SHOW"):
            print(f"       {self.way}: {took:.1f} s: {error}")

    async def left_nothing(self):
        await eventually("an empty spool", lambda: not [p for p in self.spool.rglob("*") if p.is_file()], 3)
        await eventually("no child", lambda: not children(self.agent.pid), 3)

    async def recovers(self):
        """The next run of the same job is a backup."""
        self.store.fault = lambda request: None
        order = await self.begin()
        await completed(self.plane, order, timeout=60)
        check(order.object(), "no object")
        await self.left_nothing()


async def both(case, play, **other):
    """The same with one PUT and in parts, side by side."""
    async def one(way):
        await play(await Scene.new(case, way, **other))
    await asyncio.gather(one("put"), one("parts"))


def first_of(way):
    return "put" if way == "put" else "part 2"


def fault_of_all(fault, *whats):
    return lambda request: fault if request.what in whats else None


@contextlib.asynccontextmanager
async def no_help(session, order):
    """A server that answers the question for fresh URLs with some that are over. One that says nothing is waited for
    much longer."""
    async def answer():
        await session.wait_for("UploadUrlsRequest", order.is_mine, timeout=100)
        for order.expires_at_ms in itertools.count(1):
            await order.send(session, f"useless-{order.run}-{order.expires_at_ms}")
            await asyncio.sleep(0.7)
    answering = asyncio.create_task(answer())
    try:
        yield
    finally:
        answering.cancel()
