// Output of a process that the host has not acknowledged yet. Positions are totals since the
// process began. Holds at most kRetainedOutputBytes; whoever fills it stops reading the process
// when there is no room, so that the process blocks and nothing is lost. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "guest-init/protocol/protocol.h"

namespace hull::guest {

class RetainedOutput {
 public:
  uint64_t begin() const { return end_ - size(); }  // everything before is acknowledged
  uint64_t end() const { return end_; }
  size_t room() const { return kRetainedOutputBytes - size(); }

  void append(std::string_view bytes);  // at most room() bytes
  // What lies from `position` (begin() ≤ position ≤ end()) to the end.
  std::string_view from(uint64_t position) const;
  // False for a total that was never reached: a confused peer. Going back is ignored.
  bool acknowledge(uint64_t total);

 private:
  size_t size() const { return bytes_.size() - dropped_; }

  std::string bytes_;  // the first dropped_ of them are acknowledged and not yet erased
  size_t dropped_ = 0;
  uint64_t end_ = 0;
};

}  // namespace hull::guest
