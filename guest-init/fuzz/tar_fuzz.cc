// Reading any bytes as tar ends with entries or an Error; what was read and written again reads
// the same.

#include <array>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "guest-init/archive/tar.h"

namespace {

using namespace hull;
using namespace hull::guest;

// Copies the archive; the number of its entries.
size_t rewrite(std::string_view input, std::string& output) {
  StringSource source(input);
  TarReader reader(source);
  StringSink sink;
  TarWriter writer(sink);
  std::array<std::byte, 4096> buffer;
  size_t entries = 0;
  while (const auto entry = reader.next()) {
    ++entries;
    if (entry->path.size() > kMaxTarPathBytes || entry->xattrs.size() > kMaxEntryXattrs) {
      std::abort();
    }
    if (entry->size > input.size()) return 0;  // truncated: the content read below would throw
    writer.add(*entry);
    while (const size_t got = reader.content(buffer)) writer.content(std::span(buffer).first(got));
  }
  writer.finish();
  output = std::move(sink.text);
  return entries;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string once;
  std::string twice;
  size_t entries = 0;
  try {
    entries = rewrite(std::string_view(reinterpret_cast<const char*>(data), size), once);
  } catch (const Error&) {
    return 0;
  }
  if (entries == 0) return 0;
  // No Error is allowed here: our own archives are readable.
  if (rewrite(once, twice) != entries || once != twice) std::abort();
  return 0;
}
