#!/usr/bin/env python3
"""Many small steps: pipe beside other orchestrators, in one run, on one layered graph.

The graph has 50 layers. A step of the first layer cuts a source file, each later one puts the step above it and a
file that all share together: `cat above shared > out`. So a changed source makes its column run, 50 steps, and a
change behind the eighth letter makes one step run, whose output is the same as before.

    make bench-dag BENCH_PATH=VENV/bin
    python3 bench/dag.py --pipe target/release/pipe-front --steps 1000 5000 --tools pipe ninja doit --folder /dev/shm

Prints a table in Markdown. Whoever is not on PATH is left out and said. Every run is checked: all outputs of the last
layer have the content they must have, and where a tool tells what it ran, that is told, too.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYERS = 50


class Graph:
    """The files of the graph, in a folder of its own for each tool."""

    def __init__(self, folder, steps):
        self.folder, self.steps, self.width = folder, steps, steps // LAYERS
        (folder / "src").mkdir(parents=True)
        (folder / "src/shared.txt").write_text("s\n")
        self.heads = [f"{i:08d}" for i in range(self.width)]
        for i in range(self.width):
            self.write(i, "tail")

    def write(self, column, tail):
        (self.folder / f"src/f{column}.txt").write_text(f"{self.heads[column]}{tail}\n")

    def expected(self, column):
        return self.heads[column] + "\n" + "s\n" * (LAYERS - 1)

    def nodes(self):
        return ((layer, column) for layer in range(LAYERS) for column in range(self.width))


def name(layer, column):
    return f"s{layer}_{column}"


class Pipe:
    title = "pipe"

    def __init__(self, graph, arguments):
        self.graph, self.binary = graph, Path(arguments.pipe).resolve()
        lines = ["name: dag", "steps:"]
        for layer, column in graph.nodes():
            if layer == 0:
                source = f"src/f{column}.txt"
                read, shell, code = "", f"cut -c1-8 {source} > out", source
            else:
                read, shell, code = (
                    f"in: {{ above: {name(layer - 1, column)} }}, ",
                    "cat in/above src/shared.txt > out",
                    "src/shared.txt",
                )
            lines.append(
                f"  {name(layer, column)}: {{ uses: command, {read}"
                f'with: {{ shell: "{shell}", code: [{code}], outputs: {{ out: out }} }} }}'
            )
        (graph.folder / "dag.yaml").write_text("\n".join(lines) + "\n")

    def command(self):
        return [str(self.binary), "run", "dag.yaml", "--device", "cpu"]

    def output(self, column):
        return f"cache/results/dag/{name(LAYERS - 1, column)}/out"

    def clean_outputs(self):
        shutil.rmtree(self.graph.folder / "cache/results")


class Ninja:
    title = "ninja"

    def __init__(self, graph, _):
        lines = [
            "rule cut",
            "  command = cut -c1-8 $in > $out",
            "rule cat",
            "  command = cat $in > $out",
        ]
        for layer, column in graph.nodes():
            out = f"out/{name(layer, column)}"
            if layer == 0:
                lines.append(f"build {out}: cut src/f{column}.txt")
            else:
                lines.append(f"build {out}: cat out/{name(layer - 1, column)} src/shared.txt")
        (graph.folder / "build.ninja").write_text("\n".join(lines) + "\n")
        self.graph = graph

    def command(self):
        return ["ninja", "-j2", "--quiet"]

    def output(self, column):
        return f"out/{name(LAYERS - 1, column)}"

    clean_outputs = None


class Doit:
    title = "doit"

    def __init__(self, graph, _):
        (graph.folder / "out").mkdir()
        (graph.folder / "dodo.py").write_text(
            f"""
DOIT_CONFIG = {{"check_file_uptodate": "md5", "verbosity": 0, "reporter": "zero"}}

def task_dag():
    for layer in range({LAYERS}):
        for column in range({graph.width}):
            out = f"out/s{{layer}}_{{column}}"
            if layer == 0:
                source = [f"src/f{{column}}.txt"]
                action = f"cut -c1-8 {{source[0]}} > {{out}}"
            else:
                source = [f"out/s{{layer - 1}}_{{column}}", "src/shared.txt"]
                action = f"cat {{' '.join(source)}} > {{out}}"
            yield {{"name": f"s{{layer}}_{{column}}", "actions": [action], "file_dep": source, "targets": [out]}}
"""
        )

    def command(self):
        return ["doit", "-n", "2", "-P", "thread"]

    def output(self, column):
        return f"out/{name(LAYERS - 1, column)}"

    clean_outputs = None


class Snakemake:
    title = "Snakemake"

    def __init__(self, graph, _):
        (graph.folder / "Snakefile").write_text(
            f"""
rule all:
    input: expand("out/s{LAYERS - 1}_{{c}}", c=range({graph.width}))
rule first:
    input: "src/f{{c}}.txt"
    output: "out/s0_{{c}}"
    shell: "cut -c1-8 {{input}} > {{output}}"
def above(w):
    return [f"out/s{{int(w.l) - 1}}_{{w.c}}", "src/shared.txt"]
rule later:
    input: above
    output: "out/s{{l,[1-9][0-9]*}}_{{c}}"
    shell: "cat {{input}} > {{output}}"
"""
        )

    def command(self):
        return ["snakemake", "-c2", "-q", "all"]

    def output(self, column):
        return f"out/{name(LAYERS - 1, column)}"

    clean_outputs = None


class Dvc:
    title = "DVC"

    def __init__(self, graph, _):
        lines = ["stages:"]
        for layer, column in graph.nodes():
            out = f"out/{name(layer, column)}"
            if layer == 0:
                sources, command = [f"src/f{column}.txt"], "cut -c1-8"
            else:
                sources, command = [f"out/{name(layer - 1, column)}", "src/shared.txt"], "cat"
            lines.append(f"  {name(layer, column)}:")
            lines.append(f"    cmd: {command} {' '.join(sources)} > {out}")
            lines.append(f"    deps: [{', '.join(sources)}]")
            lines.append(f"    outs: [{out}]")
        (graph.folder / "out").mkdir()
        (graph.folder / "dvc.yaml").write_text("\n".join(lines) + "\n")
        for command in (["init", "--no-scm", "-q"], ["config", "core.analytics", "false"]):
            subprocess.run(["dvc", *command], cwd=graph.folder, check=True)
        self.graph = graph

    def command(self):
        return ["dvc", "repro", "-q"]

    def output(self, column):
        return f"out/{name(LAYERS - 1, column)}"

    def clean_outputs(self):
        shutil.rmtree(self.graph.folder / "out")
        (self.graph.folder / "out").mkdir()


TOOLS = {"pipe": Pipe, "ninja": Ninja, "doit": Doit, "snakemake": Snakemake, "dvc": Dvc}


def measured(tool, graph):
    """Wall seconds and the most memory of one run, in MiB; every output of the last layer is checked."""
    environment = {key: value for key, value in os.environ.items() if key != "PIPE_CACHE"}
    with open(graph.folder / "log", "wb") as log:
        started = time.perf_counter()
        child = subprocess.Popen(tool.command(), cwd=graph.folder, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        took = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{tool.title} failed:\n" + (graph.folder / "log").read_text()[-2000:])
    for column in range(graph.width):
        if (graph.folder / tool.output(column)).read_text() != graph.expected(column):
            sys.exit(f"{tool.title} made a wrong output in column {column}")
    return took, usage.ru_maxrss / 1024


def several(tool, graph, rounds, change=lambda: None):
    """The median of several runs, and the most memory of them."""
    runs = []
    for _ in range(rounds):
        change()
        runs.append(measured(tool, graph))
    return statistics.median(took for took, _ in runs), max(memory for _, memory in runs)


def bench(kind, steps, arguments):
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        graph = Graph(Path(folder) / "dag", steps)
        tool = kind(graph, arguments)
        row = {"cold": measured(tool, graph)}
        # How a file looks is trusted only once it has not changed for three seconds; the next run notes that.
        time.sleep(4)
        measured(tool, graph)
        row["no-op"] = several(tool, graph, arguments.rounds)
        count = iter(range(1, 1000))

        def leaf():
            time.sleep(0.05)
            graph.heads[0] = f"{next(count):08d}"[::-1]
            graph.write(0, "tail")

        def same():
            time.sleep(0.05)
            graph.write(0, f"tail {next(count)}")

        row["leaf"] = several(tool, graph, arguments.rounds, leaf)
        row["same"] = several(tool, graph, arguments.rounds, same)
        if tool.clean_outputs:
            row["restored"] = several(tool, graph, arguments.rounds, tool.clean_outputs)
        return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipe", default="target/release/pipe-front", help="the binary")
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 5000], help="multiples of 50")
    parser.add_argument("--tools", nargs="+", default=["pipe", "ninja", "doit"], choices=TOOLS)
    parser.add_argument("--rounds", type=int, default=5, help="of each warm measurement; the median counts")
    parser.add_argument("--folder", default=None, help="where the graphs are made")
    arguments = parser.parse_args()
    columns = ["cold", "no-op", "leaf", "same", "restored"]
    print("| steps | tool | cold | no-op | one leaf changed (50 run) | same output again | outputs deleted | memory |")
    print("|---|---|---|---|---|---|---|---|")
    for steps in arguments.steps:
        for kind in (TOOLS[tool] for tool in arguments.tools):
            if kind is not Pipe and not shutil.which(kind.title.lower()):
                print(f"{kind.title} is not there and is left out", file=sys.stderr)
                continue
            row = bench(kind, steps, arguments)
            cells = [f"{row[column][0]:.3f} s" if column in row else "–" for column in columns]
            memory = max(memory for _, memory in row.values())
            print(f"| {steps} | {kind.title} | " + " | ".join(cells) + f" | {memory:.0f} MiB |", flush=True)


if __name__ == "__main__":
    main()
