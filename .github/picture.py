#!/usr/bin/env python3
r"""Draws what stood on a terminal, or a text file, as an SVG: the pictures of README.md.

It knows nothing of pipe. Python 3.8 and the standard library are all it needs. How the pictures are made:

    ./pipe run pipelines/lora_vs_mlp.yaml
    run='./pipe run pipelines/lora_vs_mlp.yaml --set lora.rank=8'
    script -qec "stty rows 40 cols 100; $run" /tmp/run.txt
    python3 .github/picture.py /tmp/run.txt .github/terminal.svg --prompt "$run"
    ./pipe run pipelines/lora_vs_mlp.yaml
    python3 .github/picture.py cache/results/lora_vs_mlp/report*txt*/report/report.ru.txt .github/report.svg \
        --title report.ru.txt --columns 116

`--moment 'steps.*left'` draws the last moment at which this regular expression was on the screen, such as running
bars; `--lines 1-40` draws these lines alone.
"""

import argparse
import re
import textwrap
from html import escape
from pathlib import Path

CELL, LINE, FONT, PAD, BAR = 8, 18, 13.3, 18, 34  # pixels
BACK, FRONT, FRAME, QUIET = "#0d1117", "#d7dde5", "#30363d", "#8b949e"
COLORS = ["#6e7681", "#ff7b72", "#7ee787", "#e3b341", "#79c0ff", "#d2a8ff", "#76e3ea", "#d7dde5"]
# A control sequence, a control character, or a run of text.
PIECE = re.compile(
    r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|([\r\n\t\b\x07])|([^\x1b\r\n\t\b\x07]+)", re.S
)


class Screen:
    """As much of a terminal as progress bars use: a screen without a lower end, and one cursor."""

    def __init__(self, columns):
        self.columns, self.rows, self.y, self.x, self.style = columns, [[]], 0, 0, ""

    def play(self, text, moment):
        """The rows at the end, or the last ones that showed `moment`."""
        found, drew = None, False
        for numbers, letter, control, printed in (match.groups() for match in PIECE.finditer(text)):
            # A frame is complete when the cursor leaves it.
            if drew and letter and letter != "m" and moment and moment.search(self.text()):
                found = [list(row) for row in self.rows]
            if printed:
                self.write(printed)
            elif control:
                self.control(control)
            elif letter:
                self.sequence(numbers, letter)
            drew = bool(printed) or (drew and letter == "m")
        if moment and found is None:
            raise SystemExit("picture: `%s` was never on the screen" % moment.pattern)
        return self.rows if found is None else found

    def text(self):
        return "\n".join("".join(cell for cell, _ in row) for row in self.rows)

    def write(self, text):
        for char in text:
            if self.x >= self.columns:
                self.x = 0
                self.down()
            row = self.rows[self.y]
            row.extend([(" ", "")] * (self.x + 1 - len(row)))
            row[self.x] = (char, self.style)
            self.x += 1

    def down(self):
        self.y += 1
        if self.y == len(self.rows):
            self.rows.append([])

    def control(self, char):
        if char == "\n":
            self.down()
        elif char == "\r":
            self.x = 0
        elif char == "\t":
            self.x += 8 - self.x % 8
        elif char == "\b":
            self.x = max(0, self.x - 1)

    def sequence(self, numbers, letter):
        count = int(numbers) if numbers.isdigit() else 1
        if letter == "m":
            self.paint(numbers)
        elif letter == "A":
            self.y = max(0, self.y - count)
        elif letter == "B":
            for _ in range(count):
                self.down()
        elif letter == "C":
            self.x += count
        elif letter == "D":
            self.x = max(0, self.x - count)
        elif letter == "G":
            self.x = count - 1
        elif letter == "K":
            # 0 or nothing clears to the end of the line, 2 all of it.
            del self.rows[self.y][0 if numbers == "2" else self.x :]
        elif letter == "J":
            del self.rows[self.y][self.x :]
            del self.rows[self.y + 1 :]

    def paint(self, numbers):
        for number in (int(n or 0) for n in numbers.split(";")):
            if number in (0, 39):
                self.style = ""
            elif number == 1:
                self.style = self.style or "bold"
            elif number == 2:
                self.style = QUIET
            elif 30 <= number <= 37 or 90 <= number <= 97:
                self.style = COLORS[number % 10]


def svg(rows, title):
    """A window with the rows in it. Every character has its own x, so columns stay columns in any font."""
    columns = max([len(row) for row in rows] + [len(title) + 16])
    width, height = columns * CELL + 2 * PAD, len(rows) * LINE + BAR + PAD
    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}">'.format(width, height),
        '<rect x=".5" y=".5" width="%d" height="%d" rx="8"' % (width - 1, height - 1),
        ' fill="%s" stroke="%s"/>' % (BACK, FRAME),
    ]
    for i, color in enumerate(["#ff5f57", "#febc2e", "#28c840"]):
        out.append('<circle cx="%d" cy="18" r="5.5" fill="%s"/>' % (PAD + 4 + 18 * i, color))
    fonts = "'DejaVu Sans Mono',ui-monospace,Menlo,Consolas,'Liberation Mono',monospace"
    out.append('<g font-family="%s" font-size="%s" fill="%s">' % (fonts, FONT, FRONT))
    if title:
        out.append('<text x="%d" y="22" text-anchor="middle" fill="%s">%s</text>' % (width // 2, QUIET, escape(title)))
    for i, row in enumerate(rows):
        spans = "".join(span(start, text, style) for start, text, style in words(row))
        if spans:
            out.append('<text y="%d">%s</text>' % (BAR + LINE * i + 16, spans))
    return "\n".join(out + ["</g>", "</svg>"]) + "\n"


def words(row):
    """`(column, text, style)` of everything between spaces."""
    start, text, style = 0, "", ""
    for column, (char, its) in enumerate(row + [(" ", "")]):
        if char == " " or its != style:
            if text:
                yield start, text, style
            text = ""
        if char != " ":
            start, text, style = (start, text + char, style) if text else (column, char, its)


def span(column, text, style):
    xs = " ".join(str(PAD + (column + i) * CELL) for i in range(len(text)))
    look = "" if not style else ' font-weight="bold"' if style == "bold" else ' fill="%s"' % style
    return '<tspan x="%s"%s>%s</tspan>' % (xs, look, escape(text, quote=False))


def broken(line, columns):
    """A line of a text, broken between words if it is too long."""
    indent = line[: len(line) - len(line.lstrip(" -"))]
    if len(line) <= columns:
        return line
    return "\r\n".join(textwrap.wrap(line, columns, subsequent_indent=" " * len(indent)))


def main():
    parser = argparse.ArgumentParser(description="Draws a captured terminal or a text as an SVG.")
    parser.add_argument("text", type=Path, help="what `script` wrote, or any text with or without ANSI colours")
    parser.add_argument("picture", type=Path, help="the SVG")
    parser.add_argument("--prompt", help="the command line, drawn above")
    parser.add_argument("--title", default="")
    parser.add_argument("--moment", type=re.compile, metavar="PATTERN", help="the last moment at which this was seen")
    parser.add_argument("--lines", metavar="FIRST-LAST", help="these lines alone, counted from 1")
    parser.add_argument("--columns", type=int, default=100, help="width of the terminal, or of a text [default: 100]")
    args = parser.parse_args()
    text = args.text.read_bytes().decode("utf-8")
    # What `script` itself says at both ends.
    text = re.sub(r"\AScript started on[^\n]*\n|\n?Script done on[^\n]*\n?\Z", "", text)
    if "\x1b" not in text and "\r" not in text:
        text = "\r\n".join(broken(line, args.columns) for line in text.split("\n"))
    rows = Screen(args.columns).play(text, args.moment)
    while rows and not rows[-1]:
        rows.pop()
    if args.lines:
        first, last = (int(n) for n in args.lines.split("-"))
        rows = rows[first - 1 : last]
    if args.prompt:
        rows = [[("$", COLORS[2]), (" ", "")] + [(char, "bold") for char in args.prompt]] + rows
    args.picture.write_text(svg(rows, args.title), encoding="utf-8")


if __name__ == "__main__":
    main()
