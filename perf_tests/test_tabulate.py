# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs tabulate on results that are made up here, and on what krait_bench really writes if its path is given."""

import json
import math
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


def refused(*arguments):
    """What is said, in one line, when there is no success."""
    run = tabulate(*map(str, arguments))
    assert run.returncode == 1 and run.stderr.startswith("tabulate: ") and run.stderr.count("\n") == 1, run
    return run.stderr


def test_what_cannot_be_read_or_written(folder):
    name = "ssd_scan/forward/odd/float/L:2048"
    fine = run_of(name + "/T:2", 1, flops_fraction=0.5)
    good, other, bad = folder / "good.json", folder / "other.json", folder / "bad.json"
    good.write_text(json.dumps({"benchmarks": [fine]}))
    other.write_text(json.dumps({"benchmarks": [run_of("state_update/forward/odd/float/B:1/T:2", 1, copy_fraction=0.5)]}))
    for text in ("", good.read_text()[:40], "3", "null", "[1]", '{"benchmarks": 3}', "[" * 100000,
                 json.dumps({"benchmarks": [dict(fine, time_unit="h")]}),
                 json.dumps({"benchmarks": [dict(fine, flops_fraction=None)]}),
                 json.dumps({"benchmarks": [dict(fine, flops_fraction="much")]}),
                 json.dumps({"benchmarks": [{key: fine[key] for key in fine if key != "real_time"}]})):
        bad.write_text(text)
        expect("bad.json", refused(good, bad))
    for text in ("{}", "[]", json.dumps({"benchmarks": [run_of(name, 1, flops=1)]})):
        bad.write_text(text)
        expect("bad.json: no benchmark with a fraction", refused(good, bad))
    expect("two files", refused(good, good))
    for label in ("", " ", "a\nb", "\x01"):
        expect("no name", refused(f"{label}={good}"))
    expect("filter", refused("--filter", "(", good))
    expect("'nothing'", refused("--filter", "nothing", good))
    expect("absent/plot.svg", refused("--svg", folder / "absent" / "plot.svg", good))
    expect("nothing to draw", refused("--svg", folder / "empty.svg", good, other))
    assert not (folder / "empty.svg").exists()

    odd_counters = [run_of(name + "/T:4", 1, flops_fraction=0.1, copy_fraction=math.nan),
                    run_of(name + "/T:8", 1, flops_fraction=math.inf), run_of(name + "/T:16", 1, flops_fraction=-0.1)]
    bad.write_text(json.dumps({"benchmarks": [fine, *odd_counters]}))
    rest = tabulate(str(bad))
    assert rest.returncode == 0 and rest.stderr.count("left out") == 3, rest
    expect(f"| `{name}` | 1 | 2 | 0.50 |", rest.stdout)


def test_names_of_platforms(folder):
    results, plot = folder / "T=2.json", folder / "names.svg"
    results.write_text(json.dumps({"benchmarks": [run_of("ssd_scan/forward/odd/float/L:2048/T:2", 1, flops_fraction=0.5)]}))
    expect("| T=2: ms |", tabulate(str(results)).stdout)
    plain = folder / "plain.json"
    plain.write_text(results.read_text())
    table = tabulate("--svg", str(plot), f'<i>&"|={plain}')
    assert table.returncode == 0, table.stderr
    expect('| operator | &lt;i&gt;&amp;"\\| |', table.stdout)
    assert any(element.text == '<i>&"|' for element in xml.etree.ElementTree.parse(plot).getroot())


def test_what_the_benchmarks_write(folder, program):
    results = folder / "real.json"
    subprocess.run([program, "--benchmark_filter=causal_conv1d/forward/odd/float/L:2048/", "--benchmark_min_time=1x",
                    f"--benchmark_out={results}"], check=True, stdout=subprocess.DEVNULL)
    table = tabulate(str(results))
    assert table.returncode == 0, table.stderr
    expect("| `causal_conv1d/forward/odd/float/L:2048` |", table.stdout)


def test_how_the_benchmarks_end(program):
    def end_of(rows):
        return subprocess.run([program, f"--benchmark_filter={rows}", "--benchmark_min_time=1x"], capture_output=True,
                              text=True, check=False)

    without_goal = end_of("projection/forward/odd/float/L:2048/")
    assert without_goal.returncode == 0, without_goal.stderr
    expect("0 met, 0 missed, 1 rows without a goal", without_goal.stdout)
    assert end_of("nothing").returncode == 1
    assert end_of("(").returncode == 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        test_table_plot_and_portability(pathlib.Path(name))
        test_what_cannot_be_read_or_written(pathlib.Path(name))
        test_names_of_platforms(pathlib.Path(name))
        for path in sys.argv[1:]:
            test_what_the_benchmarks_write(pathlib.Path(name), path)
            test_how_the_benchmarks_end(path)
