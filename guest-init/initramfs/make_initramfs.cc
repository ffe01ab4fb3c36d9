// Packs one program as /init of an initramfs: a "newc" cpio archive (kernel documentation,
// Documentation/driver-api/early-userspace/buffer-format.rst) whose bytes depend on the program
// alone. Refuses to make one that is too large. Build tool.
//
//   make-initramfs PROGRAM OUTPUT

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

namespace {

constexpr size_t kMaxInitramfsBytes = size_t{1} << 20;
constexpr uint32_t kDirectory = 040755;
constexpr uint32_t kProgram = 0100755;
constexpr uint32_t kCharacterDevice = 020600;

class Cpio {
 public:
  void add(const std::string& name, uint32_t mode, const std::string& contents,
           uint32_t device_major = 0, uint32_t device_minor = 0) {
    const uint32_t links = 1;
    const uint32_t fields[] = {++inode_,
                               mode,
                               0,
                               0,
                               links,
                               0,
                               static_cast<uint32_t>(contents.size()),
                               0,
                               0,
                               device_major,
                               device_minor,
                               static_cast<uint32_t>(name.size() + 1),
                               0};
    bytes_ += "070701";
    for (const uint32_t field : fields) {
      char text[9];
      std::snprintf(text, sizeof text, "%08X", field);
      bytes_ += text;
    }
    bytes_ += name;
    bytes_ += '\0';
    align();
    bytes_ += contents;
    align();
  }

  const std::string& finish() {
    add("TRAILER!!!", 0, "");
    return bytes_;
  }

 private:
  void align() { bytes_.resize((bytes_.size() + 3) & ~size_t{3}); }

  std::string bytes_;
  uint32_t inode_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: make-initramfs PROGRAM OUTPUT\n");
    return 2;
  }
  std::ifstream in(argv[1], std::ios::binary);
  const std::string program{std::istreambuf_iterator<char>(in), {}};
  if (program.empty()) {
    std::fprintf(stderr, "make-initramfs: read %s: empty or unreadable\n", argv[1]);
    return 1;
  }
  Cpio cpio;
  cpio.add("dev", kDirectory, "");
  cpio.add("dev/console", kCharacterDevice, "", 5, 1);
  cpio.add("init", kProgram, program);
  const std::string& bytes = cpio.finish();
  if (bytes.size() > kMaxInitramfsBytes) {
    std::fprintf(stderr, "make-initramfs: %zu bytes, at most %zu are allowed\n", bytes.size(),
                 kMaxInitramfsBytes);
    return 1;
  }
  std::ofstream out(argv[2], std::ios::binary);
  out << bytes;
  out.close();
  return out ? 0 : 1;
}
