// The kernel loader: a file of any bytes either loads within memory or is refused.
#include <cstdlib>

#include "base/error.h"
#include "base/fd.h"
#include "vmm/boot/elf_loader.h"
#include "vmm/memory/layout.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull;
  const Fd file = makeMemfd("kernel");
  writeFull(file.get(), {reinterpret_cast<const std::byte*>(data), size});
  vmm::GuestMemory memory(8 * vmm::layout::kMiB);
  try {
    const auto kernel = vmm::loadKernel(file.get(), memory);
    if (kernel.end > memory.lowEnd() || kernel.entry >= kernel.end) abort();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt) abort();
  }
  return 0;
}
