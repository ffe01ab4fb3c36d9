// Layers, archives and exports over hull-init's sockets, compared with what tar(1) makes of them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/subprocess.h"
#include "guest-init/system/files.h"
#include "guest-init/testing/machine.h"

namespace hull::guest {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using Kind = OpenStream::Kind;

class TreesTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = TestMachine::whyNot(); !reason.empty()) GTEST_SKIP() << reason;
    machine = std::make_unique<TestMachine>();
    machine->create();
  }
  void sh(const std::string& script) {
    const auto outcome = machine->run(script);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  std::string output(const std::string& script) { return machine->run(script).out; }
  static std::string list(const std::string& tar) { return checkCommand({"tar", "-t"}, tar); }
  std::string pack(const std::string& script) {
    checkCommand({"sh", "-ec",
                  "mkdir -p " + folder.path() + "/t; cd " + folder.path() + "/t; " + script +
                      "; tar --xattrs -cf ../t.tar *"});
    return readFile(folder.path() + "/t.tar");
  }
  TemporaryDirectory folder{"hull-trees-test"};
  std::unique_ptr<TestMachine> machine;
};

TEST_F(TreesTest, AnIdleContainerHasNoChanges) {
  sh("true");
  EXPECT_EQ(list(machine->readTree(Kind::kReadChanges)), "");
}

TEST_F(TreesTest, ChangesAreALayerInOciForm) {
  sh("mkdir -p /new/dir; echo hi > /new/dir/file; ln /new/dir/file /new/dir/hard; ln -s file "
     "/new/soft; mkfifo /new/pipe; mknod /new/null c 1 3; rm /full/file; rm -r /full/sub; "
     "mkdir /full/sub; echo other > /full/sub/fresh");
  const std::string tar = machine->readTree(Kind::kReadChanges);
  EXPECT_EQ(list(tar),
            "full/\nfull/.wh.file\nfull/sub/\nfull/sub/.wh..wh..opq\nfull/sub/fresh\nnew/\n"
            "new/dir/\nnew/dir/file\nnew/dir/hard\nnew/null\nnew/pipe\nnew/soft\n");
  const std::string details = checkCommand({"tar", "-tv"}, tar);
  EXPECT_THAT(details, HasSubstr("new/dir/hard link to new/dir/file"));
  EXPECT_THAT(details, HasSubstr("new/soft -> file"));
  EXPECT_THAT(details, HasSubstr("1,3"));
  EXPECT_EQ(machine->readTree(Kind::kReadChanges), tar) << "the same tree gives the same bytes";
}

TEST_F(TreesTest, SealedLayersStackAndAreReadApart) {
  sh("echo one > /one; echo both > /both");
  EXPECT_EQ(machine->ask<LayerSealed>(SealLayer{}).layer, 1u);
  sh("echo two > /two; rm /both; cat /one");
  EXPECT_EQ(machine->ask<LayerSealed>(SealLayer{}).layer, 2u);
  EXPECT_EQ(output("ls -d /one /two /both"), "/one\n/two\n");
  EXPECT_EQ(list(machine->readTree(Kind::kReadLayer, "", 1)), "both\none\n");
  EXPECT_EQ(list(machine->readTree(Kind::kReadLayer, "", 2)), ".wh.both\ntwo\n");
  Message reply;
  machine->open(Kind::kReadLayer, "", 3, "", &reply);
  EXPECT_EQ(std::get<Failure>(reply).code, FailureCode::kNotFound);
}

TEST_F(TreesTest, SealingARunningContainerIsRefused) {
  machine->ask<ProcessStarted>(machine->shell("exec sleep 1000"));
  const Message reply = machine->request(SealLayer{});
  EXPECT_EQ(std::get<Failure>(reply).code, FailureCode::kConflict);
}

TEST_F(TreesTest, AWrittenLayerGoesOnTopAndHidesWhatItSays) {
  sh("echo run > /from-run");
  const std::string tar = pack(
      "mkdir -p full etc; echo layer > full/added; touch full/.wh.file; echo x > etc/new; "
      "mkdir -p opaque; rm -rf etc-not");
  EXPECT_EQ(machine->writeTree(Kind::kWriteLayer, tar), "");
  EXPECT_EQ(output("ls /full; cat /full/added /etc/new /from-run; test -e /full/file || echo gone"),
            "added\nsub\nlayer\nx\nrun\ngone\n");
  EXPECT_EQ(list(machine->readTree(Kind::kReadLayer, "", 1)), "from-run\n");
  sh("echo after > /after");
  EXPECT_EQ(list(machine->readTree(Kind::kReadChanges)), "after\n");
}

TEST_F(TreesTest, AParentThatALayerLeavesOutKeepsItsAttributes) {
  checkCommand(
      {"sh", "-ec", "cd " + folder.path() + "; mkdir -p etc; echo x > etc/y; tar -cf t.tar etc/y"});
  EXPECT_EQ(machine->writeTree(Kind::kWriteLayer, readFile(folder.path() + "/t.tar")), "");
  EXPECT_EQ(output("stat -c %a /etc; cat /etc/y"), "751\nx\n");
}

TEST_F(TreesTest, ABrokenLayerLeavesNothing) {
  std::string tar = pack("echo a > a; echo b > b");
  tar[600] = 'x';
  tar[1024 + 5] ^= 1;
  EXPECT_THAT(machine->writeTree(Kind::kWriteLayer, tar), HasSubstr("checksum"));
  EXPECT_EQ(output("ls -d /a /b"), "");
  EXPECT_EQ(machine->writeTree(Kind::kWriteLayer, pack("echo a > a")), "");
  EXPECT_EQ(output("cat /a"), "a\n");
}

TEST_F(TreesTest, CopyOutNamesThingsAsDockerDoes) {
  EXPECT_EQ(list(machine->readTree(Kind::kReadArchive, "/full")),
            "full/\nfull/file\nfull/sub/\nfull/sub/deep\n");
  EXPECT_EQ(list(machine->readTree(Kind::kReadArchive, "/full/.")),
            "./\n./file\n./sub/\n./sub/deep\n");
  EXPECT_EQ(list(machine->readTree(Kind::kReadArchive, "full/file")), "file\n");
  sh("ln -s /full /link");
  EXPECT_EQ(list(machine->readTree(Kind::kReadArchive, "/link")), "link\n");
  EXPECT_EQ(list(machine->readTree(Kind::kReadArchive, "/link/sub")), "sub/\nsub/deep\n");
  Message reply;
  machine->open(Kind::kReadArchive, "", 0, "/no/such", &reply);
  EXPECT_EQ(std::get<Failure>(reply).code, FailureCode::kNotFound);
}

TEST_F(TreesTest, CopyInStaysInsideTheContainer) {
  sh("mkdir /in; ln -s / /in/out; ln -s ../../../../tmp /in/up");
  EXPECT_EQ(
      machine->writeTree(Kind::kWriteArchive, pack("mkdir d; echo x > d/f; chmod 640 d/f"), "/in"),
      "");
  EXPECT_EQ(output("cat /in/d/f; stat -c %a /in/d/f"), "x\n640\n");
  // Through symlinks of the container: still in its root.
  EXPECT_EQ(machine->writeTree(Kind::kWriteArchive, pack("echo y > f2"), "/in/up"), "");
  EXPECT_EQ(output("cat /tmp/f2"), "y\n");
  const std::string evil = checkCommand(
      {"sh", "-c", "cd " + folder.path() + "; echo e > e; tar -cP --transform 's,^e,../../e,' e"});
  EXPECT_THAT(machine->writeTree(Kind::kWriteArchive, evil, "/in"),
              HasSubstr("leads out of the tree"));
  Message reply;
  machine->open(Kind::kWriteArchive, "", 0, "/full/file", &reply);
  EXPECT_TRUE(std::holds_alternative<Failure>(reply));
}

TEST_F(TreesTest, CopyWorksWhileTheContainerRuns) {
  machine->ask<ProcessStarted>(
      machine->shell("while ! test -e /tmp/t; do sleep 0.01; done; cat /tmp/t"));
  EXPECT_EQ(machine->writeTree(Kind::kWriteArchive, pack("echo arrived > t"), "/tmp"), "");
  EXPECT_EQ(machine->finish("main").out, "arrived\n");
}

TEST_F(TreesTest, ExportIsTheWholeTree) {
  sh("echo new > /new");
  const std::string names = list(machine->readTree(Kind::kExport));
  EXPECT_THAT(names, HasSubstr("\nfull/sub/deep\n"));
  EXPECT_THAT(names, HasSubstr("\nnew\n"));
  EXPECT_THAT(names, HasSubstr("bin/busybox\n"));
}

TEST_F(TreesTest, AttributesSurviveTheWayOutAndIn) {
  sh("echo x > /f; chown 70000:3000000 /f; chmod 4755 /f; touch -d '2001-02-03 04:05:06' /f; "
     "mkdir -p /" +
     std::string(120, 'd') + "/" + std::string(120, 'e'));
  const std::string tar = machine->readTree(Kind::kReadChanges);
  // How wide the columns are depends on the other entries' fractions of a second.
  EXPECT_THAT(checkCommand({"tar", "--numeric-owner", "--full-time", "-tv"}, tar),
              testing::ContainsRegex("-rwsr-xr-x 70000/3000000 +2 2001-02-03 04:05:06 +f\n"));
  machine->ask(RemoveContainer{});
  auto options = machine->containerOptions();
  options.writable_disk.clear();
  machine->ask(options);
  EXPECT_EQ(machine->writeTree(Kind::kWriteLayer, tar), "");
  EXPECT_EQ(output("stat -c '%u:%g %a %Y' /f; ls -d /ddd*/eee* | wc -c"),
            "70000:3000000 4755 981173106\n243\n");
}

StepMount stepMount(StepMount::Kind kind, const std::string& source, const std::string& at) {
  StepMount mount;
  mount.kind = kind;
  mount.source = source;
  mount.destination = at;
  return mount;
}

TEST_F(TreesTest, MountsOfAStepAreSeenByItAloneAndLeaveNothingInTheLayer) {
  EXPECT_EQ(machine->writeTree(Kind::kWriteTree, pack("mkdir d; echo inside > d/f"), "tree-1"), "");
  StepMount secret = stepMount(StepMount::Kind::kFile, "hush", "/run/secrets/s");
  secret.file = true;
  secret.uid = 1000;
  secret.mode = 0400;
  StepMount tree = stepMount(StepMount::Kind::kTree, "tree-1", "/new/tree");
  tree.read_only = true;
  StepMount file = stepMount(StepMount::Kind::kTree, "tree-1/d/f", "/full/file");
  file.file = true;
  StepMount scratch = stepMount(StepMount::Kind::kTmpfs, "", "/scratch");
  scratch.options = "size=65536";
  auto step = machine->shell(
      "cat /run/secrets/s; stat -c ' %u %a' /run/secrets/s; cat /new/tree/d/f /full/file; "
      "echo x 2>/dev/null > /new/tree/y || echo read-only; "
      "head -c 100000 /dev/zero > /scratch/z 2>/dev/null || echo full; echo kept > /kept");
  step.mounts = {secret, tree, file, scratch};
  const auto outcome = machine->run(step);
  EXPECT_EQ(outcome.out, "hush 1000 400\ninside\ninside\nread-only\nfull\n") << outcome.err;
  EXPECT_EQ(output("ls /run/secrets /new /scratch 2>/dev/null; cat /full/file"),
            "from the image\n");
  EXPECT_EQ(list(machine->readTree(Kind::kReadChanges)), "kept\n");
}

TEST_F(TreesTest, AnAgentsSocketIsTheStepsAloneAndInNoLayer) {
  const Fd host = machine->open(Kind::kConnection, "", 0, "agent-1");
  Message refused;
  machine->open(Kind::kConnection, "", 0, "../agent", &refused);
  EXPECT_EQ(std::get<Failure>(refused).code, FailureCode::kInvalid);
  StepMount agent = stepMount(StepMount::Kind::kSocket, "agent-1", "/run/buildkit/ssh_agent.0");
  agent.file = true;
  agent.uid = 1000;
  agent.gid = 1001;
  agent.mode = 0600;
  auto step = machine->shell("stat -c '%F %u %g %a' /run/buildkit/ssh_agent.0; ls /run/buildkit");
  step.mounts = {agent};
  EXPECT_EQ(machine->run(step).out, "socket 1000 1001 600\nssh_agent.0\n");
  EXPECT_EQ(output("ls -A /run/buildkit 2>/dev/null; true"), "");
  EXPECT_EQ(list(machine->readTree(Kind::kReadChanges)), "");
}

TEST_F(TreesTest, ADiskIsFilledOnceAndAllOrNothing) {
  const std::string device = machine->containerOptions().writable_disk;
  const StepMount cache = stepMount(StepMount::Kind::kDisk, device, "/cache");
  const auto shown = [&] {
    auto step =
        machine->shell("cd /cache; stat -c '%a %u' .; find . | sort; cat d/f; echo more >> d/f");
    step.mounts = {cache};
    return machine->run(step).out;
  };
  std::string broken = pack("mkdir -p data/d; echo lost > data/d/f");
  broken.resize(broken.find("lost"));
  EXPECT_NE(machine->writeTree(Kind::kSeedDisk, broken, device), "");
  EXPECT_THAT(machine->writeTree(Kind::kSeedDisk, pack("rm -r data; mkdir other"), device),
              HasSubstr("no directory \"data\""));
  const std::string good =
      pack("rm -r other; mkdir -p data/d; echo first > data/d/f; chmod 751 data; chown -R 7 data");
  EXPECT_EQ(machine->writeTree(Kind::kSeedDisk, good, device), "");
  EXPECT_EQ(shown(), "751 7\n.\n./d\n./d/f\nfirst\n");
  EXPECT_EQ(machine->writeTree(Kind::kSeedDisk, pack("echo second > data/d/f"), device), "");
  EXPECT_THAT(shown(), HasSubstr("first\nmore\n")) << "what is there stays";
  for (const char* name : {"", "/etc", "../dev/vda", "/dev/none"}) {
    Message reply;
    machine->open(Kind::kSeedDisk, "", 0, name, &reply);
    EXPECT_TRUE(std::holds_alternative<Failure>(reply)) << name;
  }
}

TEST_F(TreesTest, TreesHavePlainNewNames) {
  const std::string tar = pack("echo a > a");
  EXPECT_EQ(machine->writeTree(Kind::kWriteTree, tar, "t"), "");
  Message reply;
  for (const char* name : {"t", "", "../x", "a/b", "UP"}) {
    machine->open(Kind::kWriteTree, "", 0, name, &reply);
    EXPECT_TRUE(std::holds_alternative<Failure>(reply)) << name;
  }
}

}  // namespace
}  // namespace hull::guest
