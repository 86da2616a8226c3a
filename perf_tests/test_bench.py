# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs `tools/dev bench` over programs that only pretend to measure. Usage: test_bench.py FOLDER_OF_TOOLS"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

TOOLS = sys.argv.pop()

# As Google Benchmark behaves: lists or runs the rows that match, of which it has one for each word of ROWS.
PROGRAM = """#!/bin/bash
filter=. out='' list=no
for word in "$@"; do
  case $word in
  --benchmark_filter=*) filter=${word#*=} ;;
  --benchmark_out=*) out=${word#*=} ;;
  --benchmark_list_tests) list=yes ;;
  --benchmark_out_format=json | --benchmark_context=* | --benchmark_color=false) ;;
  *) echo "unrecognized $word" >&2 && exit 1 ;;
  esac
done
[[ $filter != '(' ]] || { echo "Could not compile benchmark re" >&2 && exit 1; }
rows=$(for row in ROWS; do echo "$row/P:${STAND_IN_RANKS:-1}"; done | grep -E "$filter") ||
  { echo "Failed to match any benchmarks against regex: $filter" >&2 && exit 1; }
[[ -z $out ]] || : >"$out"
[[ $list == no ]] || { echo "$rows" && exit 0; }
[[ -z $out ]] || printf '{"benchmarks": [{"run_name": "%s"}]}\\n' "$rows" >"$out"
[[ $rows != *broken* ]]
"""
MPIRUN = """#!/bin/sh
[ "$1" != --version ] || exit 0
export STAND_IN_RANKS=$2
shift 2
exec "$@"
"""


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


class Bench(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp()).resolve()
        self.addCleanup(shutil.rmtree, self.folder)
        self.build = self.folder / "checkout/build/native"
        shutil.copytree(TOOLS, self.folder / "checkout/tools")
        write_program(self.folder / "bin/cmake", "#!/bin/sh\n")
        write_program(self.folder / "bin/mpirun", MPIRUN)
        write_program(self.build / "perf_tests/krait_bench", PROGRAM.replace("ROWS", "scan norm"))
        write_program(self.build / "perf_tests/krait_bench_ranks", PROGRAM.replace("ROWS", "enter broken"))

    def bench(self, *arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("KRAIT_", "OMP"))}
        environment["PATH"] = f"{self.folder / 'bin'}:{environment['PATH']}"
        return subprocess.run([self.folder / "checkout/tools/dev", "bench", "--flavour", "native", *arguments],
                              capture_output=True, text=True, env=environment, cwd=self.folder, check=False)

    def left_behind(self):
        return list(self.build.glob("bench.*"))

    def rows(self, *arguments):
        """The names in what --out writes."""
        run = self.bench("--out", "out.json", *arguments)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(self.left_behind(), [])
        documents = json.loads((self.folder / "out.json").read_text(encoding="utf-8"))
        return [row["run_name"] for document in (documents if isinstance(documents, list) else [documents])
                for row in document["benchmarks"]]

    def refused(self, what, *arguments):
        run = self.bench(*arguments)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertIn(what, run.stderr)
        return run

    def test_rows_and_ranks(self):
        self.assertEqual(self.rows("scan"), ["scan/P:1"])
        self.assertEqual(self.rows("scan|enter"), ["scan/P:1", "enter/P:2", "enter/P:4"])
        self.assertEqual(self.rows("enter", "--ranks", "4"), ["enter/P:4"])
        self.assertEqual(self.rows("enter", "--ranks", "3"), ["enter/P:3"])
        self.assertEqual(self.rows("--", "--benchmark_filter=norm"), ["norm/P:1"])

    def test_what_is_refused(self):
        self.refused("no benchmark matches 'nothing'", "nothing")
        self.refused("Could not compile", "(")
        self.refused("unrecognized --wrong", "scan", "--", "--wrong")
        self.refused("--out FILE", "scan", "--", "--benchmark_out=mine.json")
        self.refused("positive number", "enter", "--ranks", "0")
        self.refused("positive number", "enter", "--ranks", "x")
        self.refused("2 ranks or more", "enter", "--ranks", "1")
        self.refused("no results", "scan", "--out", "out.json", "--", "--benchmark_list_tests")
        self.assertFalse((self.folder / "out.json").exists())
        self.assertEqual(self.left_behind(), [])

    def test_a_file_that_cannot_be_written(self):
        for out in ("absent/out.json", "."):
            run = self.refused("cannot be written", "scan", "--out", out)
            self.assertNotIn("krait_bench", run.stderr, "said before anything is measured")
        self.refused("could not be written", "scan", "--out", "/dev/full")
        self.assertEqual(len(self.left_behind()), 1, "what was measured")

    def test_a_program_that_fails(self):
        (self.folder / "out.json").write_text("old", encoding="utf-8")
        run = self.refused("krait_bench_ranks failed", "scan|broken", "--out", "out.json")
        self.assertEqual((self.folder / "out.json").read_text(encoding="utf-8"), "old")
        (results,) = self.left_behind()
        self.assertIn(str(results), run.stderr)
        self.assertIn("scan", (results / "1.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    unittest.main()
