#include "base/fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"

namespace hull {
namespace {

TEST(Fd, ClosesOnDestructionAndMovesOwnership) {
  int number;
  {
    Fd fd = openFile("/dev/null", O_RDONLY);
    number = fd.get();
    const Fd moved = std::move(fd);
    EXPECT_FALSE(fd.valid());
    EXPECT_EQ(moved.get(), number);
  }
  EXPECT_EQ(fcntl(number, F_GETFD), -1);
}

TEST(Fd, OpenFileNamesThePathAndTheCause) {
  try {
    openFile("/no/such/file", O_RDONLY);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
    EXPECT_STREQ(error.what(), "open /no/such/file: No such file or directory");
  }
}

TEST(Fd, UnixSocketsWorkWithPathsOfAnyLength) {
  const TemporaryDirectory folder("hull-fd-test");
  std::string deep = folder.path();
  for (int i = 0; i < 5; ++i) deep += "/" + std::string(60, 'd');
  makeDirectories(deep);
  const std::string path = deep + "/socket";
  const Fd listener = listenUnix(path, 0600);
  struct stat info;
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const Fd client = connectUnix(path);
  const Fd served(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  writeFull(client.get(), "hello");
  std::array<std::byte, 5> got;
  EXPECT_EQ(readFull(served.get(), got), 5u);
}

TEST(Fd, PassesDescriptorsOverASocket) {
  const FdPair sockets = makeSocketPair(SOCK_STREAM);
  const FdPair pipe = makePipe();
  const int passed[] = {pipe.second.get()};
  sendWithFds(sockets.first.get(), asBytes("m"), passed);
  std::array<std::byte, 8> bytes;
  const ReceivedFds received = receiveWithFds(sockets.second.get(), bytes);
  ASSERT_EQ(received.bytes, 1u);
  ASSERT_EQ(received.fds.size(), 1u);
  EXPECT_TRUE(fcntl(received.fds[0].get(), F_GETFD) & FD_CLOEXEC);
  writeFull(received.fds[0].get(), "through");
  EXPECT_EQ(readSome(pipe.first.get(), bytes), 7u);
}

}  // namespace
}  // namespace hull
