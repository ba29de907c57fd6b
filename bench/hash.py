#!/usr/bin/env python3
"""Hashing: pipe beside b3sum, in one run, with the page cache warm.

One file of 4 GiB, then 20 000 files of 16 KiB. `pipe plan --paranoid` reads every file of a step's `code` and does nothing
else with it; what it costs without them, on one small file, is told beside it and is part of its time.

    python3 bench/hash.py --pipe target/release/pipe-front --folder /dev/shm

Prints a table in Markdown. b3sum is taken from PATH.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

STEP = 'name: hash\nsteps: {{ a: {{ uses: command, with: {{ shell: "true > o", code: [{code}], outputs: {{ o: o }} }} }} }}\n'


def took(command, folder, rounds):
    """The median of the wall seconds."""
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    # The first reads into the page cache.
    return statistics.median(times[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipe", default="target/release/pipe-front", help="the binary")
    parser.add_argument("--rounds", type=int, default=5, help="of each; the median counts")
    parser.add_argument("--folder", default=None, help="where the files are made")
    parser.add_argument("--gib", type=int, default=4, help="size of the large file")
    arguments = parser.parse_args()
    pipe = str(Path(arguments.pipe).resolve())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        block = os.urandom(1 << 20)
        (folder / "small").write_bytes(b"x")
        with open(folder / "large", "wb") as large:
            for _ in range(arguments.gib << 10):
                large.write(block)
        (folder / "many").mkdir()
        for i in range(20_000):
            (folder / "many" / f"{i:05d}").write_bytes(block[i : i + (16 << 10)])
        for code in ("small", "large", "many"):
            (folder / f"{code}.yaml").write_text(STEP.format(code=code))
        plan = lambda code: [pipe, "plan", f"{code}.yaml", "--paranoid", "--device", "cpu"]
        idle = took(plan("small"), folder, arguments.rounds)
        print("| what | b3sum | pipe | rate of b3sum | rate of pipe | of it |")
        print("|---|---:|---:|---:|---:|---:|")
        for code, label, listed in (
            ("large", f"{arguments.gib} GiB", ["large"]),
            ("many", "20 000 files of 16 KiB", sorted(str(p.relative_to(folder)) for p in (folder / "many").iterdir())),
        ):
            size = sum(path.stat().st_size for path in (folder / p for p in listed))
            theirs = took(["b3sum", *listed], folder, arguments.rounds)
            ours = took(plan(code), folder, arguments.rounds)
            rate = lambda seconds: f"{size / seconds / 1e9:.2f} GB/s"
            print(f"| {label} | {theirs:.3f} s | {ours:.3f} s | {rate(theirs)} | {rate(ours)} | {theirs / ours:.2f} |")
        print(f"\nWithout them: {idle:.3f} s.")


if __name__ == "__main__":
    main()
