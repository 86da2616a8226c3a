#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs krait-plan as a user would. Usage: test_krait_plan.py PROGRAM"""

import json
import subprocess
import sys
import tempfile
import unittest

PROGRAM = sys.argv.pop()
KEYS = {"strategy", "layout", "ranks", "length", "seconds", "bytes_sent_per_rank", "messages",
        "memory_bytes_per_rank", "winner"}
STRATEGIES = ["local", "hidden_parallel", "state_passing:all_gather", "state_passing:doubling", "state_passing:chain"]


def run(*arguments):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False)


class KraitPlan(unittest.TestCase):
    def rows(self, *arguments):
        result = run("--json", *arguments)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return json.loads(result.stdout)

    def test_json_has_these_keys_and_one_winner_per_rank_count(self):
        for layout in ("contiguous", "zigzag", "zigzag_docs"):
            rows = self.rows("--layout", layout, "--preset", "mamba2_130m", "--backward")
            self.assertEqual(sorted({row["ranks"] for row in rows}), [2**k for k in range(13)])
            for row in rows:
                self.assertEqual(set(row), KEYS)
                self.assertIn(row["strategy"], STRATEGIES)
                self.assertEqual((row["layout"], row["length"]), (layout, 32768))
                self.assertGreater(row["seconds"], 0)
                self.assertGreater(row["memory_bytes_per_rank"], 0)
                self.assertIs(type(row["winner"]), bool)
                self.assertEqual(row["bytes_sent_per_rank"] > 0, row["ranks"] > 1)
                self.assertEqual(row["messages"] > 0, row["ranks"] > 1)
            for ranks in {row["ranks"] for row in rows}:
                here = [row for row in rows if row["ranks"] == ranks]
                winners = [row for row in here if row["winner"]]
                self.assertEqual(len(winners), 1)
                fastest = min(row["seconds"] for row in here)
                if winners[0]["strategy"] == "state_passing:doubling":
                    self.assertLessEqual(winners[0]["seconds"], 1.05 * fastest)
                else:
                    self.assertEqual(winners[0]["seconds"], fastest)

    def test_strategies_that_cannot_run_are_left_out_of_json_and_explained_in_the_table(self):
        # 24 heads
        self.assertEqual([row["strategy"] for row in self.rows("--preset", "mamba2_130m", "--ranks", "1")], STRATEGIES)
        self.assertEqual([row["strategy"] for row in self.rows("--preset", "mamba2_130m", "--ranks", "8")], STRATEGIES[1:])
        self.assertEqual([row["strategy"] for row in self.rows("--preset", "mamba2_130m", "--ranks", "16")], STRATEGIES[2:])
        self.assertEqual([row["strategy"] for row in self.rows("--preset", "mamba2_130m", "--ranks", "16", "--uneven")],
                         STRATEGIES[1:])
        table = run("--preset", "mamba2_130m", "--ranks", "16").stdout
        self.assertIn("cannot run: 24 heads do not divide by 16 ranks", table)

    def test_table_marks_the_winner_and_says_where_it_changes(self):
        result = run("--preset", "nemotron_h_8b", "--ranks", "8", "--length", "1048576")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        marked = [line for line in result.stdout.splitlines() if " * " in line]
        self.assertEqual(len(marked), 1)
        winner = next(row["strategy"] for row in self.rows("--ranks", "8", "--length", "1048576") if row["winner"])
        self.assertIn(winner, marked[0])
        self.assertRegex(result.stdout, r"\n +8 +hidden_parallel, from [0-9,]+ state_passing:")

    def test_options_override_the_preset(self):
        longer = self.rows("--heads", "24", "--groups", "1", "--preset", "nemotron_h_8b", "--ranks", "4")
        self.assertEqual(longer, self.rows("--preset", "mamba2_130m", "--ranks", "4"))

    def test_machines_that_were_measured_are_read_back(self):
        result = run("--calibrate", "--head-dim", "8", "--d-state", "8")
        self.assertEqual(result.returncode, 0, result.stderr)
        machine = json.loads(result.stdout)
        self.assertTrue(all(value > 0 for value in machine.values()))
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(result.stdout)
            file.flush()
            self.assertNotEqual(self.rows("--machine", file.name), self.rows())

    def test_one_rank_has_nothing_to_check(self):
        for flag in ("--check", "--check-grid"):
            result = run(flag)
            self.assertEqual(result.returncode, 2)
            self.assertIn("one rank, where there is nothing to choose", result.stderr)

    def test_bad_options(self):
        for arguments, message in [
            (["--lenght", "5"], "unknown option '--lenght'; --help lists the options"),
            (["--length", "0"], "--length takes a whole number of at least 1, got '0'"),
            (["--ranks", "2,x"], "--ranks takes a whole number of at least 1, got 'x'"),
            (["--preset", "mamba3"], "--preset takes one of mamba2_130m, mamba2_2p7b, nemotron_h_8b, got 'mamba3'"),
            (["--layout", "striped"], "--layout takes one of contiguous, zigzag, zigzag_docs, got 'striped'"),
            (["--scalar", "int8"], "--scalar takes one of bf16, float, got 'int8'"),
            (["--bandwidth", "0"], "--bandwidth takes a number above 0"),
            (["--heads", "10", "--groups", "4"], "--heads is 10 and --groups is 4; the groups must divide the heads"),
            (["--length"], "--length needs a value"),
            (["--batch", "2000000000", "--length", "1000000000000"], "at most 2^58"),
            (["--heads", "1", "--groups", "1", "--head-dim", "2147483647", "--d-state", "2147483647", "--json"],
             "at most 2^58"),
            (["--bandwidth", "1e-300", "--json"], "network_bandwidth is 1e-300, expected 1e-30 to 1e30"),
        ]:
            result = run(*arguments)
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
            self.assertIn("krait-plan: ", result.stderr)
            self.assertIn(message, result.stderr)


if __name__ == "__main__":
    unittest.main()
