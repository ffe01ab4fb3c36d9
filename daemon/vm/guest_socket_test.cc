#include "daemon/vm/guest_socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <vector>

#include "base/error.h"
#include "guest-init/protocol/protocol.h"

namespace hull::engine {
namespace {

// Things that one thread leaves and another takes.
template <typename T>
class Box {
 public:
  void put(T thing) {
    const std::lock_guard lock(mutex_);
    things_.push_back(std::move(thing));
    changed_.notify_all();
  }
  T take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !things_.empty(); });
    T thing = std::move(things_.front());
    things_.pop_front();
    return thing;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> things_;
};

class GuestSocketTest : public testing::Test {
 protected:
  struct Served {
    Fd connection;
    std::shared_ptr<void> place;
  };
  void start(size_t connections) {
    socket_ = std::make_unique<GuestSocket>(
        Fd(),
        [this] {
          FdPair pair = makeSocketPair(SOCK_STREAM);
          guest_.put(std::move(pair.first));
          return std::move(pair.second);
        },
        GuestSocket::Limit{connections, "too many"},
        [this](Fd connection, std::shared_ptr<void> place) {
          served_.put({std::move(connection), std::move(place)});
        });
  }
  // Somebody connects in the guest: its end of the stream.
  Fd connect() {
    Fd end = guest_.take();
    writeFull(end.get(), std::string_view(&guest::kConnected, 1));
    return end;
  }
  static std::string heard(const Fd& from) {
    std::string bytes(64, '\0');
    const ssize_t got = recv(from.get(), bytes.data(), bytes.size(), 0);
    return got <= 0 ? "" : bytes.substr(0, static_cast<size_t>(got));  // ended, or reset
  }

  Box<Fd> guest_;
  Box<Served> served_;
  std::unique_ptr<GuestSocket> socket_;
};

TEST_F(GuestSocketTest, EachConnectionIsHandedOnWithoutItsFirstByte) {
  start(8);
  for (int i = 0; i < 4; ++i) {
    const Fd guest = connect();
    writeFull(guest.get(), "hello");
    const Served served = served_.take();
    EXPECT_EQ(heard(served.connection), "hello");
    writeFull(served.connection.get(), "world");
    EXPECT_EQ(heard(guest), "world");
  }
}

TEST_F(GuestSocketTest, WhoIsBeyondTheLimitIsToldAndOthersGoOn) {
  start(2);
  std::vector<Fd> guests;
  std::vector<Served> served;
  for (int i = 0; i < 2; ++i) {
    guests.push_back(connect());
    served.push_back(served_.take());
  }
  for (int i = 0; i < 100; ++i) {
    const Fd refused = connect();
    writeFull(refused.get(), "what it wanted");
    EXPECT_EQ(heard(refused), "too many");
    EXPECT_EQ(heard(refused), "");
  }
  writeFull(guests[0].get(), "still here");
  EXPECT_EQ(heard(served[0].connection), "still here");
  served.pop_back();
  connect();
  EXPECT_TRUE(served_.take().place) << "a place is free again";
}

TEST_F(GuestSocketTest, WhatSaysAnythingElseIsNotPassedOn) {
  start(2);
  {
    const Fd liar = guest_.take();
    writeFull(liar.get(), "GET / HTTP/1.1\r\n");
    EXPECT_EQ(heard(liar), "");
  }
  guest_.take().reset();  // nor one that ends
  const Fd good = connect();
  writeFull(good.get(), "good");
  EXPECT_EQ(heard(served_.take().connection), "good");
}

TEST_F(GuestSocketTest, AStreamThatCannotBeHadIsTriedAgain) {
  Box<int> tries;
  int count = 0;
  socket_ = std::make_unique<GuestSocket>(
      Fd(),
      [&]() -> Fd {
        tries.put(++count);
        if (count == 1) throw Error(ErrorKind::kUnavailable, "not yet");
        FdPair pair = makeSocketPair(SOCK_STREAM);
        guest_.put(std::move(pair.first));
        return std::move(pair.second);
      },
      GuestSocket::Limit{1, ""},
      [this](Fd connection, std::shared_ptr<void> place) {
        served_.put({std::move(connection), std::move(place)});
      });
  EXPECT_EQ(tries.take(), 1);
  EXPECT_EQ(tries.take(), 2);
  const Fd connected = connect();
  EXPECT_TRUE(served_.take().connection);
  socket_.reset();  // before what it uses
}

TEST_F(GuestSocketTest, ItsEndLeavesConnectionsAlone) {
  start(2);
  const Fd guest = connect();
  const Served served = served_.take();
  const Fd waiting = guest_.take();
  socket_.reset();
  EXPECT_EQ(heard(waiting), "");
  writeFull(guest.get(), "on");
  EXPECT_EQ(heard(served.connection), "on");
}

}  // namespace
}  // namespace hull::engine
