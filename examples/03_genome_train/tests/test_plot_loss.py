# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The plot script without matplotlib: what it draws, and what it refuses."""

import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "plot_loss.py"
HEADER = "step,bits_per_base,learning_rate,grad_norm,tokens_per_second\n"


class PlotLoss(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return Path(self.folder.name) / name

    def write(self, name, rows):
        self.path(name).write_text(HEADER + "".join(f"{step},{loss},0.001,1,1000\n" for step, loss in rows))
        return self.path(name)

    def run_script(self, *arguments, out="out.svg"):
        command = [sys.executable, SCRIPT, "--plain", "--out", self.path(out), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def polylines(self):
        root = xml.parse(self.path("out.svg")).getroot()
        lines = root.iter("{http://www.w3.org/2000/svg}polyline")
        return [[tuple(map(float, point.split(","))) for point in line.get("points").split()] for line in lines]

    def test_draws_a_falling_loss_downwards_over_the_whole_width(self):
        self.assertEqual(self.run_script(self.write("a.csv", [(1, 2.5), (2, 2.0), (3, 1.9)])).returncode, 0)
        ((x1, y1), (x2, y2), (x3, y3)), = self.polylines()
        self.assertAlmostEqual(x2 - x1, x3 - x2)
        self.assertLess(y1, y2)  # downwards in SVG
        self.assertLess(y2, y3)
        self.assertAlmostEqual((y2 - y1) / (y3 - y2), 5, delta=0.05)

    def test_draws_levels_and_several_files(self):
        files = [self.write("one.csv", [(1, 2.5), (2, 2)]), self.write("four & more.csv", [(1, 2.4), (2, 2.1)])]
        self.assertEqual(self.run_script(*files, "--level", "order 3=1.93").returncode, 0)
        self.assertEqual(len(self.polylines()), 2)
        text = self.path("out.svg").read_text()
        self.assertIn(">order 3<", text)
        self.assertIn(">four &amp; more<", text)

    def test_long_runs_stay_small(self):
        self.run_script(self.write("a.csv", [(step, 2 + 1 / step) for step in range(1, 20001)]))
        (points,) = self.polylines()
        self.assertLessEqual(len(points), 401)
        self.assertAlmostEqual(points[-1][0], 610, delta=0.1)

    def test_refuses_what_it_cannot_draw(self):
        other = self.path("other.csv")
        other.write_text("a,b\n1,2\n")
        for arguments, message in [
            ([other], "other.csv is no loss log"),
            ([self.write("empty.csv", [])], "empty.csv has no steps"),
            ([self.path("none.csv")], "No such file"),
            ([self.write("a.csv", [(1, 2)]), "--level", "1.93x"], "a level is NAME=BITS"),
        ]:
            result = self.run_script(*arguments)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(message, result.stderr)
            self.assertNotIn("Traceback", result.stderr)
        result = self.run_script(self.write("a.csv", [(1, 2)]), out="out.png")
        self.assertIn("needs matplotlib", result.stderr)


if __name__ == "__main__":
    unittest.main()
