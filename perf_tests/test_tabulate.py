# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs tabulate on results that are made up here, and on what krait_bench really writes if its path is given."""

import json
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

TABULATE = pathlib.Path(__file__).with_name("tabulate")


def run_of(name, milliseconds, **counters):
    return {"name": name + "/manual_time", "run_name": name + "/manual_time", "run_type": "iteration", "repetitions": 1,
            "real_time": milliseconds, "time_unit": "ms", **counters}


def tabulate(*arguments):
    return subprocess.run([sys.executable, TABULATE, *arguments], capture_output=True, text=True, check=False)


def expect(what, text):
    if what not in text:
        sys.exit(f"expected\n{what}\nin\n{text}")


def test_table_plot_and_portability(folder):
    scan = "ssd_scan/forward/odd/float/L:2048"
    conv = "causal_conv1d/forward/odd/float/L:2048"
    layer = "mamba_mixer/forward/odd/float/L:2048"
    median = run_of(conv + "/T:4", 1, copy_fraction=0.5, flops_fraction=0.1)
    repeated = [
        dict(median, repetitions=3, copy_fraction=0.9),
        dict(median, repetitions=3, run_type="aggregate", aggregate_name="mean", copy_fraction=0.7),
        dict(median, repetitions=3, run_type="aggregate", aggregate_name="median"),
    ]
    first = {"benchmarks": [
        run_of("peak/copy/T:4", 1000, bytes_per_second=1e9),
        run_of(scan + "/T:1", 8, flops_fraction=0.9, copy_fraction=0.01),
        run_of(scan + "/T:4", 2, flops_fraction=0.5, copy_fraction=0.01),
        run_of(layer + "/T:4", 3, flops_fraction=0.5, copy_fraction=0.1, bound_fraction=0.6),
        dict(run_of("causal_conv1d/backward/odd/float/L:2048/T:4", 0), error_occurred=True, copy_fraction=0.5),
        *repeated]}
    second = [{"benchmarks": [run_of(scan + "/T:8", 1, flops_fraction=0.25, copy_fraction=0.01)]},
              {"benchmarks": [run_of(conv + "/T:8", 1, flops_fraction=0.1, copy_fraction=1.5)]}]
    one, two, plot = folder / "one.json", folder / "two.json", folder / "plot.svg"
    one.write_text(json.dumps(first))
    two.write_text(json.dumps(second))

    alone = tabulate(str(one))
    assert alone.returncode == 0, alone.stderr
    expect(f"| `{scan}` | 2 | 4 | 0.50 |", alone.stdout)
    expect(f"| `{layer}` | 3 | 4 | 0.60 |", alone.stdout)
    assert "portability" not in alone.stdout and "backward" not in alone.stdout and "peak" not in alone.stdout

    both = tabulate("--svg", str(plot), f"cpu={one}", f"gpu={two}")
    assert both.returncode == 0, both.stderr
    expect(f"| `{scan}` | 2 | 4 | 0.50 | 1 | 8 | 0.25 | 0.33 |", both.stdout)  # 2 / (1 / 0.5 + 1 / 0.25)
    expect(f"| `{conv}` | 1 | 4 | 0.50 | 1 | 8 | 1.50 | 0.67 |", both.stdout)  # above 1 counts as 1
    expect(f"| `{layer}` | 3 | 4 | 0.60 | - | - | - | 0.00 |", both.stdout)
    expect("| operator | cpu | gpu | portability |", both.stdout)
    expect("| `ssd_scan/forward` | 0.50 | 0.25 | 0.33 |", both.stdout)
    assert "| `mamba_mixer/forward` |" not in both.stdout, "not all have it"
    bars = xml.etree.ElementTree.parse(plot).getroot()
    assert sum(element.tag.endswith("rect") for element in bars) == 1 + 2 + 2 * 2, "background, legend, bars"

    assert tabulate("--filter", "nothing", str(one)).returncode != 0
    missing = tabulate(str(folder / "absent.json"))
    assert missing.returncode != 0
    expect("absent.json", missing.stderr)


def test_what_the_benchmarks_write(folder, program):
    results = folder / "real.json"
    subprocess.run([program, "--benchmark_filter=causal_conv1d/forward/odd/float/L:2048/", "--benchmark_min_time=1x",
                    f"--benchmark_out={results}"], check=True, stdout=subprocess.DEVNULL)
    table = tabulate(str(results))
    assert table.returncode == 0, table.stderr
    expect("| `causal_conv1d/forward/odd/float/L:2048` |", table.stdout)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        test_table_plot_and_portability(pathlib.Path(name))
        for path in sys.argv[1:]:
            test_what_the_benchmarks_write(pathlib.Path(name), path)
