#include "guest-init/process/output.h"

namespace hull::guest {

void RetainedOutput::append(std::string_view bytes) {
  bytes_.append(bytes);
  end_ += bytes.size();
}

std::string_view RetainedOutput::from(uint64_t position) const {
  return std::string_view(bytes_).substr(dropped_ + static_cast<size_t>(position - begin()));
}

bool RetainedOutput::acknowledge(uint64_t total) {
  if (total > end_) return false;
  if (total <= begin()) return true;
  dropped_ += static_cast<size_t>(total - begin());
  // Erasing moves what is left: worth it only when at least as much goes as stays.
  if (dropped_ >= bytes_.size() - dropped_) {
    bytes_.erase(0, dropped_);
    dropped_ = 0;
  }
  return true;
}

}  // namespace hull::guest
