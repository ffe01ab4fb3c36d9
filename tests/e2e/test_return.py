"""What a container has used and given up goes back to the host by itself: memory and disk space."""
import unittest

from harness import BUSYBOX, unique, wait_for
from private_engine import PrivateEngineTest, engine_command

FILE_MIB = 128
LEAST_MIB = 96  # of it; the guest keeps what it likes


class Return(PrivateEngineTest):
    def test_memory_and_disk_of_a_deleted_file_go_back_to_the_host(self):
        engine = self.engine()
        engine.import_busybox()
        name = unique()
        engine.hull("run", "-d", "--name", name, BUSYBOX, "sleep", "1000")
        [machine] = engine.machines()

        def memory_mib():
            status = engine_command("cat", f"/proc/{machine}/status").out
            return int(status.split("VmRSS:")[1].split()[0]) // 1024

        def disk_mib():
            return int(engine_command("sh", "-c", f"du -cm $(find {engine.root} -name writable.ext4) | tail -n 1").out.split()[0])

        memory, disk = memory_mib(), disk_mib()
        engine.hull("exec", name, "sh", "-c", f"dd if=/dev/zero of=/big bs=1M count={FILE_MIB} 2>/dev/null; sync")
        self.assertGreater(memory_mib(), memory + LEAST_MIB)
        self.assertGreater(disk_mib(), disk + LEAST_MIB)
        full_memory, full_disk = memory_mib(), disk_mib()
        engine.hull("exec", name, "sh", "-c", "rm /big; sync")
        wait_for(lambda: memory_mib() < full_memory - LEAST_MIB, "memory comes back")
        wait_for(lambda: disk_mib() < full_disk - LEAST_MIB, "disk space comes back")
        engine.hull("rm", "-f", name)


if __name__ == "__main__":
    unittest.main()
