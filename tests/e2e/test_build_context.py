"""Contexts of builds that travel lean to the engine that is under test."""
import os

from harness import EngineTest, hull, unique
from lean_contexts import LeanContexts


class Contexts(LeanContexts, EngineTest):
    def socket_path(self):
        return os.environ["HULL_HOST"].removeprefix("unix://")

    def test_into_hull_machine_only_what_changed_travels(self):
        if self.socket_path() != f"{os.environ.get('HULL_STATE')}/machine/engine.sock":
            self.skipTest("the engine is not in hull machine")
        for said in (r"transferring context: [0-9.]+MB of 8.39MB\b(?! \()", r"transferring context: [0-9.]+k?B of 8.39MB \(8.39MB unchanged\)"):
            name = f"hull-test/{unique()}"
            self.addCleanup(hull, "rmi", "-f", name, check=False)
            result = hull("build", "-t", name, "--progress", "plain", self.folder, env={"XDG_CACHE_HOME": self.remote["XDG_CACHE_HOME"]})
            self.assertRegex(result.err, said)
