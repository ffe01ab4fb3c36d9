// An HTTP server on a port of the kernel's choice that answers from a map; for tests of downloads.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <thread>

#include "base/fd.h"

namespace hull::build::testing {

class FileServer {
 public:
  struct Answer {
    std::string body;
    std::string headers;  // lines ending in \r\n
    int status = 200;
  };
  explicit FileServer(std::map<std::string, Answer> answers);  // by path
  ~FileServer();

  std::string url(const std::string& path) const;
  int requests() const { return requests_; }

 private:
  void serve();

  const std::map<std::string, Answer> answers_;
  Fd listener_;
  uint16_t port_ = 0;
  std::atomic<int> requests_ = 0;
  std::thread thread_;
};

}  // namespace hull::build::testing
