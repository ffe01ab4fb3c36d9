#include "image/layer/testing/tar_builder.h"

#include <zlib.h>
#include <zstd.h>

#include <cstdio>
#include <cstring>

namespace hull::image::testing {

namespace {
constexpr size_t kBlock = 512;

void put(std::string& block, size_t offset, size_t size, std::string_view text) {
  block.replace(offset, std::min(size, text.size()), text.substr(0, size));
}
void putOctal(std::string& block, size_t offset, size_t size, uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "%0*llo", static_cast<int>(size - 1),
                static_cast<unsigned long long>(value));
  put(block, offset, size, text);
}
}  // namespace

void fixChecksum(std::string& block) {
  block.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  char text[9];
  std::snprintf(text, sizeof text, "%06o", sum);
  block.replace(148, 7, std::string(text, 7));
}

std::string header(const TarMember& member) {
  std::string block(kBlock, '\0');
  put(block, 0, 100, member.name);
  putOctal(block, 100, 8, member.mode);
  putOctal(block, 108, 8, member.uid);
  putOctal(block, 116, 8, member.gid);
  putOctal(block, 124, 12,
           member.size >= 0 ? static_cast<uint64_t>(member.size) : member.content.size());
  putOctal(block, 136, 12, member.mtime);
  block[156] = member.type;
  put(block, 157, 100, member.link);
  put(block, 257, 8,
      std::string_view("ustar\0"
                       "00",
                       8));
  putOctal(block, 329, 8, member.major);
  putOctal(block, 337, 8, member.minor);
  fixChecksum(block);
  return block;
}

TarBuilder& TarBuilder::add(const TarMember& member) {
  bytes_ += header(member);
  bytes_ += member.content;
  bytes_.append((kBlock - bytes_.size() % kBlock) % kBlock, '\0');
  return *this;
}

TarBuilder& TarBuilder::file(const std::string& name, const std::string& content) {
  TarMember member;
  member.name = name;
  member.content = content;
  return add(member);
}

TarBuilder& TarBuilder::pax(const std::vector<std::pair<std::string, std::string>>& records) {
  TarMember member;
  member.name = "PaxHeaders/x";
  member.type = 'x';
  for (const auto& [key, value] : records) {
    const size_t rest = key.size() + value.size() + 3;
    size_t length = rest + 1;
    while (std::to_string(length).size() + rest != length) {
      length = std::to_string(length).size() + rest;
    }
    member.content += std::to_string(length) + " " + key + "=" + value + "\n";
  }
  return add(member);
}

TarBuilder& TarBuilder::raw(std::string_view bytes) {
  bytes_ += bytes;
  return *this;
}

std::string TarBuilder::end() const {
  return bytes_ + std::string(2 * kBlock, '\0');
}

std::string gzip(std::string_view bytes, int level) {
  z_stream stream{};
  deflateInit2(&stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, bytes.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd(std::string_view bytes) {
  std::string out(ZSTD_compressBound(bytes.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), 3));
  return out;
}

}  // namespace hull::image::testing
