// Volumes inside the guest: an ext4 disk that outlives containers. (Shared folders need a VMM:
// tests/e2e/test_storage.py.)
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "guest-init/testing/machine.h"

namespace hull::guest {
namespace {

using testing::HasSubstr;
using Kind = OpenStream::Kind;

class GuestVolumesTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = TestMachine::whyNot(); !reason.empty()) GTEST_SKIP() << reason;
    machine = std::make_unique<TestMachine>();
  }
  // The second disk as the volume, the root's changes in memory.
  CreateContainer options(const std::string& destination, const std::string& mount_options = "") {
    CreateContainer options = machine->containerOptions();
    Mount volume;
    volume.kind = Mount::Kind::kDisk;
    volume.source = options.writable_disk;
    volume.destination = destination;
    volume.options = mount_options;
    volume.initialise = true;
    options.mounts = {volume};
    options.writable_disk.clear();
    return options;
  }
  void again(const CreateContainer& options) {
    machine->ask(RemoveContainer{});
    machine->ask(options);
  }
  std::string output(const std::string& script) {
    const auto outcome = machine->run(script);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out;
  }
  std::string startFailure() {
    const Message reply = machine->request(machine->shell("true"));
    const auto* failed = std::get_if<Failure>(&reply);
    return failed ? failed->message : "started";
  }
  std::unique_ptr<TestMachine> machine;
};

TEST_F(GuestVolumesTest, ANewOneGetsTheImagesFilesOnceAndKeepsWhatIsWritten) {
  machine->ask(options("/full"));
  EXPECT_EQ(
      output("ls -A /full; cat /full/file /full/sub/deep; rm -r /full/sub; echo mine > /full/own"),
      "file\nsub\nfrom the image\ndeep\n");
  again(options("/full"));
  EXPECT_EQ(output("ls -A /full; cat /full/own"), "file\nown\nmine\n");
}

TEST_F(GuestVolumesTest, ItsTopHasTheOwnerAndModeOfTheImagesFolder) {
  machine->ask(options("/etc"));
  EXPECT_EQ(output("stat -c '%a %u' /etc; cat /etc/not-a-program"), "751 0\ntext\n");
}

TEST_F(GuestVolumesTest, WhereTheImageHasNothingAPlaceIsMade) {
  machine->ask(options("/new/deep/place"));
  EXPECT_EQ(output("ls -A /new/deep/place; echo x > /new/deep/place/f; cat /new/deep/place/f"),
            "x\n");
  EXPECT_EQ(machine->readTree(Kind::kReadChanges).find("new/deep"), std::string::npos)
      << "in no layer";
}

TEST_F(GuestVolumesTest, ReadOnlyIsReadOnly) {
  machine->ask(options("/full", "ro"));
  EXPECT_THAT(machine->run("cat /full/file; touch /full/x").err, HasSubstr("Read-only"));
}

TEST_F(GuestVolumesTest, APartOfOneIsMountedAndItsLinksStayInside) {
  machine->ask(options("/full"));
  output("ln -s / /full/up; ln -s /sub /full/here");
  CreateContainer part = options("/part");
  part.mounts[0].subpath = "here";
  again(part);
  EXPECT_EQ(output("cat /part/deep"), "deep\n");
  part.mounts[0].subpath = "up";
  again(part);
  EXPECT_EQ(output("ls /part"), "file\nhere\nsub\nup\n");
  part.mounts[0].subpath = "file";
  again(part);
  EXPECT_EQ(output("cat /part"), "from the image\n");
  part.mounts[0].subpath = "none";
  machine->ask(RemoveContainer{});
  const Message reply = machine->request(part);
  ASSERT_TRUE(std::holds_alternative<Failure>(reply));
  EXPECT_THAT(std::get<Failure>(reply).message, HasSubstr("subpath none"));
}

TEST_F(GuestVolumesTest, AFolderDoesNotGoOntoAFile) {
  machine->ask(options("/etc/passwd"));
  EXPECT_THAT(startFailure(), HasSubstr("Are you trying to mount a directory onto a file"));
}

TEST_F(GuestVolumesTest, MountsNestWhateverTheirOrder) {
  CreateContainer nested = options("/full");
  nested.mounts.insert(nested.mounts.begin(), {Mount::Kind::kTmpfs, "", "/full/sub", "size=1m"});
  machine->ask(nested);
  EXPECT_EQ(output("ls -A /full /full/sub"), "/full:\nfile\nsub\n\n/full/sub:\n");
}

TEST_F(GuestVolumesTest, FilesOfAContainerThatDoesNotRunAreReachedToo) {
  machine->ask(options("/full"));
  EXPECT_THAT(machine->readTree(Kind::kReadArchive, "/full/sub/deep"), HasSubstr("deep\n"));
}

// Busybox has no client for it: the host's half is connection_stream_test.cc's and the e2e tests'.
TEST_F(GuestVolumesTest, ASocketIsThereForTheContainerAlone) {
  CreateContainer options = machine->containerOptions();
  for (const char* at : {"/run/docker.sock", "/home/link/new/docker.sock", "/home/link/s"}) {
    options.mounts.push_back({Mount::Kind::kSocket, "engine", at, ""});
  }
  options.mounts.back().options = "ro";
  options.read_only_root = true;
  machine->ask(options);
  const Fd host = machine->open(Kind::kConnection, "", 0, "engine");
  EXPECT_EQ(output("stat -c '%F %u %g %a' /run/docker.sock /full/new/docker.sock /full/s"),
            "socket 0 0 660\nsocket 0 0 660\nsocket 0 0 660\n");
  const std::string changes = machine->readTree(Kind::kReadChanges);
  for (const char* made : {"docker.sock", "full/"}) {
    EXPECT_EQ(changes.find(made), std::string::npos) << made << " is in no layer";
  }
}

TEST_F(GuestVolumesTest, ASocketsNameIsPlainAndItsPlaceIsNoFolder) {
  CreateContainer bad = machine->containerOptions();
  for (const char* name : {"", "../x", "a/b", "."}) {
    bad.mounts = {{Mount::Kind::kSocket, name, "/s", ""}};
    EXPECT_TRUE(std::holds_alternative<Failure>(machine->request(bad))) << name;
  }
  bad.mounts = {{Mount::Kind::kSocket, "engine", "/full", ""}};
  machine->ask(bad);
  EXPECT_THAT(startFailure(), HasSubstr("Are you trying to mount a directory onto a file"));
}

TEST_F(GuestVolumesTest, SocketsAreBounded) {
  machine->create();
  Message reply;
  std::vector<Fd> opened;
  for (int n = 0; n < 64; ++n) {
    opened.push_back(machine->open(Kind::kConnection, "", 0, "s" + std::to_string(n)));
  }
  machine->open(Kind::kConnection, "", 0, "one-more", &reply);
  EXPECT_TRUE(std::holds_alternative<Failure>(reply));
  opened.push_back(machine->open(Kind::kConnection, "", 0, "s0"));
}

TEST_F(GuestVolumesTest, ASourceThatIsNoShareIsRefused) {
  for (const char* source : {"", "../..", "0/..", "a"}) {
    CreateContainer bad = options("/full");
    bad.mounts[0].kind = Mount::Kind::kVirtioFs;
    bad.mounts[0].source = source;
    EXPECT_TRUE(std::holds_alternative<Failure>(machine->request(bad))) << source;
  }
}

}  // namespace
}  // namespace hull::guest
