#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs the script of a bundle over programs that only write down how they were started. Usage: test_bundle_run.py SCRIPT"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

SCRIPT = sys.argv.pop()

# What every program of the bundle does here: one line of what it sees, then what the test has asked of it.
PROGRAM = """#!/bin/sh
name=${0##*/}
echo "$name|$*|rank=$OMPI_COMM_WORLD_RANK|comm=$KRAIT_COMM|host=$NCCL_HOSTID|threads=$OMP_NUM_THREADS|under=$UNDER" >>"$CALLS"
case $LD_LIBRARY_PATH in "${0%/bin/*}/lib"*) ;; *) echo "no libraries"; exit 9 ;; esac
if [ -e "$BUNDLE/behaviour/$name" ]; then . "$BUNDLE/behaviour/$name"; fi
exit 0
"""
# One rank after the other, and the status of the first that fails.
LAUNCHER = """#!/bin/sh
[ "$1" = -n ] || exit 8
n=$2 status=0 rank=0
shift 2
while [ $rank -lt $n ]; do
  OMPI_COMM_WORLD_RANK=$rank "$@" || status=$?
  rank=$((rank + 1))
done
exit $status
"""
SANITIZER = """#!/bin/sh
tool=$2
while [ "${1#--}" != "$1" ]; do
  case $1 in --tool | --target-processes | --error-exitcode) shift ;; esac
  shift
done
UNDER=$tool exec "$@"
"""
NVIDIA_SMI = "#!/bin/sh\necho 'A \"GPU\", 580.1, 81559 MiB'\n"
TESTS = [
    ("support.ranks1", "1", "60", "OMP_NUM_THREADS=1 KRAIT_TEST_RANKS=1", "krait_test_support_tools", "-"),
    ("ops.ranks1", "1", "60", "OMP_NUM_THREADS=4 KRAIT_TEST_RANKS=1", "krait_test_ops", "--gtest_filter=A*"),
    ("comm.ranks2", "2", "60", "KRAIT_TEST_RANKS=2", "krait_test_comm", "-"),
    ("comm.ranks8", "8", "60", "KRAIT_TEST_RANKS=8", "krait_test_comm", "-"),
    ("comm_queue.ranks2", "2", "60", "KRAIT_TEST_RANKS=2 KRAIT_TEST_FAMILY=queue", "krait_test_comm", "-"),
    ("comm_nccl.ranks2", "2", "60", "KRAIT_TEST_RANKS=2 KRAIT_COMM=nccl", "krait_test_comm", "-"),
]
PROGRAMS = ["krait_bench", "krait_bench_ranks", "krait_bench_strategies", "krait_genome", "krait_genome_train", "krait_layer",
            "krait-plan", "krait_test_ops_scan", "krait_test_ops_scan_backward", "krait_test_ops_scan_summary",
            "krait_test_ops_update"] + sorted({row[4] for row in TESTS})


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


class Call:
    """A line that a program has written down."""

    def __init__(self, line):
        self.program, self.arguments, *rest = line.split("|")
        for word in rest:
            name, value = word.split("=", 1)
            setattr(self, name, value)


class BundleRun(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp()).resolve()
        self.addCleanup(shutil.rmtree, self.folder)
        self.bundle = self.folder / "bundle"
        code = self.folder / "code"
        for name in PROGRAMS:
            write_program(code / "bin" / name, PROGRAM)
        write_program(code / "mpi/bin/prterun", LAUNCHER)
        self.bundle.mkdir()
        with tarfile.open(self.bundle / "code.tar.gz", "w:gz") as tar:
            for part in code.iterdir():
                tar.add(part, part.name)
        write_program(self.folder / "tools/compute-sanitizer", SANITIZER)
        write_program(self.folder / "tools/nvidia-smi", NVIDIA_SMI)
        shutil.copy(SCRIPT, self.bundle / "run")
        (self.bundle / "tests.tsv").write_text("".join("\t".join(row) + "\n" for row in TESTS), encoding="utf-8")

    def behave(self, program, commands):
        folder = self.bundle / "behaviour"
        folder.mkdir(exist_ok=True)
        (folder / program).write_text(commands, encoding="utf-8")

    def start_script(self, *arguments):
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith(("KRAIT_", "NCCL_", "OMP", "GTEST_")) and name != "LD_LIBRARY_PATH"}
        environment.update(PATH=f"{self.folder / 'tools'}:{os.environ['PATH']}", CALLS=str(calls), BUNDLE=str(self.bundle))
        return subprocess.Popen([self.bundle / "run", "--out", self.folder / "out", *arguments], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=environment, cwd=self.folder)

    def run_script(self, *arguments):
        script = self.start_script(*arguments)
        stdout, stderr = script.communicate(timeout=100)
        result = subprocess.CompletedProcess(arguments, script.returncode, stdout, stderr)
        calls = self.folder / "calls"
        lines = calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []
        # the script's own questions, whether programs start and a device is there
        calls = [call for call in map(Call, lines) if call.arguments not in ("--help", "--gtest_list_tests")]
        return result, calls

    def results(self):
        return json.loads((self.folder / "out/results.json").read_text(encoding="utf-8"))

    def outcomes(self):
        return {step["name"]: step["outcome"] for step in self.results()["steps"]}

    def test_everything_is_run_and_passes(self):
        result, calls = self.run_script()
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        results = self.results()
        self.assertEqual((results["device"], results["complete"], results["passed"]), ("A GPU, 580.1, 81559 MiB", True, True))
        self.assertEqual({step["outcome"] for step in results["steps"]}, {"passed"})
        self.assertEqual(results["counts"], {"passed": len(results["steps"]), "failed": 0, "skipped": 0, "left out": 0})
        for step in results["steps"]:
            self.assertTrue((self.folder / "out" / step["log"]).is_file())
        self.assertEqual({call.program for call in calls}, set(PROGRAMS))
        self.assertIn(f"{len(results['steps'])} passed, 0 failed", (self.folder / "out/summary.txt").read_text(encoding="utf-8"))

    def test_tests_of_one_process_keep_their_settings(self):
        _, calls = self.run_script("--only", "tests")
        self.assertEqual([(call.program, call.arguments, call.threads, call.comm) for call in calls],
                         [("krait_test_support_tools", "", "1", ""), ("krait_test_ops", "--gtest_filter=A*", "4", "")])

    def test_tests_of_ranks_go_over_both_families(self):
        self.run_script("--only", "nccl,mpi")
        self.assertEqual(list(self.outcomes()), ["comm.ranks2/nccl", "comm.ranks2/mpi", "comm.ranks8/mpi", "comm_queue.ranks2/mpi"])
        _, calls = self.run_script("--only", "nccl")
        self.assertEqual([(call.rank, call.comm, call.host) for call in calls],
                         [("0", "nccl", "krait-rank-0"), ("1", "nccl", "krait-rank-1")])

    def test_the_sanitizer_runs_every_rank_under_both_tools(self):
        _, calls = self.run_script("--only", "sanitizer")
        self.assertEqual({call.under for call in calls}, {"memcheck", "racecheck"})
        ranks = [(call.comm, call.rank) for call in calls if call.program == "krait_test_comm"]
        self.assertEqual(ranks, [("nccl", "0"), ("nccl", "1"), ("mpi", "0"), ("mpi", "1")])
        for call in calls:
            self.assertRegex(call.arguments, "^--gtest_filter=.")

    def test_without_a_sanitizer_its_steps_are_skipped(self):
        (self.folder / "tools/compute-sanitizer").unlink()
        if shutil.which("compute-sanitizer") or os.access("/usr/local/cuda/bin/compute-sanitizer", os.X_OK):
            self.skipTest("this machine has one")
        result, _ = self.run_script("--only", "sanitizer")
        self.assertEqual((result.returncode, set(self.outcomes().values())), (0, {"skipped"}))

    def test_a_sanitizer_that_checks_nothing_fails(self):
        self.behave("krait_test_ops_update", "echo '[==========] Running 0 tests from 0 test suites.'\n")
        result, _ = self.run_script("--only", "sanitizer")
        self.assertEqual(result.returncode, 1)
        self.assertEqual([name for name, outcome in self.outcomes().items() if outcome == "failed"],
                         ["sanitizer/memcheck/krait_test_ops_update"])

    def test_failures_and_skips_are_told(self):
        self.behave("krait_test_ops", "echo 'this is why'; exit 1\n")
        self.behave("krait_test_comm", 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then exit 77; fi\n')
        result, _ = self.run_script("--only", "tests,mpi", "--filter", "ops|comm.ranks2")
        self.assertEqual(result.returncode, 1)
        self.assertIn("   | this is why", result.stdout)
        self.assertEqual(self.outcomes(), {"ops.ranks1": "failed", "comm.ranks2/mpi": "skipped"})
        self.assertEqual((self.results()["complete"], self.results()["passed"]), (True, False))

    def test_a_step_that_hangs_is_ended_and_the_rest_left_out(self):
        self.behave("krait_test_support_tools", 'if [ -z "$*" ]; then sleep 15; fi\n')
        begin = time.monotonic()
        result, _ = self.run_script("--only", "tests", "--limit", "3")
        self.assertLess(time.monotonic() - begin, 20)
        self.assertEqual(result.returncode, 1)
        self.assertEqual(self.outcomes(), {"support.ranks1": "failed", "ops.ranks1": "left out"})
        self.assertEqual(self.results()["counts"], {"passed": 0, "failed": 1, "skipped": 0, "left out": 1})
        self.assertRegex((self.folder / "out/summary.txt").read_text(encoding="utf-8"), "left out +0 s +ops.ranks1")
        self.assertIn("ended after", (self.folder / "out/logs/support.ranks1.log").read_text(encoding="utf-8"))

    def test_a_run_that_is_stopped_leaves_results_and_no_process(self):
        self.behave("krait_test_ops", 'echo $$ >"$BUNDLE/process"; sleep 100\n')
        self.assert_stops(signal.SIGTERM, "--only", "tests")
        self.assertEqual((self.outcomes(), self.results()["complete"]), ({"support.ranks1": "passed"}, False))

    def wait_for_process(self):
        file = self.bundle / "process"
        while not file.exists() or not file.read_text(encoding="utf-8"):
            time.sleep(0.1)
        return int(file.read_text(encoding="utf-8"))

    def assert_stops(self, with_signal, *arguments):
        """A script that gets the signal while a program runs ends by it, and the program ends too."""
        script = self.start_script(*arguments)
        process = self.wait_for_process()
        script.send_signal(with_signal)
        script.communicate(timeout=20)
        self.assertEqual(script.returncode, 128 + with_signal)
        with self.assertRaises(ProcessLookupError):
            for _ in range(100):
                os.kill(process, 0)
                time.sleep(0.1)

    def test_a_run_that_is_stopped_leaves_no_rank_of_another_group(self):
        self.behave("krait_test_comm", 'if [ "$1" = rank ]; then echo $$ >"$BUNDLE/process"; while :; do sleep 1; done; fi\n'
                                       'setsid "$0" rank & wait\n')
        self.assert_stops(signal.SIGINT, "--only", "mpi")

    def test_one_program_is_stopped_at_once(self):
        self.behave("krait_layer", 'echo $$ >"$BUNDLE/process"; sleep 100\n')
        self.assert_stops(signal.SIGTERM, "--", "krait_layer")

    def test_results_of_an_earlier_run_are_not_left(self):
        self.run_script("--only", "tests")
        self.behave("krait_test_support_tools", 'if [ -z "$*" ]; then echo $$ >"$BUNDLE/process"; sleep 100; fi\n')
        script = self.start_script("--only", "tests")
        self.wait_for_process()
        results = self.results()
        script.terminate()
        script.communicate(timeout=20)
        self.assertEqual((results["complete"], results["steps"]), (False, []))

    def test_nothing_to_run_is_no_success(self):
        for arguments in (["--filter", "nothing"], ["--only", ","]):
            result, calls = self.run_script("--only", "tests", *arguments)
            self.assertEqual((result.returncode, calls, self.results()["passed"]), (1, [], False))

    def test_the_script_may_be_a_link(self):
        link = self.folder / "elsewhere"
        link.symlink_to(self.bundle / "run")
        result = subprocess.run([link, "--out", self.folder / "out", "--", "krait_layer"], check=False,
                                env={**os.environ, "CALLS": os.devnull, "BUNDLE": str(self.bundle), "LD_LIBRARY_PATH": ""})
        self.assertEqual(result.returncode, 0)

    def test_what_cannot_be_run_is_refused(self):
        for arguments in (["--limit", "1.5"], ["--limit", "08"], ["--limit", "-5"], ["--min-time", "abc"], ["--filter", "o("],
                          ["--ranks", "0", "--", "krait_layer"], ["--ranks", "2x", "--", "krait_layer"], ["--ranks", "2"],
                          ["--only"], ["--"], ["--", "nosuch"], ["--", "../x"]):
            result, calls = self.run_script(*arguments)
            self.assertEqual((result.returncode, calls), (2, []), arguments)
            self.assertRegex(result.stderr, "^krait: ", arguments)

    def test_parts_are_run_in_the_order_given_and_bench_writes_files(self):
        self.behave("krait-plan", "echo '{}'\n")
        self.run_script("--only", "bench,tests")
        self.assertEqual(list(self.outcomes())[0], "bench/krait_bench")
        self.assertEqual(list(self.outcomes())[-1], "ops.ranks1")
        self.assertEqual(json.loads((self.folder / "out/machine.json").read_text(encoding="utf-8")), {})

    def test_one_program_on_ranks(self):
        self.behave("krait_genome", "exit 5\n")
        result, calls = self.run_script("--ranks", "3", "--", "krait_genome", "--synthetic", "10 20")
        self.assertEqual(result.returncode, 5)
        self.assertEqual([(call.rank, call.arguments) for call in calls], [(str(i), "--synthetic 10 20") for i in range(3)])
        self.assertFalse((self.folder / "out").exists())

    def test_without_a_device_nothing_is_run(self):
        for status, says, why in ((77, "skipped", "no CUDA device was found"),
                                  (127, "libcuda.so.1: cannot open", "no CUDA driver was found"), (1, "", "do not start here")):
            self.behave("krait_test_support_tools", f"echo '{says}'; exit {status}\n")
            result, calls = self.run_script()
            self.assertEqual((result.returncode, calls), (3, []))
            self.assertIn(why, result.stderr)
            self.assertEqual((self.results()["device"], self.results()["passed"]), (None, False))
            self.assertEqual((self.results()["counts"]["passed"], self.results()["steps"]), (0, []))

    def test_what_it_does_not_know_is_refused(self):
        for arguments in (["--only", "demos"], ["--what"]):
            result, calls = self.run_script(*arguments)
            self.assertEqual((result.returncode, calls), (2, []))
            self.assertIn("usage: run", result.stderr)


unittest.main()
