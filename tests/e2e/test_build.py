"""hull build: steps that run in VMs, the cache, contexts and errors."""
from harness import BUSYBOX, ROOT, EngineTest, DEBIAN, have_image, hull, unique

LARGEST_SECRET = 500 * 1024

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
        self.assertRegex(result.err, r"#4 \[stage-0 4/9\] RUN echo")
        self.assertRegex(result.err, r"#4 DONE [0-9.]+s")
        self.assertIn(f"named {name}", result.err)
        run = self.run_in(image=name)
        lines = run.out.splitlines()
        self.assertEqual(lines[:4], ["user", "/work", "A", "B"])
        self.assertTrue(lines[4].startswith("hull for me on "), lines)
        self.assertEqual(self.run_in("sh", "-c", "ls /etc/group 2>/dev/null; ls -d /empty; stat -c %U a.txt", image=name).out, "/empty\nuser\n")

    def test_unchanged_steps_are_cached(self):
        folder = self.folder(f"FROM {BUSYBOX}\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /id\n", a=unique())
        first, _ = self.build(folder)
        second, result = self.build(folder)
        self.assertEqual(result.err.count(" CACHED\n"), 2)
        self.assertEqual(hull("inspect", "-f", "{{.Id}}", first).out, hull("inspect", "-f", "{{.Id}}", second).out)
        third, _ = self.build(folder, "--no-cache")
        self.assertNotEqual(hull("inspect", "-f", "{{.Id}}", first).out, hull("inspect", "-f", "{{.Id}}", third).out)

    def test_a_cache_travels_in_a_folder_a_registry_and_an_image(self):
        registry = self.registry()
        ref = f"{registry.address}/cache/{unique()}:main"
        folder = self.folder(f"FROM {BUSYBOX}\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /id\n", a=unique())
        kept = self.temporary_folder() / "kept"
        first, _ = self.build(folder, "--cache-to", f"type=local,dest={kept},mode=max", "--cache-to", f"type=registry,ref={ref}", "--cache-to", "type=inline")
        image = hull("inspect", "-f", "{{.Id}}", first).out
        self.assertTrue((kept / "oci-layout").exists())
        self.assertNotIn(ref.split(":main")[0], hull("images").out)
        pushed = f"{registry.address}/app/{unique()}:1"
        self.addCleanup(hull, "rmi", "-f", pushed, ref, check=False)
        hull("tag", first, pushed)
        hull("push", pushed)
        for source in (f"type=local,src={kept}", f"type=registry,ref={ref}", pushed):
            hull("rmi", "-f", first, pushed, ref, check=False)
            hull("builder", "prune", "-f")
            again, result = self.build(folder, "--cache-from", source, "--cache-to", "type=inline")
            self.assertEqual(result.err.count(" CACHED\n"), 2, (source, result.err))
            self.assertEqual(hull("inspect", "-f", "{{.Id}}", again).out, image, source)
            first = again
        _, result = self.build(folder, "--cache-from", f"{registry.address}/none:1")
        self.assertIn("built without it", result.err)
        (kept / "stranger").write_text("kept")
        (kept / "oci-layout").unlink()
        _, result = self.build(folder, "--cache-to", f"type=local,dest={kept}", check=False)
        self.assertIn("something else than a cache", result.err)
        self.assertTrue((kept / "stranger").exists())

    def test_any_image_is_a_cache_by_its_history(self):
        folder = self.folder(f"FROM {BUSYBOX}\nENV A=1\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /id\nCMD [\"true\"]\n", a=unique())
        first, _ = self.build(folder)
        layers = hull("inspect", "-f", "{{.RootFS.Layers}}", first).out
        hull("builder", "prune", "-f")
        again, result = self.build(folder, "--cache-from", first)
        self.assertEqual(result.err.count(" CACHED\n"), 2, result.err)
        self.assertEqual(hull("inspect", "-f", "{{.RootFS.Layers}}", again).out, layers)
        (folder / "a").write_text("changed")
        _, result = self.build(folder, "--cache-from", first)
        self.assertEqual(result.err.count(" CACHED\n"), 0, result.err)

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
        self.assertIn("last output:\n  last words", result.err)
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

    def test_mounts_secrets_and_networks_of_steps(self):
        cache = unique("cache")
        folder = self.folder(
            f"FROM {BUSYBOX} AS tools\nRUN echo from-stage > /tool\nFROM {BUSYBOX}\n"
            "RUN --mount=target=/ctx,source=sub --mount=from=tools,source=/tool,target=/t,rw "
            f"--mount=type=cache,id={cache},target=/cache --mount=type=tmpfs,target=/scratch "
            "--mount=type=secret,id=tok --mount=type=secret,id=tok,env=TOK,target=/other --mount=type=secret,id=large "
            "set -e; cat /ctx/b.txt /t; cat /run/secrets/tok | md5sum; stat -c %s /run/secrets/large; [ \"$TOK\" = \"$(cat /other)\" ]; "
            "stat -c %a /run/secrets/tok; echo 1 >> /cache/n; wc -l < /cache/n; ! touch /ctx/x 2>/dev/null; "
            "echo changed > /t; echo x > /scratch/x; mkdir /done\n"
            f"RUN --mount=type=cache,id={cache},target=/again echo 2 >> /again/n; wc -l < /again/n\n"
            "RUN --network=none ls /sys/class/net > /nets\n"
            "RUN <<EOF\n#!/bin/sh\necho by-script $0 > /script\nEOF\n",
            sub__b_dot_txt="B\n")
        secret = unique("secret-value")
        (folder.parent / "tok").write_text(secret)
        (folder.parent / "large").write_text(secret * (LARGEST_SECRET // len(secret)))
        name, result = self.build(folder, "--secret", f"id=tok,src={folder.parent}/tok", "--secret", f"id=large,src={folder.parent}/large",
                                  "--progress", "plain")
        for line in ("B", "from-stage", "400", "1", "2", str((folder.parent / "large").stat().st_size)):
            self.assertRegex(result.err, rf"#\d+ [0-9.]+ {line}\n")
        self.assertNotIn(secret, result.err)
        out = self.run_in("sh", "-c", "ls -d /done; cat /nets /script; ls -A /cache /ctx /scratch /run/secrets /t /again /dev/pipes 2>/dev/null; true",
                          image=name).out
        self.assertEqual(out, "/done\nlo\nby-script /dev/pipes/EOF\n")
        self.assertNotIn(secret, hull("history", "--no-trunc", name).out + hull("inspect", name).out)
        saved = hull("save", name, text=False).out
        self.assertNotIn(secret.encode(), saved)
        du = hull("builder", "du").out
        self.assertIn(cache, du)
        self.assertNotIn(secret, du)

    def test_a_cache_begins_with_the_contents_of_a_stage_and_keeps_its_own(self):
        cache = unique("cache")
        def build(count):
            folder = self.folder(
                f"FROM {BUSYBOX} AS seed\nRUN mkdir -m 751 /s && echo seeded > /s/f && ln -s f /s/l && chown 7:8 /s/f\nFROM {BUSYBOX}\n"
                f"RUN --mount=type=cache,id={cache},from=seed,source=/s,target=/c set -e; stat -c '%a' /c; stat -c '%u:%g' /c/f; cat /c/l; "
                f"echo {count} >> /c/n; wc -l < /c/n\n")
            return self.build(folder, "--progress", "plain")[1].err
        self.assertRegex(build(1), r"751\n(#.*\n)*#\d+ [0-9.]+ 7:8\n(#.*\n)*#\d+ [0-9.]+ seeded\n(#.*\n)*#\d+ [0-9.]+ 1\n")
        self.assertRegex(build(2), r"seeded\n(#.*\n)*#\d+ [0-9.]+ 2\n")
        self.assertIn(cache, hull("builder", "du").out)

    def test_stages_run_in_parallel_and_outputs_are_files(self):
        folder = self.folder(f"FROM {BUSYBOX} AS a\nRUN echo A > /a\nFROM {BUSYBOX} AS b\nRUN echo B > /b\nFROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /d/\n")
        out = self.temporary_folder() / "out"
        hull("build", "-o", out, folder)
        self.assertEqual((out / "a").read_text() + (out / "d" / "b").read_text(), "A\nB\n")
        import io, tarfile
        tar = tarfile.open(fileobj=io.BytesIO(hull("build", "-o", "-", folder, text=False).out))
        self.assertEqual(sorted(tar.getnames()), ["a", "d", "d/b"])

    def test_checks(self):
        folder = self.folder("FROM scratch AS Big\nCMD x\n")
        result = hull("build", "--check", folder, check=False)
        self.assertEqual(result.status, 1)
        self.assertIn("StageNameCasing: Stage name 'Big' should be lowercase (line 1)", result.err)
        self.assertIn("rule/json-args-required/", result.err)

    def test_a_hostile_build_ends_by_itself_and_harms_nothing(self):
        folder = self.folder(f"FROM {BUSYBOX}\nRUN --mount=type=bind,target=/etc/../../../proc/../m true\n"
                             "RUN yes endless | head -c 3000000; i=0; while [ $i -lt 5000 ]; do sleep 1000 & i=$((i+1)); done; exit 7\n")
        _, result = self.build(folder, check=False)
        self.assertIn("can't fork", result.err)  # a stage's processes are bounded: the shell gives up
        self.assertIn("non-zero code: 2", result.err)
        self.assertEqual(self.run_in("echo", "fine").out, "fine\n")

    def test_the_example(self):
        if not have_image(DEBIAN):
            self.skipTest(f"{DEBIAN} is not here")
        name, _ = self.build(ROOT / "examples" / "hello")
        out = self.run_in(image=name).out
        self.assertIn("Ahoy from a machine of its own.", out)
        self.assertIn("I am sailor in /home/sailor", out)
