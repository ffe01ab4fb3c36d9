// The end of the layer pipeline: a tar stream becomes a data file and an index in a folder that is
// not published yet. Names are cleaned, whiteouts recognised, limits kept. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/stream.h"
#include "base/write_back.h"
#include "image/layer/index.h"
#include "image/layer/tar_reader.h"
#include "image/store/layer_store.h"

namespace hull::image {

// Appends contents at kContentAlignment boundaries, through a buffer; holes stay holes.
class DataFileWriter {
 public:
  explicit DataFileWriter(const std::string& path);
  uint64_t offset() const { return written_ + buffer_.size(); }
  void append(std::span<const std::byte> bytes);
  void extendTo(uint64_t offset);  // with zeros
  void flush();
  void finish();  // flushes and syncs

 private:
  Fd fd_;
  std::vector<std::byte> buffer_;
  uint64_t written_ = 0;  // where the buffer belongs in the file
  WriteBack write_back_;
};

class LayerUnpacker {
 public:
  // `contents`: as of LayerStore::ingest; null: nothing is digested.
  LayerUnpacker(const std::string& folder, const LayerLimits& limits,
                std::vector<FileContent>* contents = nullptr);
  // Reads `tar` to its end. `must_end`: an archive without its end mark is taken for cut off, which
  // only a digest could tell otherwise.
  void unpack(Source& tar, bool must_end);
  void writeOut();  // what is buffered, and the index's header
  void finish();    // writes out and syncs both files

 private:
  void add(TarReader& tar, TarEntry&& member);
  bool addWhiteout(const std::string& path);
  void addContent(TarReader& tar, Entry& entry);
  void writeEntry(const Entry& entry);
  void flushIndex();

  const LayerLimits& limits_;
  std::vector<FileContent>* contents_;
  DataFileWriter data_;
  Fd index_;
  ByteWriter pending_;
  uint64_t index_bytes_ = 0;
  uint64_t entries_ = 0;
};

}  // namespace hull::image
