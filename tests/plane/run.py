"""Drives the real binary through every scenario: `run.py --binary PATH [words of a scenario's name]`.

LONG=1 runs those that wait for minutes as well; CHAOS_SEED=n repeats the weather of seed n. Ends with `N passed, N failed`.
"""

import argparse
import asyncio
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import scenarios_acks  # noqa: E402,F401
import scenarios_backup  # noqa: E402,F401
import scenarios_chaos  # noqa: E402,F401
import scenarios_disk  # noqa: E402,F401
import scenarios_docker  # noqa: E402,F401
import scenarios_face  # noqa: E402,F401
import scenarios_faults  # noqa: E402,F401
import scenarios_format  # noqa: E402,F401
import scenarios_health  # noqa: E402,F401
import scenarios_hooks  # noqa: E402,F401
import scenarios_hostile  # noqa: E402,F401
import scenarios_link  # noqa: E402,F401
import scenarios_midway  # noqa: E402,F401
import scenarios_network  # noqa: E402,F401
import scenarios_restore  # noqa: E402,F401
import scenarios_stores  # noqa: E402,F401
import scenarios_storm  # noqa: E402,F401
import scenarios_turns  # noqa: E402,F401
import scenarios_wire  # noqa: E402,F401
from case import SCENARIOS, Case  # noqa: E402
from certificates import Authority  # noqa: E402

# Most scenarios wait for timers; more at once would make two cores late for them.
AT_ONCE = 8
# Floods and storms: the first of them fills the time that the others need.
HEAVY_AT_ONCE = 3


async def run_one(function, options, authority, folder, gate):
    async with gate:
        start = time.monotonic()
        case = Case(options.binary, folder, authority)
        case.folder.mkdir()
        error = None
        try:
            async with asyncio.timeout(function.limit_s):
                await function(case)
        except Exception as caught:
            error = caught
        await case.finish()
        try:
            case.verify()
        except Exception as caught:
            error = error or caught
        seconds = time.monotonic() - start
        title = function.__name__.replace("_", " ")
        print(f"{'ok    ' if error is None else 'FAILED'} {seconds:6.1f} s  {title}", flush=True)
        if error is not None:
            report(error, case)
        else:
            shutil.rmtree(case.folder, ignore_errors=True)
        return error is None


def report(error, case):
    where = traceback.extract_tb(error.__traceback__)
    ours = next((frame for frame in where if "scenarios_" in frame.filename), where[-1] if where else None)
    print(f"       {type(error).__name__}: {str(error)[:3000]}")
    if ours:
        print(f"       at {Path(ours.filename).name}:{ours.lineno}: {ours.line}")
    for number, agent in enumerate(case.agents):
        (case.folder / f"agent-{number}.log").write_text("\n".join(agent.lines) + "\n")
        print("       the agent's last lines:")
        for line in agent.tail(12).splitlines():
            print(f"       | {line}")
    sys.stdout.flush()


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    # Writing to a peer that just went away is what half of these scenarios are about.
    for noisy in ("asyncio", "websockets"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    options.binary = str(Path(options.binary).resolve())
    long = os.environ.get("LONG") == "1"
    chosen = [function for function in SCENARIOS
              if (long or not function.long) and all(word in function.__name__ for word in options.words)]
    root = Path(tempfile.mkdtemp(prefix="backupy-plane-"))
    authority = Authority(root / "authority")
    results = []
    for heavy, at_once in ((False, options.at_once), (True, HEAVY_AT_ONCE)):
        gate = asyncio.Semaphore(at_once)
        results += await asyncio.gather(*(run_one(function, options, authority, root / str(number), gate)
                                          for number, function in enumerate(chosen) if function.heavy == heavy))
    failed = results.count(False)
    if failed:
        print(f"what the failed ones left: {root}")
    else:
        shutil.rmtree(root, ignore_errors=True)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
