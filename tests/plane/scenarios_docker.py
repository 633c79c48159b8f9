"""Dumps inside a container of a real Docker engine: whatever ends in the middle, the tool inside ends too, and the run
has one end.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from case import check, scenario
from codec import CANCELLED, FAILED
from scenarios_backup import completed, failed
from scenarios_disk import eventually
from scenarios_hooks import alive
from scenarios_midway import POSTGRESQL, cmdline, postgres, settings
from way import Scene

DOCKER_EXEC = 1
PASSWORD = "pw-of-the-database"
# Places of the image at which this machine's programs are mounted.
PLACES = ("usr", "lib", "lib64", "etc", "tmp")


class Docker:
    """A Docker engine and its container `db`, which has this machine's programs and network."""

    def __init__(self, folder):
        self.folder, self.socket = folder, folder / "s"
        # The length of a socket's path is bounded.
        folder.mkdir()

    async def start(self):
        log = (self.folder / "log").open("ab")
        self.engine = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "TERM", "--", "dockerd", "-H", f"unix://{self.socket}", "--data-root",
            str(self.folder / "root"), "--exec-root", str(self.folder / "exec"), "--pidfile", str(self.folder / "pid"),
            "--storage-driver=vfs", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
            "--live-restore", stdout=log, stderr=log)
        await eventually("the Docker engine", lambda: self.ask("version", check=False).returncode == 0)

    def ask(self, *arguments, check=True):
        return subprocess.run(["docker", "-H", f"unix://{self.socket}", *arguments], check=check, capture_output=True,
                              text=True)

    def run_container(self):
        image = self.folder / "image"
        for place in (*PLACES, "bin", "proc", "dev", "sys"):
            (image / place).mkdir(parents=True)
        subprocess.run(["tar", "-C", image, "-cf", self.folder / "image.tar", "."], check=True)
        self.ask("import", str(self.folder / "image.tar"), "machine:1")
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        mounts = [word for place in PLACES for word in ("-v", f"/{place}:/{place}")]
        self.container = self.ask("run", "-d", "--name", "db", "--network", "host", "--stop-timeout", "1", "-e",
                                  f"PATH={binaries}:/usr/bin:/bin", *mounts, "machine:1", "/usr/bin/sleep",
                                  "6000").stdout.strip()

    def tools(self):
        """The dump tools in the container."""
        found = set()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.container in (path / "cgroup").read_text() and b"pg_dump\0--format" in cmdline(path.name):
                    found.add(int(path.name))
        return found

    async def kill(self):
        """`kill -9` of the engine; its containers go on."""
        self.engine.kill()
        await self.engine.wait()
        # Its own children die with it. Where nobody reaps orphans, the next engine takes the old one's for alive.
        (self.folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    async def stop(self):
        if self.engine.returncode is not None:
            await self.start()
        self.ask("rm", "-f", "db", check=False)
        self.engine.terminate()
        await self.engine.wait()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if (place := line.split()[1]).startswith(str(self.folder)):
                subprocess.run(["umount", "-l", place])


@contextlib.asynccontextmanager
async def container(case):
    """PostgreSQL beside a container with its tools."""
    async with postgres(case) as (port, _):
        docker = Docker(case.folder / "docker")
        await docker.start()
        try:
            await asyncio.to_thread(docker.run_container)
            yield docker, port
        finally:
            await docker.stop()


def target(port):
    return settings(POSTGRESQL, strategy=DOCKER_EXEC, container_id="db", host="127.0.0.1", port=port, database="postgres",
                    username="bk", password_secret_ref=f"literal:{PASSWORD}")


@contextlib.contextmanager
def held(port):
    """Somebody holds the lock that a dump waits for."""
    holder = subprocess.Popen(
        ["psql", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "bk", "-d", "postgres"],
        env={**os.environ, "PGPASSWORD": PASSWORD}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdin.write(b"begin; lock table t;\n\\! echo held\n")
    holder.stdin.flush()
    holder.stdout.readline()
    try:
        yield
    finally:
        holder.communicate()


class Inside(Scene):
    """The dump runs in the container."""

    @classmethod
    async def new(cls, case, docker, port, way, **extra):
        scene = await super().new(case, way, settings=target(port), BACKUPY_DOCKER_SOCKET=str(docker.socket), **extra)
        scene.docker = docker
        scene.agent.secrets["the database's password"] = PASSWORD
        return scene

    async def dump(self, **other):
        """Begins a run; answers it with its tool in the container."""
        before = self.docker.tools()
        order = await self.begin(**other)
        tools = await eventually("pg_dump in the container", lambda: self.docker.tools() - before)
        return order, tools.pop()

    async def again(self):
        await self.agent.start()
        self.session = await self.plane.session()

    async def succeeds_once(self, order):
        await completed(self.plane, order, timeout=60)
        await self.left_nothing()
        check(len(self.store.objects[order.key]) == 1, "more than one object")
        ends = {update.seq for kind in ("BackupCompleted", "JobUpdate") for update in self.plane.all(kind)
                if order.is_mine(update) and update.body.get("status", FAILED) in (FAILED, CANCELLED)}
        check(len(ends) == 1, f"{len(ends)} ends")


@contextlib.contextmanager
def unprivileged(case, docker, *ways):
    """Agents that are made within run as a user who may use the engine's socket and signal nobody in the container."""
    docker.socket.chmod(0o666)
    for place in (name for way in ways for name in (way, f"{way}-spool")):
        (case.folder / place).mkdir(mode=0o700)
        shutil.chown(case.folder / place, "daemon", "daemon")
    script, binary = case.folder / "as-daemon", case.binary
    script.write_text(f'#!/bin/sh\nexec setpriv --reuid=daemon --regid=daemon --clear-groups -- {binary} "$@"\n')
    script.chmod(0o755)
    case.binary = script
    try:
        yield
    finally:
        case.binary = binary


@scenario
async def a_tool_that_a_killed_agent_left_in_a_container_ends_and_the_run_has_one_end(case):
    async with container(case) as (docker, port):
        parts = await Inside.new(case, docker, port, "parts")
        with unprivileged(case, docker, "put", "late"):
            put, late = [await Inside.new(case, docker, port, way) for way in ("put", "late")]
        with held(port):
            put_order, put_tool = await put.dump()
            parts_order, parts_tool = await parts.dump()
            late_order, late_tool = await late.dump(lifetime_s=3)
            for scene in (put, parts, late):
                await scene.agent.kill()
            check(docker.tools() == {put_tool, parts_tool, late_tool}, "a tool ended with its agent")
            await asyncio.sleep(3)
            await late.again()
            update = await failed(late.plane, late_order)
            check("expired" in update["error_message"], f"{update}")
            await eventually("the end of its tool", lambda: not alive(late_tool), 10)
            check(docker.tools() == {put_tool, parts_tool}, "a tool of another agent was ended")
            await put.again()
            await parts.again()
            await eventually("the end of both tools", lambda: not alive(put_tool) and not alive(parts_tool), 10)
        await put.succeeds_once(put_order)
        await parts.succeeds_once(parts_order)
        check(not docker.tools(), "a tool is left")


@scenario
async def sigterm_in_a_dump_inside_a_container_ends_the_tool_and_the_next_life_has_the_run(case):
    async with container(case) as (docker, port):
        with unprivileged(case, docker, "put"):
            scene = await Inside.new(case, docker, port, "put")
        with held(port):
            order, tool = await scene.dump()
            code, seconds = await scene.agent.terminate(timeout=12)
            check(code == 0 and seconds < 10.5, f"exit {code} after {seconds:.1f} s")
            check(not alive(tool), "the tool goes on without its agent")
            await scene.again()
            await eventually("another one", docker.tools)
        await scene.succeeds_once(order)


@scenario
async def a_container_or_an_engine_that_starts_again_in_a_dump_fails_the_run_once_and_leaves_no_tool(case):
    async with container(case) as (docker, port):
        root = await Inside.new(case, docker, port, "parts")
        with unprivileged(case, docker, "put"):
            user = await Inside.new(case, docker, port, "put")
        with held(port):
            order, _ = await root.dump()
            await asyncio.to_thread(docker.ask, "restart", "db")
            await root.fails(order, "pg_dump", "the container", within=20)

            root_order, root_tool = await root.dump()
            user_order, user_tool = await user.dump()
            await docker.kill()
            await root.fails(root_order, "pg_dump", "the Docker engine", within=20)
            await user.fails(user_order, "pg_dump", "the Docker engine", within=20)
            # One who may not signal it needs the engine for that: with the next run, at the latest.
            check(not alive(root_tool) and alive(user_tool), "the wrong tools ended")
            await docker.start()
            docker.socket.chmod(0o666)
            order, tool = await user.dump()
            check(docker.tools() == {tool}, "the tool that was left goes on")
        await user.succeeds_once(order)
        await root.recovers()
        check(not docker.tools(), "a tool is left")
