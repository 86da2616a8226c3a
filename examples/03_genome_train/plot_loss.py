#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draws the loss of krait_genome_train over its steps.

    plot_loss.py loss.csv --level "order 3=1.9505" --out loss.svg

Several CSV files are drawn together; a level is a horizontal line, such as the entropy of a context model. Uses
matplotlib where it is installed (then --out may also be a .png or .pdf), otherwise, or with --plain, writes a small SVG
by itself.
"""

import argparse
import csv
import sys
from pathlib import Path
from xml.sax.saxutils import escape

COLOURS = ["#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910"]


def read_curve(path):
    """Steps and losses of one file."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        curve = [(int(row["step"]), float(row["bits_per_base"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        sys.exit(f"plot_loss.py: {path} is no loss log of krait_genome_train: {error}")
    if not curve:
        sys.exit(f"plot_loss.py: {path} has no steps")
    return curve


def parse_level(text):
    name, _, value = text.rpartition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a level is NAME=BITS, got '{text}'") from None


def thinned(curve, most=400):
    """At most so many points, with the last one: more would not be seen."""
    every = -(-len(curve) // most)
    return curve[::every] + ([curve[-1]] if (len(curve) - 1) % every else [])


def ticks(low, high, about=6):
    """Round numbers in [low, high]."""
    step = 10.0 ** -6
    while (high - low) / step > about:
        for factor in (1, 2, 5, 10):
            if (high - low) / (step * factor) <= about:
                break
        step *= factor
    first = -int(-low // step)
    return [round(i * step, 6) for i in range(first, int(high / step + 1e-9) + 1)]


def plain_svg(curves, levels):
    """The figure, as text."""
    width, height, left, right, top, bottom = 720, 400, 60, 110, 15, 45
    first = min(curve[0][0] for _, curve in curves)
    last = max(max(curve[-1][0] for _, curve in curves), first + 1)
    values = [loss for _, curve in curves for _, loss in curve] + [level for _, level in levels]
    low, high = min(values), max(values)
    margin = 0.03 * (high - low) or 0.1
    low, high = low - margin, high + margin

    def x(step):
        return left + (step - first) / (last - first) * (width - left - right)

    def y(loss):
        return top + (high - loss) / (high - low) * (height - top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for tick in ticks(low, high):
        parts.append(f'<path d="M{left} {y(tick):.1f}H{width - right}" stroke="#e0e0e0"/>')
        parts.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(first, last):
        if tick == int(tick):
            parts.append(f'<text x="{x(tick):.1f}" y="{height - bottom + 17}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<path d="M{left} {top}V{height - bottom}H{width - right}" fill="none" stroke="#404040"/>')
    for name, level in levels:
        parts.append(f'<path d="M{left} {y(level):.1f}H{width - right}" stroke="#707070" stroke-dasharray="5 4"/>')
        parts.append(f'<text x="{width - right + 5}" y="{y(level) + 4:.1f}" fill="#505050">{escape(name)}</text>')
    for number, (name, curve) in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in thinned(curve))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(curves) > 1:
            parts.append(f'<text x="{left + 12}" y="{top + 15 * (number + 1)}" fill="{colour}">{escape(name)}</text>')
    parts.append(f'<text x="{(left + width - right) / 2}" y="{height - 8}" text-anchor="middle">step</text>')
    parts.append(
        f'<text transform="translate(14 {(top + height - bottom) / 2}) rotate(-90)" text-anchor="middle">'
        "loss, bits per base</text>"
    )
    return "\n".join(parts) + "\n</svg>\n"


def draw_with_matplotlib(pyplot, curves, levels, out):
    figure, axes = pyplot.subplots(figsize=(7.2, 4))
    for name, curve in curves:
        axes.plot(*zip(*curve), label=name)
    for name, level in levels:
        axes.axhline(level, color="0.5", linestyle="--", linewidth=1)
        axes.annotate(name, (1.01, level), xycoords=("axes fraction", "data"), va="center")
    axes.set(xlabel="step", ylabel="loss, bits per base")
    if len(curves) > 1:
        axes.legend()
    figure.savefig(out, bbox_inches="tight")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", nargs="+", type=Path, help="what krait_genome_train wrote with --csv")
    parser.add_argument("--level", metavar="NAME=BITS", type=parse_level, action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("loss.svg"))
    parser.add_argument("--plain", action="store_true", help="do not use matplotlib")
    options = parser.parse_args()

    try:
        curves = [(path.stem, read_curve(path)) for path in options.csv]
        pyplot = None
        if not options.plain:
            try:
                import matplotlib

                matplotlib.use("Agg")
                from matplotlib import pyplot
            except ImportError:
                pass
        if pyplot:
            draw_with_matplotlib(pyplot, curves, options.level, options.out)
        elif options.out.suffix == ".svg":
            options.out.write_text(plain_svg(curves, options.level))
        else:
            sys.exit(f"plot_loss.py: {options.out} needs matplotlib; without it --out ends in .svg")
    except OSError as error:
        sys.exit(f"plot_loss.py: {error}")


if __name__ == "__main__":
    main()
