"""hull run and what a container is: output, exit codes, process settings, limits, network."""
import platform
import socket
import subprocess
import urllib.request

from harness import BUSYBOX, DEBIAN, HULL, EngineTest, free_port, have_image, hull, unique, wait_for


class Output(EngineTest):
    def test_a_container_runs_on_a_kernel_of_its_own(self):
        guest = self.run_in("uname", "-r").out.strip()
        self.assertRegex(guest, r"^\d+\.\d+")
        self.assertNotEqual(guest, platform.release())

    def test_stdout_and_stderr_are_apart(self):
        result = self.run_in("sh", "-c", "echo out; echo err >&2")
        self.assertEqual((result.out, result.err), ("out\n", "err\n"))

    def test_ten_megabytes_arrive_whole(self):
        result = self.run_in("sh", "-c", "yes 0123456789abcdef | head -c 10000000 | tee /tmp/x; md5sum </tmp/x >&2")
        self.assertEqual(len(result.out), 10_000_000)
        import hashlib
        self.assertEqual(hashlib.md5(result.out.encode()).hexdigest(), result.err.split()[0])

    def test_stdin_is_passed_and_its_end_is_seen(self):
        result = self.run_in("sh", "-c", "cat; echo end", options=["-i"], stdin="one\ntwo\n")
        self.assertEqual(result.out, "one\ntwo\nend\n")

    def test_binary_input_is_not_touched(self):
        data = bytes(range(256)) * 4096
        done = subprocess.run([HULL, "run", "--rm", "-i", BUSYBOX, "cat"], input=data, capture_output=True, timeout=240, check=True)
        self.assertEqual(done.stdout, data)

    def test_without_i_stdin_is_empty(self):
        self.assertEqual(self.run_in("sh", "-c", "cat; echo end", stdin="ignored").out, "end\n")

    def test_short_lived_output_is_never_lost(self):
        for number in range(5):
            self.assertEqual(self.run_in("echo", str(number)).out, f"{number}\n")

    def test_a_terminal_has_a_size_and_carriage_returns(self):
        command = f"stty rows 33 cols 99; {HULL} run --rm -it {BUSYBOX} sh -c 'tty; stty size'"
        done = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, timeout=240, stdin=subprocess.DEVNULL, check=False)
        self.assertIn(b"/dev/pts/0\r\n", done.stdout)
        self.assertIn(b"33 99\r\n", done.stdout)


class ExitCodes(EngineTest):
    def status(self, *args):
        return hull("run", "--rm", *args, check=False)

    def test_the_programs_own_status_is_passed_on(self):
        for code in (0, 1, 42, 255):
            self.assertEqual(self.status(BUSYBOX, "sh", "-c", f"exit {code}").status, code)

    def test_death_by_signal_is_128_plus_its_number(self):
        self.assertEqual(self.status(BUSYBOX, "sh", "-c", "sh -c 'kill -SEGV $$'; exit $?").status, 139)

    def test_a_missing_program_is_127(self):
        result = self.status(BUSYBOX, "no-such-program")
        self.assertEqual(result.status, 127)
        self.assertIn("no-such-program", result.err)
        self.assertIn("executable file not found", result.err)

    def test_a_program_that_may_not_run_is_126(self):
        result = self.status(BUSYBOX, "/etc/passwd")
        self.assertEqual(result.status, 126)
        self.assertIn("permission denied", result.err)

    def test_a_missing_image_is_125(self):
        result = self.status("localhost:1/no/such:image", "true")
        self.assertEqual(result.status, 125)
        self.assertIn("localhost:1", result.err)

    def test_a_bad_image_name_is_125(self):
        result = self.status("UPPER", "true")
        self.assertEqual(result.status, 125)
        self.assertIn("UPPER", result.err)

    def test_an_unknown_flag_names_the_nearest(self):
        result = self.status("--interctive", BUSYBOX, "true")
        self.assertEqual(result.status, 125)
        self.assertIn("--interctive", result.err)
        self.assertIn("--interactive", result.err)

    def test_an_unknown_user_says_so(self):
        result = self.status("-u", "nobody-here", BUSYBOX, "true")
        self.assertNotEqual(result.status, 0)
        self.assertIn("nobody-here", result.err)


class Process(EngineTest):
    def test_environment_from_flag_host_and_file(self):
        file = self.temporary_folder() / "env"
        file.write_text("# comment\nFILE=from file\n\nBOTH=file\n")
        result = self.run_in("env", options=["-e", "A=1 2", "-e", "PASSED", "-e", "BOTH=flag", "--env-file", str(file)], env={"PASSED": "through"})
        lines = result.out.splitlines()
        for line in ("A=1 2", "PASSED=through", "FILE=from file", "BOTH=flag", "HOME=/root"):
            self.assertIn(line, lines)

    def test_working_directory_and_user(self):
        self.assertEqual(self.run_in("pwd", options=["-w", "/made/for/it"]).out, "/made/for/it\n")
        self.assertEqual(self.run_in("sh", "-c", "id; echo $HOME", options=["-u", "user"]).out,
                         "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)\n/home/user\n")
        self.assertTrue(self.run_in("id", options=["-u", "5:6"]).out.startswith("uid=5 gid=6"))

    def test_entrypoint_and_hostname(self):
        self.assertEqual(self.run_in("-n", "x", options=["--entrypoint", "echo"]).out, "x")
        self.assertEqual(self.run_in("sh", "-c", "hostname; cat /etc/hostname", options=["--hostname", "ship"]).out, "ship\nship\n")

    def test_the_main_process_is_pid_1_and_alone(self):
        result = self.run_in("sh", "-c", "echo $$; ls -d /proc/[0-9]* | wc -l")
        self.assertEqual(result.out.split()[0], "1")
        self.assertLessEqual(int(result.out.split()[1]), 4)

    def test_memory_and_cpus_are_what_was_asked_for(self):
        result = self.run_in("sh", "-c", "grep -c ^processor /proc/cpuinfo; cat /sys/fs/cgroup/memory.max; grep MemTotal /proc/meminfo",
                             options=["-m", "200m", "--cpus", "2"])
        cpus, limit = result.out.split()[:2]
        self.assertEqual(cpus, "2")
        self.assertEqual(int(limit), 200 << 20)

    def test_more_memory_than_allowed_is_killed(self):
        result = hull("run", "--rm", "-m", "64m", BUSYBOX, "dd", "if=/dev/zero", "of=/dev/null", "bs=90M", "count=1", check=False)
        self.assertEqual(result.status, 137, result)

    def test_the_root_file_system_is_writable_and_thrown_away(self):
        self.assertEqual(self.run_in("sh", "-c", "echo x > /etc/new; rm /etc/group; cat /etc/new; ls /etc/group || true").out, "x\n")
        self.assertEqual(self.run_in("sh", "-c", "ls /etc/group; ls /etc/new 2>/dev/null || true").out, "/etc/group\n")

    def test_a_read_only_root(self):
        result = hull("run", "--rm", "--read-only", BUSYBOX, "sh", "-c", "echo x > /x", check=False)
        self.assertNotEqual(result.status, 0)
        self.assertIn("Read-only file system", result.err)

    def test_device_nodes_are_for_everyone(self):
        self.assertEqual(self.run_in("sh", "-c", "stat -c %a /dev/null /dev/zero /dev/urandom /dev/tty; echo x > /dev/null && ls -ld /dev/shm | cut -c1-10",
                                     options=["-u", "user"]).out, "666\n666\n666\n666\ndrwxrwxrwt\n")

    def test_capabilities_are_dockers_default(self):
        self.assertIn("CapEff:\t00000000a80425fb", self.run_in("cat", "/proc/1/status").out)
        self.assertIn("CapEff:\t0000000000000000", self.run_in("cat", "/proc/1/status", options=["--cap-drop", "ALL"]).out)


class Background(EngineTest):
    def test_detached_logs_exec_and_stop(self):
        name = self.container("--", "sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; echo warn >&2; while :; do sleep 0.1; done")
        wait_for(lambda: "up" in hull("logs", name).out, "the container writes")
        logs = hull("logs", name)
        self.assertEqual((logs.out, logs.err), ("up\n", "warn\n"))
        self.assertEqual(hull("exec", name, "sh", "-c", "echo in; exit 5", check=False).status, 5)
        self.assertEqual(hull("exec", "-e", "V=w", "-w", "/tmp", "-u", "user", name, "sh", "-c", "echo $V; pwd; id -un").out, "w\n/tmp\nuser\n")
        self.assertEqual(hull("exec", "-i", name, "cat", stdin="fed").out, "fed")
        self.assertEqual(hull("exec", name, "nothing-here", check=False).status, 127)
        self.assertIn("Up ", hull("ps", "--filter", f"name={name}").out)
        hull("stop", name)
        self.assertEqual(hull("inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", name).out, "7 exited\n")
        self.assertIn("bye", hull("logs", name).out)
        self.assertIn("Exited (7)", hull("ps", "-a", "--filter", f"name={name}").out)

    def test_kill_is_137(self):
        name = self.container("--", "sleep", "1000")
        hull("kill", name)
        self.assertEqual(hull("wait", name).out, "137\n")

    def test_stop_of_a_deaf_process_ends_in_kill(self):
        name = self.container("--", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
        hull("stop", "-t", "1", name)
        self.assertEqual(hull("inspect", "-f", "{{.State.ExitCode}}", name).out, "137\n")

    def test_files_stay_over_a_restart(self):
        name = self.container("--", "sh", "-c", "echo run >> /log; cat /log; sleep 1000")
        wait_for(lambda: "run" in hull("logs", name).out, "the first start")
        hull("stop", "-t", "0", name)
        hull("start", name)
        wait_for(lambda: hull("logs", name).out.count("run") == 3, "the second start")

    def test_names_are_unique_and_freed(self):
        name = self.container("--", "true")
        result = hull("run", "--name", name, BUSYBOX, "true", check=False)
        self.assertEqual(result.status, 125)
        self.assertIn(name, result.err)
        self.assertIn("already in use", result.err)
        hull("wait", name)
        hull("rm", name)
        self.assertEqual(hull("run", "--rm", "--name", name, BUSYBOX, "echo", "again").out, "again\n")

    def test_a_running_container_is_removed_only_by_force(self):
        name = self.container("--", "sleep", "1000")
        self.assertEqual(hull("rm", name, check=False).status, 1)
        hull("rm", "-f", name)
        self.assertEqual(hull("inspect", name, check=False).status, 1)

    def test_follow_ends_with_the_container(self):
        name = self.container("--", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done")
        self.assertEqual(hull("logs", "-f", name).out, "1\n2\n3\n")
        self.assertEqual(hull("logs", "--tail", "1", name).out, "3\n")
        self.assertRegex(hull("logs", "-t", name).out, r"^\d{4}-\d\d-\d\dT[\d:.]+Z 1\n")

    def test_ps_formats(self):
        name = self.container("--label", "k=v", "--", "sleep", "1000")
        self.assertEqual(hull("ps", "--filter", "label=k=v", "--filter", f"name={name}", "--format", "{{.Names}} {{.Image}}").out, f"{name} {BUSYBOX}\n")
        short = hull("ps", "-q", "--filter", f"name={name}").out.strip()
        self.assertRegex(short, r"^[0-9a-f]{12}$")
        self.assertEqual(hull("inspect", "-f", "{{.Name}}", short).out, f"/{name}\n")
        self.assertTrue(hull("ps").out.startswith("CONTAINER ID   IMAGE"))

    def test_many_at_once(self):
        children = [subprocess.Popen([HULL, "run", "--rm", BUSYBOX, "echo", str(i)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for i in range(4)]
        for number, child in enumerate(children):
            out, err = child.communicate(timeout=240)
            self.assertEqual((child.returncode, out), (0, f"{number}\n"), err)


class Network(EngineTest):
    def test_a_published_port_is_reached_from_here(self):
        port = free_port()
        self.container("-p", f"127.0.0.1:{port}:80", "--", "sh", "-c", "mkdir /w; echo hello > /w/index.html; httpd -f -p 80 -h /w")

        def fetch():
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
            except OSError:
                return None
        self.assertEqual(wait_for(fetch, "the published port answers"), b"hello\n")

    def test_a_port_in_use_is_said_and_leaves_nothing(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port, name = taken.getsockname()[1], unique()
            self.addCleanup(hull, "rm", "-f", name, check=False)
            result = hull("run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:80", BUSYBOX, "sleep", "9", check=False)
        self.assertEqual(result.status, 125, result)
        self.assertIn(str(port), result.err)
        hull("rm", name)
        self.assertEqual(hull("run", "--rm", "--name", name, BUSYBOX, "true").status, 0)

    def test_containers_reach_each_other_by_address(self):
        server = self.container("--", "sh", "-c", "echo peer > /index.html; httpd -f -p 80 -h /")
        address = hull("inspect", "-f", "{{.NetworkSettings.IPAddress}}", server).out.strip()
        self.assertRegex(address, r"^\d+\.\d+\.\d+\.\d+$")
        self.assertEqual(self.run_in("sh", "-c", f"for i in $(seq 50); do wget -q -O - http://{address}/index.html && break; sleep 0.2; done").out, "peer\n")

    def test_no_network_is_only_loopback(self):
        self.assertEqual(self.run_in("sh", "-c", "ls /sys/class/net", options=["--network", "none"]).out.split(), ["lo"])

    def test_host_network_is_refused_with_a_reason(self):
        result = hull("run", "--rm", "--network", "host", BUSYBOX, "true", check=False)
        self.assertEqual(result.status, 125)
        self.assertIn("host", result.err)

    def test_apt_get_update_works_inside(self):
        if not have_image(DEBIAN):
            self.skipTest(f"{DEBIAN} is not here")
        if subprocess.run(["getent", "hosts", "deb.debian.org"], capture_output=True, check=False).returncode != 0:
            self.skipTest("this host itself does not resolve deb.debian.org")
        result = self.run_in("apt-get", "update", image=DEBIAN, check=False)
        self.assertEqual(result.status, 0, result)
        self.assertIn("Reading package lists", result.out)


