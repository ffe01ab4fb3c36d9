"""hull build: steps that run in VMs, the cache, contexts and errors."""
from harness import BUSYBOX, ROOT, EngineTest, DEBIAN, have_image, hull, unique


class Build(EngineTest):
    def folder(self, dockerfile, **files):
        folder = self.temporary_folder()
        (folder / "Dockerfile").write_text(dockerfile)
        for name, text in files.items():
            path = folder / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    def build(self, folder, *options, check=True):
        name = f"hull-test/{unique()}"
        self.addCleanup(hull, "rmi", "-f", name, check=False)
        result = hull("build", "-t", name, *options, str(folder), check=check)
        return name, result

    def test_steps_run_copy_and_configure(self):
        name, result = self.build(self.folder(
            f"FROM {BUSYBOX}\nARG WHO=nobody\nENV SHIP=hull\nRUN echo \"$SHIP for $WHO on $(uname -r)\" > /made\n"
            "WORKDIR /work\nCOPY --chown=user a.txt sub/ ./\nRUN ls -l /work > /listing && rm /etc/group && mkdir /empty\nUSER user\nCMD [\"sh\", \"-c\", \"id -un; pwd; cat a.txt b.txt /made\"]\n",
            a_dot_txt="A\n", sub__b_dot_txt="B\n"), "--build-arg", "WHO=me")
        self.assertIn("Step 4/9", result.out)
        self.assertIn("Successfully tagged", result.out)
        run = self.run_in(image=name)
        lines = run.out.splitlines()
        self.assertEqual(lines[:4], ["user", "/work", "A", "B"])
        self.assertTrue(lines[4].startswith("hull for me on "), lines)
        self.assertEqual(self.run_in("sh", "-c", "ls /etc/group 2>/dev/null; ls -d /empty; stat -c %U a.txt", image=name).out, "/empty\nuser\n")

    def test_unchanged_steps_are_cached(self):
        folder = self.folder(f"FROM {BUSYBOX}\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /id\n", a=unique())
        first, _ = self.build(folder)
        second, result = self.build(folder)
        self.assertEqual(result.out.count("Using cache"), 2)
        self.assertEqual(hull("inspect", "-f", "{{.Id}}", first).out, hull("inspect", "-f", "{{.Id}}", second).out)
        third, _ = self.build(folder, "--no-cache")
        self.assertNotEqual(hull("inspect", "-f", "{{.Id}}", first).out, hull("inspect", "-f", "{{.Id}}", third).out)

    def test_stages_and_scratch(self):
        name, _ = self.build(self.folder(
            f"FROM {BUSYBOX} AS made\nRUN mkdir /out && echo from a stage > /out/file && ln -s file /out/link\n"
            f"FROM scratch AS mid\nCOPY --from=made /out /data\nFROM {BUSYBOX}\nCOPY --from=mid /data/ /d/\n"))
        self.assertEqual(self.run_in("sh", "-c", "cat /d/link; readlink /d/link", image=name).out, "from a stage\nfile\n")

    def test_the_ignore_file_holds(self):
        _, result = self.build(self.folder(f"FROM {BUSYBOX}\nCOPY secret /s\n", secret="x", _dot_dockerignore="secret\n"), check=False)
        self.assertEqual(result.status, 1)
        self.assertIn('"/secret": not found', result.err)

    def test_a_failing_step_shows_where_and_what(self):
        name, result = self.build(self.folder(f"FROM {BUSYBOX}\nRUN echo last words; exit 9\n"), check=False)
        self.assertEqual(result.status, 1)
        self.assertIn("last words", result.out)
        self.assertIn("Dockerfile:2:5", result.err)
        self.assertIn("non-zero code: 9", result.err)
        self.assertFalse(have_image(name))

    def test_parse_errors_point_at_their_place(self):
        _, result = self.build(self.folder("FROM scratch\n  RNU x\n"), check=False)
        self.assertIn("Dockerfile:2:3: unknown instruction: RNU (did you mean RUN?)", result.err)

    def test_the_dockerfile_may_come_from_standard_input(self):
        name = f"hull-test/{unique()}"
        self.addCleanup(hull, "rmi", "-f", name, check=False)
        folder = self.temporary_folder()
        (folder / "f").write_text("data")
        hull("build", "-t", name, "-f", "-", str(folder), stdin=f"FROM {BUSYBOX}\nCOPY f /f\n")
        self.assertEqual(self.run_in("cat", "/f", image=name).out, "data")

    def test_the_example(self):
        if not have_image(DEBIAN):
            self.skipTest(f"{DEBIAN} is not here")
        name, _ = self.build(ROOT / "examples" / "hello")
        out = self.run_in(image=name).out
        self.assertIn("Ahoy from a machine of its own.", out)
        self.assertIn("I am sailor in /home/sailor", out)
