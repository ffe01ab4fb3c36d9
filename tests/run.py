#!/usr/bin/env python3
"""Runs end-to-end suites: tests/run.py [--counts FILE] [--engine STATE=HOST]… SUITE…   (folders of tests/ with test_*.py and *.sh)

Every test is a line as it ends. A shell script is one test: status 0 passed, 77 skipped (its last line says why), anything
else failed. The last line is the sum; --counts adds "passed failed skipped" to FILE. With several engines the test classes
and scripts are shared out among them, each engine running one at a time (STATE and HOST become HULL_STATE and HULL_HOST).
"""
import argparse
import multiprocessing
import os
import pathlib
import subprocess
import sys
import time
import unittest

TESTS = pathlib.Path(__file__).resolve().parent
SCRIPT_SECONDS = 900


class Lines(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.passed = 0

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()

    def line(self, word, test, detail=""):
        took = time.monotonic() - getattr(self, "began", time.monotonic())
        print(f"{word:7} {took:6.1f} s  {test.id() if hasattr(test, 'id') else test}" + (f": {detail}" if detail else ""), flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1
        self.line("passed", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.line("skipped", test, reason)

    def _bad(self, test, err):
        self.line("FAILED", test)
        print("    " + self._exc_info_to_string(err, test).strip().replace("\n", "\n    "), flush=True)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._bad(test, err)

    def addError(self, test, err):
        super().addError(test, err)
        self._bad(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._bad(subtest, err)


class Script:
    """A shell script as a test."""

    def __init__(self, path):
        self.path = path

    def run(self):
        """Returns (passed, failed, skipped)."""
        began = time.monotonic()
        try:
            done = subprocess.run(["bash", str(self.path)], capture_output=True, text=True, timeout=SCRIPT_SECONDS, stdin=subprocess.DEVNULL)
            status, output = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired as expired:
            status, output = 124, f"no end within {SCRIPT_SECONDS} s\n{expired.stdout or ''}"
        word = {0: "passed", 77: "skipped"}.get(status, "FAILED")
        last = output.strip().splitlines()[-1:] or [""]
        detail = f": {last[0]}" if word == "skipped" else ""
        text = f"{word:7} {time.monotonic() - began:6.1f} s  {self.path.relative_to(TESTS)}{detail}"
        if word == "FAILED":
            text += f"\n    status {status}\n    " + output[-6000:].strip().replace("\n", "\n    ")
        print(text, flush=True)
        return word == "passed", word == "FAILED", word == "skipped"


class Class:
    """All tests of one class, which share what its setUpClass makes."""

    def __init__(self, tests):
        self.tests = tests

    def run(self):
        result = Lines()
        unittest.TestSuite(self.tests).run(result)
        return result.passed, len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses), len(result.skipped)


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def units_of(suite, patterns):
    """What can run on an engine of its own: classes and scripts of a suite, in the order of their names."""
    loader = unittest.TestLoader()
    loader.testNamePatterns = [f"*{p}*" for p in patterns] if patterns else None
    sys.path.insert(0, str(TESTS / suite))
    classes = {}
    for test in flat(loader.discover(str(TESTS / suite), pattern="test_*.py", top_level_dir=str(TESTS / suite))):
        classes.setdefault(type(test) if type(test).__module__ != "unittest.loader" else test.id(), []).append(test)
    scripts = [path for path in sorted((TESTS / suite).glob("*.sh")) if not patterns or any(p in path.name for p in patterns)]
    return [Class(tests) for tests in classes.values()] + [Script(path) for path in scripts]


def work(units, engine, next_unit, sums):
    """Runs units until none is left; adds up what became of them."""
    if engine:
        os.environ["HULL_STATE"], os.environ["HULL_HOST"] = engine.split("=", 1)
    while True:
        with next_unit.get_lock():
            index = next_unit.value
            next_unit.value += 1
        if index >= len(units):
            return
        counts = units[index].run()
        with sums.get_lock():
            for i, count in enumerate(counts):
                sums[i] += count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts")
    parser.add_argument("--engine", dest="engines", action="append", help="STATE=HOST of an engine to share the tests out to")
    parser.add_argument("-k", dest="patterns", action="append", help="only tests whose id holds this text")
    parser.add_argument("suites", nargs="+")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS / "support"))
    units = [unit for suite in options.suites for unit in units_of(suite, options.patterns)]
    fork = multiprocessing.get_context("fork")
    next_unit, sums = fork.Value("i", 0), fork.Array("i", 3)
    workers = [fork.Process(target=work, args=(units, engine, next_unit, sums)) for engine in options.engines or [None]]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    died = sum(worker.exitcode != 0 for worker in workers)
    passed, failed, skipped = sums[0], sums[1] + died, sums[2]
    if died:
        print(f"FAILED  {died} of the processes that run tests died", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    if options.counts:
        with open(options.counts, "a", encoding="ascii") as counts:
            counts.write(f"{passed} {failed} {skipped}\n")
    return 1 if failed or not passed + skipped else 0


if __name__ == "__main__":
    sys.exit(main())
