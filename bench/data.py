#!/usr/bin/env python3
"""Reads a Nerus file as large as the real one, and measures time and peak memory beside a Python reader.

    make bench-data                                    # the sample a hundred times, and ten times for comparison
    python3 bench/data.py --times 10 --sample FILE.conllu

The file is the sample repeated with new ids, in a temporary folder that is removed afterwards. `pipe` is built in
release mode without libtorch, which reading does not need. The Python reader is the package `nerus` of the data set's
own authors, if PYTHON (default: this one) can import it: `python3 -m venv DIR && DIR/bin/pip install nerus`, then
`--python DIR/bin/python`.
"""

import argparse
import gzip
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IDS = re.compile(rb"^# (newdoc id|sent_id) = (\d+)", re.M)
PIPELINE = """
steps:
  nerus: { uses: download, with: { source: nerus.conllu.gz } }
  sample: { uses: download, with: { source: sample.conllu } }
  parts: { uses: split, in: { data: nerus }, with: { dev: 0.1, test: 0.1 } }
  tokenizer: { uses: tokenizer, in: { text: [sample] }, with: { vocab_size: 8192 } }
  first: { uses: tokenize, in: { data: nerus, tokenizer: tokenizer }, with: { task: nerus, limit: 1000 } }
  tokens: { uses: tokenize, in: { data: nerus, tokenizer: tokenizer }, with: { task: nerus } }
"""
PYTHON = {
    "documents alone": "for _ in load_nerus(path): pass",
    "documents and entities": "for doc in load_nerus(path):\n    doc.ner",
}


def repeat(sample: bytes, times: int, out: Path) -> int:
    """Writes the sample `times` times, each document with an id of its own, as gzip; returns its bytes unpacked."""
    largest = max(int(number) for _, number in IDS.findall(sample)) + 1
    size = 0
    with gzip.open(out, "wb", compresslevel=6) as file:
        for turn in range(times):
            part = IDS.sub(lambda m: b"# %s = %d" % (m[1], int(m[2]) + turn * largest), sample)
            size += len(part)
            file.write(part)
    return size


def measured(command: list[str], cwd: Path) -> tuple[float, float]:
    """The seconds of a command, and the most memory in MiB that it had at once (Linux's `VmHWM`)."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told, cwd=cwd)
        peak = 0
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = max(peak, *(int(kib) for kib in re.findall(r"VmHWM:\s*(\d+)", status)), 0)
            except OSError:  # it has just ended
                pass
            time.sleep(0.005)
        seconds = time.monotonic() - started
        if process.returncode != 0:
            told.seek(0)
            sys.exit(f"{' '.join(command[:3])} … ended with {process.returncode}\n{told.read().decode()}")
    return seconds, peak / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, nargs="+", default=[10, 100], help="how often the sample is repeated")
    data = Path(os.environ.get("PIPE_DATA", ROOT / "../shared/data"))
    parser.add_argument("--sample", type=Path, default=data / "nerus/nerus_v1_lenta500_ner_only.conllu")
    parser.add_argument("--python", default=sys.executable, help="the Python that has the package `nerus`")
    args = parser.parse_args()
    if not args.sample.is_file():
        sys.exit(f"{args.sample} is not there: give a CoNLL-U file of Nerus with --sample")
    target = ROOT / "target/bench"
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "--no-default-features", "--target-dir", str(target)], cwd=ROOT, check=True
    )
    pipe = target / "release/pipe"
    known = subprocess.run([args.python, "-c", "import nerus"], stderr=subprocess.DEVNULL).returncode == 0

    print(f"{'what':44} {'times':>5} {'s':>7} {'MB/s':>7} {'peak MiB':>9}")
    for times in args.times:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "pipelines").mkdir()
            (folder / "pipelines/bench.yaml").write_text(PIPELINE)
            (folder / "sample.conllu").write_bytes(args.sample.read_bytes())
            packed = folder / "nerus.conllu.gz"
            size = repeat(args.sample.read_bytes(), times, packed)
            report = lambda what, seconds, peak: print(
                f"{what:44} {times:>5} {seconds:>7.2f} {size / 1e6 / seconds:>7.1f} {peak:>9.0f}", flush=True
            )
            run = lambda step: measured([str(pipe), "run", "pipelines/bench.yaml", step, "-j", "1"], folder)
            run("tokenizer")
            for step, what in [
                ("nerus", "pipe download: unpack, hash, store"),
                ("parts", "pipe split: parse, part, hash, store"),
                ("first", "pipe tokenize, limit 1000"),
                ("tokens", "pipe tokenize: parse, prompt, encode, store"),
            ]:
                report(what, *run(step))
            for what, body in PYTHON.items() if known else []:
                code = f"import sys\nfrom nerus import load_nerus\npath = sys.argv[1]\n{body}"
                report(f"Python nerus: {what}", *measured([args.python, "-c", code, str(packed)], folder))
    if not known:
        print("the package `nerus` is not installed: no Python reader was measured")


if __name__ == "__main__":
    main()
