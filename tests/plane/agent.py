"""The real binary as a child process, and what the operating system knows of it."""

import asyncio
import contextlib
import os
import signal
import time


class Agent:
    """`backupy-agent run`. `lives` counts; output and secrets are kept over all of them."""

    def __init__(self, binary, state, url, key, ca_file=None, extra=None):
        self.binary, self.state, self.key = binary, state, key
        self.environment = {name: value for name, value in os.environ.items()
                            if not name.upper().startswith("BACKUPY_") and not name.upper().endswith("_PROXY")
                            and name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY")}
        self.environment.update({
            "BACKUPY_SERVER_URL": url, "BACKUPY_AGENT_KEY": key, "BACKUPY_STATE_DIR": str(state),
            "BACKUPY_METRICS_LISTEN_ADDR": "", "BACKUPY_DISABLE_DISCOVERY": "true",
            "BACKUPY_LOG_FORMAT": "json", "BACKUPY_LOG_LEVEL": "trace"})
        if ca_file:
            self.environment["BACKUPY_CA_FILE"] = str(ca_file)
        self.environment.update(extra or {})
        self.secrets = {"the agent key": key}
        self.lines, self.process, self.readers = [], None, []
        self.cmdlines = set()

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            self.binary, "run", env=self.environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
            limit=1 << 24)
        self.readers = [asyncio.create_task(self.read(stream))
                        for stream in (self.process.stdout, self.process.stderr)]
        self.cmdlines.add(self.proc("cmdline"))
        return self

    async def read(self, stream):
        while line := await stream.readline():
            self.lines.append(line.decode(errors="replace").rstrip())

    @property
    def pid(self):
        return self.process.pid

    def proc(self, name):
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/{name}", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace")
        return ""

    def memory(self, field="VmRSS"):
        """Bytes; `VmHWM` is the peak."""
        for line in self.proc("status").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"the agent is gone: {self.tail()}")

    def running(self):
        return self.process is not None and self.process.returncode is None

    async def kill(self):
        """`kill -9`."""
        self.cmdlines.add(self.proc("cmdline"))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.process.wait()
        await asyncio.gather(*self.readers)

    async def terminate(self, timeout=10):
        """SIGTERM; answers the exit code and how long it took."""
        self.cmdlines.add(self.proc("cmdline"))
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = await self.exit(timeout)
        return code, time.monotonic() - start

    async def exit(self, timeout):
        try:
            code = await asyncio.wait_for(self.process.wait(), timeout)
        except TimeoutError:
            raise AssertionError(f"the agent did not end within {timeout} s") from None
        await asyncio.gather(*self.readers)
        return code

    async def command(self, *arguments, timeout=10, stdin=None):
        """Another command of the same binary with the same settings: code, stdout, stderr."""
        process = await asyncio.create_subprocess_exec(
            self.binary, *arguments, env=self.environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True)
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin), timeout)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"{' '.join(arguments)} did not end within {timeout} s") from None
        self.lines.extend((out + err).decode(errors="replace").splitlines())
        return process.returncode, out.decode(), err.decode()

    def logged(self, *words):
        """Lines of the log that have all these words."""
        return [line for line in self.lines if all(word.lower() in line.lower() for word in words)]

    def tail(self, count=25):
        return "\n".join(line if len(line) < 600 else line[:600] + "..." for line in self.lines[-count:])

    def check_secrets(self):
        """No secret in a line of output or a command line."""
        for name, secret in self.secrets.items():
            for line in [*self.lines, *self.cmdlines]:
                if secret in line:
                    raise AssertionError(f"{name} was shown: {line.replace(secret, '<' + name + '>')[:400]}")

    def check_no_panic(self):
        for line in self.lines:
            if "panicked at" in line:
                raise AssertionError(f"a panic: {line[:600]}")
