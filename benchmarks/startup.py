"""What a new user waits for: `import hf_biotune`, and `hf-biotune --help`.

Run it as `python benchmarks/startup.py`; it needs seconds. Each is measured in new processes, and
the median of all repetitions is told, with and without the start of Python itself. The exit status
is 1 if a limit is passed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

# What we allow, in seconds.
LIMITS = {"import hf_biotune": 0.2, "hf-biotune --help": 0.5}
COMMANDS = {
    "import hf_biotune": ["-c", "import hf_biotune"],
    "hf-biotune --help": ["-m", "hf_biotune", "--help"],
}


def seconds_of(arguments: list[str], repetitions: int) -> float:
    """The median wall time of a Python process with these arguments."""
    times = []
    # The first one fills caches of files.
    for _ in range(repetitions + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> int:
    """Print a table; 1 if a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=11)
    repetitions = parser.parse_args().repetitions
    bare = seconds_of(["-c", "pass"], repetitions)
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, start alone {bare:.3f} s")
    print(f"| what | median of {repetitions} (s) | without Python's own start (s) | limit (s) |")
    print("|---|---|---|---|")
    too_slow = False
    for name, arguments in COMMANDS.items():
        seconds = seconds_of(arguments, repetitions)
        too_slow |= seconds > LIMITS[name]
        print(f"| `{name}` | {seconds:.3f} | {seconds - bare:.3f} | {LIMITS[name]} |")
    return int(too_slow)


if __name__ == "__main__":
    raise SystemExit(main())
