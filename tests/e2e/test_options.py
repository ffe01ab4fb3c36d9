"""What a container's options mean in its virtual machine: limits, security, devices, health, restarts, logs. One container
carries as many of them as go together: a start costs seconds."""
import json

from harness import BUSYBOX, EngineTest, hull, unique, wait_for
from private_engine import PrivateEngineTest

NO_MKDIR = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]})


class Options(EngineTest):
    def test_limits_and_security_options_hold_inside(self):
        profile = self.temporary_folder() / "seccomp.json"
        profile.write_text(NO_MKDIR)
        result = self.run_in(
            "sh", "-c",
            "cat /proc/1/comm /proc/sys/net/core/somaxconn /proc/sys/vm/swappiness /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max;"
            "ulimit -n; df -m /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2; id -G; cat /proc/self/oom_score_adj;"
            "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t' ' '; mkdir /tmp/x 2>&1 | grep -c denied;"
            "touch /x 2>&1 | grep -c Read-only; touch /scratch/x && echo scratch; cat /proc/kcore | wc -c;"
            "test -c /dev/fuse && echo fuse; mknod /tmp/disk b 254 0 2>/dev/null || mknod /scratch/disk b 254 0; head -c 1 /scratch/disk >/dev/null 2>&1 || echo closed",
            options=["--init", "--sysctl", "net.core.somaxconn=77", "--sysctl", "vm.swappiness=7", "--pids-limit", "99", "--cpus", "0.5",
                     "--ulimit", "nofile=123:456", "--shm-size", "8m", "--group-add", "2000", "--oom-score-adj", "300",
                     "--security-opt", "no-new-privileges", "--security-opt", f"seccomp={profile}", "--read-only",
                     "--tmpfs", "/scratch:size=1m", "--device", "/dev/fuse"])
        self.assertEqual(result.out.split("\n"), [
            "hull-reaper", "77", "7", "99", "50000 100000", "123", "8", "0 2000", "300", "NoNewPrivs: 1", "Seccomp: 2", "1", "1", "scratch",
            "0", "fuse", "closed", ""], result.err)

    def test_capabilities_and_privilege_are_of_the_guest(self):
        effective = "grep CapEff /proc/self/status | cut -f2"
        self.assertEqual(self.run_in("sh", "-c", effective, options=["--cap-drop", "all", "--cap-add", "chown"]).out, f"{1:016x}\n")
        result = self.run_in("sh", "-c", f"{effective}; ls /dev | grep -c vd; mount -t tmpfs x /tmp && echo mounted; "
                             "echo 1 > /proc/sys/vm/overcommit_memory && echo tuned; touch /sys/fs/cgroup/x 2>&1 | grep -c Read-only; true", options=["--privileged"])
        lines = result.out.split("\n")
        self.assertEqual(int(lines[0], 16) & 0xffffffff, 0xffffffff)
        self.assertGreaterEqual(int(lines[1]), 2)
        self.assertEqual(lines[2:], ["mounted", "tuned", "0", ""], result.err)

    def test_what_would_share_the_host_is_refused_with_a_way_out(self):
        for options, words in ((["--network", "host"], "publish its ports with -p"), (["--pid", "host"], "shares no namespace"),
                               (["--device", "/dev/sda"], "sees no device of the host"), (["--gpus", "all"], "no device of the host"),
                               (["--cgroup-parent", "x"], "limit it with --memory"), (["--log-driver", "syslog"], "use json-file, local or none")):
            result = hull("create", *options, BUSYBOX, "true", check=False)
            self.assertEqual(result.status, 1)
            self.assertIn(words, result.err)

    def test_a_running_container_is_updated_watched_and_counted(self):
        name = self.container("-m", "200m", "--health-cmd", "echo probed; test -e /well", "--health-interval", "300ms", "--health-retries", "2",
                              "--log-opt", "max-size=2k", "--log-opt", "max-file=2", "--",
                              "sh", "-c", "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.02; done")
        health = lambda: hull("inspect", "-f", "{{.State.Health.Status}}", name).out.strip()
        wait_for(lambda: health() == "unhealthy", "probes fail")
        self.assertIn("(unhealthy)", hull("ps", "--filter", "health=unhealthy", "--filter", f"name={name}").out)
        hull("exec", name, "touch", "/well")
        wait_for(lambda: health() == "healthy", "probes succeed")
        probe = json.loads(hull("inspect", "-f", "{{json .State.Health.Log}}", name).out)[-1]
        self.assertEqual((probe["ExitCode"], probe["Output"]), (0, "probed\n"))
        hull("update", "-m", "100m", "--pids-limit", "55", "--cpus", "0.7", name)
        self.assertEqual(hull("exec", name, "sh", "-c", "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max").out, f"{100 << 20}\n55\n70000 100000\n")
        self.assertIn("start it again", hull("update", "-m", "4g", name, check=False).err)
        row = json.loads(hull("stats", "--no-stream", "--format", "json", name).out)
        self.assertGreater(int(row["PIDs"]), 0)
        self.assertNotEqual(row["CPUPerc"], "0.00%")
        self.assertTrue(row["MemUsage"].endswith(" / 100MiB"), row["MemUsage"])
        wait_for(lambda: not hull("logs", name).out.startswith("line 1\n"), "the log is rotated")
        self.assertRegex(hull("logs", "-n", "2", name).out, r"^line \d+\nline \d+\n$")
        self.assertIn("A /well", hull("diff", name).out)

    def test_a_limited_disk_holds_a_writer_back_until_the_limit_is_lifted(self):
        """At 128 KiB a second the 64 MiB take over eight minutes; without a limit they are done before anybody looks again."""
        name = self.container("--device-write-bps", "/dev/vda:128k", "--", "sh", "-c", "dd if=/dev/zero of=/data bs=1M count=64 conv=fsync")
        written = lambda: int(hull("exec", name, "cat", "/sys/block/vdb/stat").out.split()[6]) * 512
        wait_for(lambda: written() > 1 << 20, "it writes")
        self.assertLess(written(), 64 << 20)
        self.assertEqual(hull("inspect", "-f", "{{.State.Status}} {{json .HostConfig.BlkioDeviceWriteBps}}", name).out,
                         'running [{"Path":"/dev/vda","Rate":131072}]\n')
        self.assertEqual(hull("update", "--device-write-bps", "/dev/vda:0", name).out, name + "\n")
        self.assertEqual(hull("wait", name).out, "0\n")
        for rate in ("/dev/vda", "vda:1m", "/dev/vda:fast"):
            self.assertIn("/dev/vda:10mb" if rate != "/dev/vda:fast" else "invalid size",
                          hull("create", "--device-read-bps", rate, BUSYBOX, "true", check=False).err)

    def test_restarts_follow_the_policy(self):
        name = self.container("--restart", "on-failure:2", "--", "sh", "-c", "echo run; exit 3")
        wait_for(lambda: hull("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", name).out == "exited 2\n", "it gives up")
        self.assertEqual(hull("logs", name).out, "run\n" * 3)

    def test_files_reach_a_container_that_never_started(self):
        name = unique()
        self.addCleanup(hull, "rm", "-f", name, check=False)
        hull("create", "--name", name, BUSYBOX, "cat", "/etc/given")
        file = self.temporary_folder() / "given"
        file.write_text("content\n")
        hull("cp", str(file), f"{name}:/etc/given")
        self.assertEqual(hull("start", "-a", name).out, "content\n")
        image = f"{unique()}:1"
        self.addCleanup(hull, "rmi", image, check=False)
        self.assertRegex(hull("commit", "-c", 'CMD ["cat", "/etc/given"]', name, image).out, r"^sha256:[0-9a-f]{64}\n$")
        self.assertEqual(self.run_in(image=image).out, "content\n")


class DefaultSysctl(PrivateEngineTest):
    def test_every_container_has_it_unless_it_has_its_own(self):
        engine = self.engine(options=["--default-sysctl", "net.core.somaxconn=77", "--default-sysctl", "vm.swappiness=7"])
        engine.import_busybox()
        shown = engine.hull("run", "--rm", "--sysctl", "vm.swappiness=8", BUSYBOX, "cat", "/proc/sys/net/core/somaxconn", "/proc/sys/vm/swappiness")
        self.assertEqual(shown.out, "77\n8\n", shown.err)
