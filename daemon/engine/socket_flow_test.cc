// Containers that have the engine's socket, through the whole engine, over machines of local
// processes.
#include <sys/socket.h>

#include <future>

#include "daemon/engine/door.h"
#include "daemon/testing/engine_flow.h"

namespace hull::engine::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr const char* kBind = R"(,"HostConfig":{"Binds":["/var/run/docker.sock:/run/d.sock:ro"]})";

class SocketFlow : public EngineFlow {
 protected:
  // Whoever comes in says "NAME " and gets an echo.
  void serve(const std::string& name) {
    engine_->door().open([name](Fd connection, std::shared_ptr<void> place) {
      std::thread([name, place = std::move(place), connection = std::move(connection)] {
        try {
          writeFull(connection.get(), name + " ");
          char c;
          while (readSome(connection.get(), std::as_writable_bytes(std::span(&c, 1))) == 1) {
            writeFull(connection.get(), std::string_view(&c, 1));
          }
        } catch (const Error&) {
          // The container is gone.
        }
      }).detach();
    });
  }
  Fd connect(const std::string& at = "/run/d.sock", const std::string& name = "box") {
    return connectUnix(containers().get(name)->vmFolder() + "/rootfs" + at);
  }
  static std::string heard(const Fd& from, size_t bytes) {
    std::string text(bytes, '\0');
    text.resize(readFull(from.get(), std::as_writable_bytes(std::span(text))));
    return text;
  }
};

TEST_F(SocketFlow, AContainerThatAsksForItTalksToTheEngine) {
  containers().start(create("sleep 1000", kBind));
  const Fd early = connect();
  serve("engine");
  EXPECT_EQ(heard(early, 7), "engine ") << "who comes before it serves waits";
  writeFull(early.get(), "hello");
  EXPECT_EQ(heard(early, 5), "hello");
  shutdown(early.get(), SHUT_WR);
  EXPECT_EQ(heard(early, 1), "") << "its end is the other's";
}

TEST_F(SocketFlow, TheNextEngineServesItToo) {
  serve("first");
  containers().start(create("sleep 1000", kBind));
  const Fd before = connect();
  EXPECT_EQ(heard(before, 6), "first ");
  engine_.reset();
  const Fd meanwhile = connectUnix(root_.path() + "/containers/" +
                                   std::filesystem::directory_iterator(root_.path() + "/containers")
                                       ->path()
                                       .filename()
                                       .string() +
                                   "/vm/rootfs/run/d.sock");
  boot();
  serve("second");
  EXPECT_EQ(heard(meanwhile, 7), "second ");
  EXPECT_EQ(heard(connect(), 7), "second ");
  EXPECT_TRUE(box()->mounts().at(0).engine);
}

TEST_F(SocketFlow, ItComesWithAnotherContainersMountsAndAgainWithEachStart) {
  serve("engine");
  create("true", kBind);
  const auto other = create("sleep 1000", R"(,"HostConfig":{"VolumesFrom":["box"]})", "other");
  for (int i = 0; i < 2; ++i) {
    containers().start(other);
    EXPECT_EQ(heard(connect("/run/d.sock", "other"), 7), "engine ");
    containers().kill(other, "KILL");
    exitOf(other);
  }
}

TEST_F(SocketFlow, NobodyGetsItUnasked) {
  serve("engine");
  const auto container = create("true", R"(,"HostConfig":{"Privileged":true,
    "Binds":["/run:/run","/:/host","data:/var/run/docker.sock"]})");
  for (const MountPoint& mount : container->mounts()) EXPECT_FALSE(mount.engine) << mount.source;
}

TEST_F(SocketFlow, ASocketOfTheHostIsRefusedWithWhatToDo) {
  const std::string path = root_.path() + "/s";
  const Fd server = listenUnix(path);
  const std::string bind = R"(,"HostConfig":{"Binds":[")" + path + R"(:/s"]})";
  const std::string why = refusal(ErrorKind::kNotSupported, [&] { create("true", bind); });
  EXPECT_THAT(why, HasSubstr("mount " + path + ": a socket of the host cannot be used"));
  EXPECT_THAT(why, HasSubstr("host.docker.internal"));
  // A link to the engine's is the engine's.
  options_.sockets = {path};
  reboot();
  EXPECT_TRUE(create("true", bind)->mounts().at(0).engine);
  const std::string link = root_.path() + "/link";
  std::filesystem::create_symlink(path, link);
  EXPECT_TRUE(
      create("true",
             R"(,"HostConfig":{"Mounts":[{"Type":"bind","Target":"/s","Source":")" + link + "\"}]}",
             "linked")
          ->mounts()
          .at(0)
          .engine);
}

TEST_F(SocketFlow, AnEngineWithoutRootGivesItToo) {
  options_.without_root = true;
  reboot();
  EXPECT_TRUE(create("true", kBind)->mounts().at(0).engine);
  refusal(ErrorKind::kNotSupported,
          [&] { create("true", R"(,"HostConfig":{"Binds":["/tmp:/t"]})", "other"); });
}

TEST_F(SocketFlow, ConnectionsBeyondTheLimitAreToldSo) {
  serve("engine");
  containers().start(create("sleep 1000", kBind));
  std::vector<Fd> clients;
  for (size_t i = 0; i < kMaxEngineConnections; ++i) {
    clients.push_back(connect());
    ASSERT_EQ(heard(clients.back(), 7), "engine ");
  }
  for (int i = 0; i < 500; ++i) {
    EXPECT_THAT(heard(connect(), 4096), HasSubstr("HTTP/1.1 503 ")) << i;
  }
  writeFull(clients[0].get(), "still");
  EXPECT_EQ(heard(clients[0], 5), "still");
}

}  // namespace
}  // namespace hull::engine::testing
