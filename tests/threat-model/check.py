#!/usr/bin/env python3
"""Every test that docs/threat-model.md names must exist, and every test of the hostile grid must be named there.

What counts as a name, between backquotes in a table: `Suite.Test` or `Suite.*` (GoogleTest), `test_file.Class.test_name` (end to
end), `name_fuzz` (a fuzz target with a corpus), or a path or glob of files in the repository.
"""
import pathlib
import re
import sys

GTEST = re.compile(r"^TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)", re.MULTILINE)
GRID = ("HostileQueue", "HostileTransport", "HostileGuest", "JailAttack", "JailFromOutside", "HostileState")
SKIPPED_FOLDERS = {"build", ".git"}


def sources(root, suffix):
    for path in sorted(root.rglob(f"*{suffix}")):
        if path.relative_to(root).parts[0] not in SKIPPED_FOLDERS:
            yield path


def known_tests(root):
    names = set()
    for path in sources(root, ".cc"):
        names.update(f"{suite}.{test}" for suite, test in GTEST.findall(path.read_text(errors="replace")))
    for path in sources(root / "tests", ".py"):
        suite = None
        for line in path.read_text().splitlines():
            if match := re.match(r"class (\w+)", line):
                suite = match.group(1)
            if suite and (match := re.match(r"    def (test_\w+)", line)):
                names.add(f"{path.stem}.{suite}.{match.group(1)}")
    return names


def fuzz_targets(root):
    return {path.stem for path in sources(root, "_fuzz.cc")}


def named_in_tables(text):
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("|"):
            for name in re.findall(r"`([^`]+)`", line.split("|")[-2]):
                yield number, name


def exists(name, root, tests, fuzzers):
    if name.endswith("_fuzz") and "/" not in name:
        return any(name == target or name == f"vmm_{target}" for target in fuzzers)
    if name.endswith(".*"):
        return any(test.startswith(name[:-1]) for test in tests)
    if "/" in name:
        return any(root.glob(name))
    return name in tests


def main(root):
    root = pathlib.Path(root)
    page = root / "docs" / "threat-model.md"
    tests, fuzzers = known_tests(root), fuzz_targets(root)
    named, problems = set(), []
    for number, name in named_in_tables(page.read_text()):
        named.add(name)
        if not exists(name, root, tests, fuzzers):
            problems.append(f"{page.relative_to(root)}:{number}: no test {name}")
    for test in sorted(tests):
        suite = test.split(".")[0]
        if suite in GRID and test not in named and f"{suite}.*" not in named:
            problems.append(f"{page.relative_to(root)}: does not name {test}")
    print("\n".join(problems) if problems else f"{len(named)} names, all of them tests")
    return 1 if problems or not named else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
