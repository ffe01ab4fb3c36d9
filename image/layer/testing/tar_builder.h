// Tars made member by member for tests: well formed by default, wrong where a test wants it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hull::image::testing {

struct TarMember {
  std::string name;
  char type = '0';
  std::string content = {};
  std::string link = {};
  uint32_t mode = 0644;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t mtime = 1;
  uint32_t major = 0;
  uint32_t minor = 0;
  int64_t size = -1;  // what the header says; -1: the truth
};

class TarBuilder {
 public:
  TarBuilder& add(const TarMember& member);
  TarBuilder& file(const std::string& name, const std::string& content);
  TarBuilder& directory(const std::string& name) { return add({name, '5', "", "", 0755}); }
  TarBuilder& symlink(const std::string& name, const std::string& to) {
    return add({name, '2', "", to, 0777});
  }
  TarBuilder& hardlink(const std::string& name, const std::string& to) {
    return add({name, '1', "", to});
  }
  TarBuilder& pax(const std::vector<std::pair<std::string, std::string>>& records);
  TarBuilder& raw(std::string_view bytes);
  std::string end() const;  // with the two zero blocks
  const std::string& unfinished() const { return bytes_; }

 private:
  std::string bytes_;
};

std::string header(const TarMember& member);  // 512 bytes, checksum right
void fixChecksum(std::string& header_block);
std::string gzip(std::string_view bytes, int level = 6);
std::string zstd(std::string_view bytes);

}  // namespace hull::image::testing
