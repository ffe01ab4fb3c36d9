#!/usr/bin/env python3
"""Runs end-to-end suites: tests/run.py [--counts FILE] SUITE…   (folders of tests/ with test_*.py and *.sh)

Every test is a line as it ends. A shell script is one test: status 0 passed, 77 skipped (its last line says why), anything
else failed. The last line is the sum; --counts adds "passed failed skipped" to FILE.
"""
import argparse
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


def run_script(path):
    began = time.monotonic()
    try:
        done = subprocess.run(["bash", str(path)], capture_output=True, text=True, timeout=SCRIPT_SECONDS, stdin=subprocess.DEVNULL)
        status, output = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as expired:
        status, output = 124, f"no end within {SCRIPT_SECONDS} s\n{expired.stdout or ''}"
    word = {0: "passed", 77: "skipped"}.get(status, "FAILED")
    last = output.strip().splitlines()[-1:] or [""]
    print(f"{word:7} {time.monotonic() - began:6.1f} s  {path.relative_to(TESTS)}" + (f": {last[0]}" if word == "skipped" else ""), flush=True)
    if word == "FAILED":
        print(f"    status {status}\n    " + output[-6000:].strip().replace("\n", "\n    "), flush=True)
    return word


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts")
    parser.add_argument("-k", dest="patterns", action="append", help="only tests whose id holds this text")
    parser.add_argument("suites", nargs="+")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS / "support"))
    passed = failed = skipped = 0
    for suite in options.suites:
        loader = unittest.TestLoader()
        loader.testNamePatterns = [f"*{p}*" for p in options.patterns] if options.patterns else None
        sys.path.insert(0, str(TESTS / suite))
        result = Lines()
        loader.discover(str(TESTS / suite), pattern="test_*.py", top_level_dir=str(TESTS / suite)).run(result)
        passed += result.passed
        failed += len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
        skipped += len(result.skipped)
        for script in sorted((TESTS / suite).glob("*.sh")):
            if options.patterns and not any(p in script.name for p in options.patterns):
                continue
            word = run_script(script)
            passed, failed, skipped = passed + (word == "passed"), failed + (word == "FAILED"), skipped + (word == "skipped")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    if options.counts:
        with open(options.counts, "a", encoding="ascii") as counts:
            counts.write(f"{passed} {failed} {skipped}\n")
    return 1 if failed or not passed + skipped else 0


if __name__ == "__main__":
    sys.exit(main())
