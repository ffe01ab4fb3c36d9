// A guest's socket that the engine serves (guest::Mount::Kind::kSocket), as a LocalHost machine has
// it: a real one in the machine's folder. Any thread.
#pragma once

#include <memory>
#include <string>

#include "base/fd.h"

namespace hull::engine::testing {

class LocalSocket {
 public:
  explicit LocalSocket(const std::string& path);
  // As guest::OpenStream::Kind::kConnection: the host's end.
  Fd open() const;

 private:
  std::shared_ptr<Fd> listener_;
};

}  // namespace hull::engine::testing
