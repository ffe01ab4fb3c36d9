#include "daemon/engine/door.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <future>
#include <thread>

namespace hull::engine {
namespace {

struct Ends {
  Ends() {
    FdPair pair = makeSocketPair(SOCK_STREAM);
    engine = std::move(pair.first);
    client = std::move(pair.second);
  }
  bool closed() const {
    char c;
    return recv(client.get(), &c, 1, MSG_DONTWAIT) == 0;
  }
  Fd engine, client;
};

TEST(DoorTest, WhoComesTooEarlyWaits) {
  Door door;
  Ends ends;
  std::promise<Fd> admitted;
  std::thread guest([&] { door.enter(std::move(ends.engine), nullptr); });
  door.open(
      [&](Fd connection, std::shared_ptr<void>) { admitted.set_value(std::move(connection)); });
  EXPECT_TRUE(admitted.get_future().get().valid());
  guest.join();
}

TEST(DoorTest, WhoComesTooLateIsClosedAndWhoWaitsToo) {
  Door door;
  Ends waits, late;
  std::thread guest([&] { door.enter(std::move(waits.engine), nullptr); });
  door.close();
  guest.join();
  EXPECT_TRUE(waits.closed());
  door.open([](Fd, std::shared_ptr<void>) { ADD_FAILURE() << "it is closed for good"; });
  door.enter(std::move(late.engine), nullptr);
  EXPECT_TRUE(late.closed());
}

TEST(DoorTest, TheEnginesSocketIsKnownByItsNames) {
  const std::vector<std::string> sockets{"/run/hull/hulld.sock", "/home/u/.state//engine.sock", ""};
  for (const char* path :
       {"/var/run/docker.sock", "/run/docker.sock", "/run/hull/hulld.sock",
        "/var/run/hull/hulld.sock", "/home/u/.state/engine.sock", "/var/run/../run/docker.sock"}) {
    EXPECT_TRUE(isEngineSocket(path, sockets)) << path;
  }
  for (const char* path : {"/", "/run", "/var/run", "/run/docker.sock.old", "/run/hull",
                           "/docker.sock", "/var/docker.sock", "/run/hull/hulld.sock/x"}) {
    EXPECT_FALSE(isEngineSocket(path, sockets)) << path;
  }
}

}  // namespace
}  // namespace hull::engine
