#include "base/event_loop.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <string>
#include <thread>

namespace hull {
namespace {

using std::chrono::milliseconds;

TEST(EventLoop, RunsAHandlerWhenItsDescriptorIsReadable) {
  EventLoop loop;
  FdPair pipe = makePipe();
  bool ran = false;
  loop.add(pipe.first.get(), EPOLLIN, [&](uint32_t events) {
    EXPECT_TRUE(events & EPOLLIN);
    ran = true;
    loop.stop();
  });
  writeFull(pipe.second.get(), "x");
  loop.run();
  EXPECT_TRUE(ran);
}

TEST(EventLoop, AHandlerMayRemoveItself) {
  EventLoop loop;
  FdPair pipe = makePipe();
  int runs = 0;
  loop.add(pipe.first.get(), EPOLLIN, [&](uint32_t) {
    ++runs;
    loop.remove(pipe.first.get());
  });
  writeFull(pipe.second.get(), "x");
  loop.runOnce(milliseconds(1000));
  loop.runOnce(milliseconds(0));
  EXPECT_EQ(runs, 1);
}

TEST(EventLoop, AReusedDescriptorNumberDoesNotGetTheOldEvent) {
  EventLoop loop;
  FdPair first = makePipe(), second = makePipe();
  writeFull(first.second.get(), "x");
  writeFull(second.second.get(), "x");
  int wrong = 0;
  const auto replaceOther = [&](Fd& other) {
    const int number = other.get();
    loop.remove(number);
    ASSERT_GE(dup2(first.first.get(), number), 0);
    loop.add(number, EPOLLIN, [&](uint32_t) { ++wrong; });
  };
  bool replaced = false;
  const auto handler = [&](Fd& other) {
    return [&](uint32_t) {
      if (!std::exchange(replaced, true)) replaceOther(other);
    };
  };
  loop.add(first.first.get(), EPOLLIN, handler(second.first));
  loop.add(second.first.get(), EPOLLIN, handler(first.first));
  loop.runOnce(milliseconds(1000));
  EXPECT_TRUE(replaced);
  EXPECT_EQ(wrong, 0);
}

TEST(EventLoop, TimersRunInOrderOfTheirTime) {
  EventLoop loop;
  std::string order;
  loop.after(milliseconds(20), [&] {
    order += "b";
    loop.stop();
  });
  loop.after(milliseconds(1), [&] { order += "a"; });
  const auto cancelled = loop.after(milliseconds(2), [&] { order += "!"; });
  loop.cancel(cancelled);
  loop.run();
  EXPECT_EQ(order, "ab");
}

TEST(EventLoop, PostedWorkRunsOnTheLoopsThread) {
  EventLoop loop;
  std::thread::id ran_on;
  std::thread other([&] {
    loop.post([&] {
      ran_on = std::this_thread::get_id();
      loop.stop();
    });
  });
  loop.run();
  other.join();
  EXPECT_EQ(ran_on, std::this_thread::get_id());
}

}  // namespace
}  // namespace hull
