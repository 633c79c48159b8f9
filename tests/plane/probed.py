"""Something to check the health of, which counts who asks: each probe is one result that must arrive."""

import asyncio
import collections
import time

from case import check

HTTP = 0
CHECKS = 4


class Probed:
    """An HTTP server; `/0` to `/3` are one health check each."""

    def __init__(self):
        self.requests = collections.Counter()

    async def start(self):
        self.server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def stop(self):
        self.server.close()

    async def answer(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests[f"check-{head.split()[1].decode().strip('/')}"] += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @property
    def count(self):
        return self.requests.total()

    def config(self, version):
        """A configuration that has each check run once a second."""
        return {"version": version, "health_checks": [
            {"id": f"check-{number}", "name": f"check {number}", "type": HTTP, "interval_sec": 1, "timeout_sec": 5,
             "target": f"http://127.0.0.1:{self.port}/{number}", "expected_status": 200}
            for number in range(CHECKS)]}

    async def settled(self, plane):
        """The configuration without checks is applied, and the last probe has been answered."""
        session = plane.sessions[-1]
        await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 2, timeout=20)
        count, since = self.count, time.monotonic()
        while time.monotonic() - since < 1.5:
            await asyncio.sleep(0.1)
            if self.count != count:
                count, since = self.count, time.monotonic()

    def check(self, plane, at_least):
        """As many results of each check as there were probes; one that was on its way when its check was
        taken out of the configuration may have none."""
        results = collections.Counter()
        for result in {result.seq: result for result in plane.all("HealthCheckResult")}.values():
            check(result["ok"] and result["status_code"] == 200, f"{result}")
            results[result["check_id"]] += 1
        for name in results | self.requests:
            check(0 <= self.requests[name] - results[name] <= 1, f"{results} results of {self.requests} probes")
        check(self.count >= at_least, f"{self.count} probes only")
