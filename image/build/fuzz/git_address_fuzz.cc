// Addresses of git repositories: whatever the text, nothing of the result is an option of git's or
// of ssh's.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "image/build/git_address.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const std::string module =
        hull::build::submoduleRepository("https://host/group/repo.git", text);
    require(!module.empty() && !module.starts_with('-'));
    require(module.find("://-") == std::string::npos || !module.starts_with("ssh"));
    require(module.find_first_of(" \t\n") == std::string::npos);
    require(!text.starts_with("../") || module.starts_with("https://host/"));
  } catch (const hull::Error&) {
  }
  try {
    const auto address = hull::build::parseGitAddress(text);
    if (!address) return 0;
    require(!address->repository.empty() && !address->repository.starts_with('-'));
    require(address->repository.find("://-") == std::string::npos ||
            !address->repository.starts_with("ssh"));
    require(address->repository.find_first_of(" \t\n") == std::string::npos);
    require(!address->reference.starts_with('-'));
    require(address->reference.find("..") == std::string::npos);
    require(!address->folder.starts_with('/') && !address->folder.starts_with("../"));
  } catch (const hull::Error&) {
  }
  return 0;
}
