"""Contexts of builds that travel lean, natively: steps that need no machine."""
from fake_engine import FakeEngineTest
from lean_contexts import LeanContexts


class Contexts(LeanContexts, FakeEngineTest):
    def socket_path(self):
        return self.engine.socket
