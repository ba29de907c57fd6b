#!/usr/bin/env python3
"""Models, training and scoring: pipe beside Python, in one run, on the same base, adapters, rows, dtype and threads.

    make bench-ml-peers          # installs the peers into .peers, 3 GB
    make bench-ml                # this, with them if they are there

Each measurement is a process of its own; ours and the peer's take turns, `--rounds` times. Prints a table in Markdown:
the median ratio of speeds with its spread, processor seconds and peak memory side by side, and the last losses, so that
a faster wrong step is seen. With `--preload LIBRARY` the peers get that library first: one that answers MKL's question
as `src/ml/mkl.rs` does tells how much of a ratio that is.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What, ours, the peer's.
WORK = [
    ("LoRA, every id a target", "train arm=lora", "train arm=lora"),
    ("MLP, every id a target", "train arm=mlp", "train arm=mlp"),
    ("LoRA, every id a target, bf16", "train arm=lora dtype=bf16", "train arm=lora dtype=bf16"),
    ("LoRA, every id a target, bf16, torch.compile", "train arm=lora dtype=bf16", "train arm=lora dtype=bf16 compile=1"),
    ("LoRA, real prompts, Trainer", "train arm=lora rows=ragged steps=33", "trainer arm=lora rows=ragged steps=33"),
    ("MLP, real prompts, by hand", "train arm=mlp rows=ragged steps=33", "train arm=mlp rows=ragged steps=33"),
    ("grid of 8 LoRA, real prompts, by hand", "pack rows=ragged batch=8 arms=8 steps=13 rounds=1 together=0", "grid rows=ragged steps=13"),
    ("two labels of 300 prompts, 3 arms, HFLM", "score", "lm_eval"),
    ("start to one step of 64 ids", "train arm=lora rows=few batch=1 steps=2 warm=1", "train arm=lora rows=few batch=1 steps=2 warm=1"),
    ("tokenizing, all cores", "tokenize", "tokenize"),
    ("100 answers of 64 ids, 3 arms, `generate`", "generate", "generate"),
]

# What `pipe` starts with, see `cli::front`.
SETTINGS = {"GOMP_SPINCOUNT": "1000", "GLIBC_TUNABLES": "glibc.malloc.mxfast=0:glibc.malloc.tcache_count=0"}


def measure(command, environment):
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return json.loads(lines[-1])


def loss(result):
    last = result["losses"][-1]
    return f"{last:.4f}" if isinstance(last, float) else str(last[:3] if isinstance(last, list) else last)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--ours", required=True, help="the built bench `ml`")
    arguments.add_argument("--python", default=".peers/bin/python", help="a Python that has the peers")
    arguments.add_argument("--shape", default="T", choices=["T", "S"])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", default="2")
    arguments.add_argument("--only", default="", help="a part of the names of what is measured")
    arguments.add_argument("--preload", help="a library that the peers load first")
    chosen = arguments.parse_args()
    own = dict(SETTINGS, **os.environ)
    peers = dict(os.environ, **({"LD_PRELOAD": chosen.preload} if chosen.preload else {}))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([chosen.ours, "make", folder, chosen.shape], check=True)
        there = Path(chosen.python).exists()
        if not there:
            print(f"no {chosen.python}: the peers are left out (`make bench-ml-peers`)", file=sys.stderr)
        print("| work | ids/s | peer | ratio (spread) | CPU s | peak MiB | first step begins, is done, s | last loss |")
        print("|---|---|---|---|---|---|---|---|")
        for name, ours, theirs in WORK:
            if chosen.only not in name:
                continue
            rounds = []
            for _ in range(chosen.rounds):
                what, *rest = ours.split()
                mine = measure([chosen.ours, what, folder, f"threads={chosen.threads}", *rest], own)
                other = None
                if there:
                    what, *rest = theirs.split()
                    command = [chosen.python, HERE / "peers.py", what, folder, f"threads={chosen.threads}", *rest]
                    other = measure(command, peers)
                rounds.append((mine, other))
            print(row(name, rounds), flush=True)


def start(result):
    """From the start of the process until the first step begins, and until it is done."""
    begins = f"{result['ready']:.2f}, " if "ready" in result else ""
    return f"{begins}{result['first_step']:.2f}"


def row(name, rounds):
    def both(text):
        first, second = text(rounds[0][0]), rounds[0][1]
        return first if second is None else f"{first} / {text(second)}"

    def median(side, key):
        return statistics.median(pair[side][key] for pair in rounds)

    speed = median(0, "tokens_per_second")
    cells = [name, f"{speed:.0f}"]
    if rounds[0][1] is None:
        cells += ["", ""]
    else:
        ratios = sorted(mine["tokens_per_second"] / other["tokens_per_second"] for mine, other in rounds)
        cells += [
            f"{median(1, 'tokens_per_second'):.0f}",
            f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f}-{ratios[-1]:.2f})",
        ]
    cells += [both(lambda r: f"{r['cpu_seconds']:.1f}"), both(lambda r: f"{r['peak_mib']:.0f}")]
    cells += [both(start) if "first_step" in rounds[0][0] else "", both(loss)]
    return "| " + " | ".join(cells) + " |"


main()
