"""Contexts of builds that travel lean to the engine that is under test."""
import os

from harness import EngineTest
from lean_contexts import LeanContexts


class Contexts(LeanContexts, EngineTest):
    def socket_path(self):
        return os.environ["HULL_HOST"].removeprefix("unix://")
