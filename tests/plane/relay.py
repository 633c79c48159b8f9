"""A program of its own between both ends, so that it can be frozen as a whole: `relay.py PORT` prints the
port on which it listens."""

import asyncio
import os
import signal
import sys


class Relay:
    @classmethod
    async def start(cls, port):
        relay = cls()
        relay.process = await asyncio.create_subprocess_exec(
            sys.executable, "-B", __file__, str(port), stdout=asyncio.subprocess.PIPE)
        relay.port = int(await asyncio.wait_for(relay.process.stdout.readline(), 10))
        return relay

    def freeze(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.process.pid, signal.SIGCONT)

    async def stop(self):
        self.process.kill()
        await self.process.wait()


async def carry(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def main(port):
    async def accept(reader, writer):
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, back_writer), carry(back_reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
