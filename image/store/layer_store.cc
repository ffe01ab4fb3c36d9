#include "image/store/layer_store.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <filesystem>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "image/store/abandoned.h"
#include "image/store/chunk_pipe.h"
#include "image/store/codec.h"
#include "image/store/layer_unpacker.h"
#include "image/types/manifest.h"

namespace hull::image {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kRatioFreeBytes = 64 << 20;  // below this much output no ratio is checked

HashAlgorithm algorithmFor(const Digest& expected) {
  return expected.empty() ? HashAlgorithm::kSha256 : expected.algorithm();
}

Digest digestOf(HashAlgorithm algorithm, const std::string& hex) {
  return Digest::parse((algorithm == HashAlgorithm::kSha512 ? "sha512:" : "sha256:") + hex);
}

void checkDigest(const char* what, const Digest& expected, const Digest& actual) {
  if (expected.empty() || expected == actual) return;
  throw Error(ErrorKind::kCorrupt, std::string("verify ") + what + " " + expected.text() +
                                       ": digest mismatch (got " + actual.text() + ")");
}

const char* mediaTypeOf(Compression compression) {
  switch (compression) {
    case Compression::kGzip:
      return media_type::kOciLayerGzip;
    case Compression::kZstd:
      return media_type::kOciLayerZstd;
    case Compression::kNone:
      break;
  }
  return media_type::kOciLayer;
}

// One ingest: the caller's thread reads, digests, stores and inflates the stream, a second one
// digests and unpacks the tar.
class Ingest {
 public:
  Ingest(BlobStore& blobs, const LayerLimits& limits, KeepBlob keep, const Digest& blob,
         const Digest& diff_id)
      : limits_(limits), keep_(keep), expected_blob_(blob), expected_diff_(diff_id) {
    if (keep == KeepBlob::kAsIs) blob_.emplace(blobs.create(algorithmFor(blob)));
    if (keep == KeepBlob::kCompress) {
      blob_.emplace(blobs.create());
      gzip_.emplace(*blob_);
    }
    if (keep != KeepBlob::kAsIs && !blob.empty()) stream_hash_.emplace(blob.algorithm());
  }

  // Unpacks into `folder`; on return both digests are checked and the layer is synced.
  void run(Source& stream, const std::string& folder, std::vector<FileContent>* contents) {
    LayerUnpacker unpacker(folder, limits_, contents);
    std::exception_ptr unpack_error;
    std::string diff_hex;
    std::thread worker([&] {
      try {
        HashingSource tar(pipe_, algorithmFor(expected_diff_));
        unpacker.unpack(tar, expected_diff_.empty() && expected_blob_.empty());
        diff_hex = tar.finishHex();
      } catch (...) {
        unpack_error = std::current_exception();
        pipe_.stopReading();
      }
    });
    std::exception_ptr stream_error;
    try {
      if (pump(stream)) pipe_.close();
    } catch (...) {
      stream_error = std::current_exception();
      pipe_.abandon();
    }
    worker.join();
    if (stream_error) std::rethrow_exception(stream_error);
    if (unpack_error) std::rethrow_exception(unpack_error);
    result_.diff_id = digestOf(algorithmFor(expected_diff_), diff_hex);
    if (stream_hash_) {
      checkDigest("layer", expected_blob_,
                  digestOf(expected_blob_.algorithm(), stream_hash_->finishHex()));
    }
    checkDigest("diff id", expected_diff_, result_.diff_id);
    unpacker.finish();
  }

  // After run: publishes blob and layer, pinned.
  IngestedLayer publish(PendingFolder& folder, const std::string& path, PinSet& pins) {
    const PinSet::Guard entered = pins.enter();
    if (blob_) {
      result_.blob_bytes = blob_->size();
      result_.blob = blob_->commit(keep_ == KeepBlob::kAsIs ? expected_blob_ : Digest());
    }
    folder.publish(path);
    std::vector<Digest> made{result_.diff_id};
    if (!result_.blob.empty()) made.push_back(result_.blob);
    result_.pin = pins.pin(made, entered);
    return result_;
  }
  const Digest& diffId() const { return result_.diff_id; }

 private:
  // False when the unpacking side has given up.
  bool pump(Source& stream) {
    std::vector<std::byte> buffer(kStreamChunkBytes);
    size_t size = readHead(stream, buffer);
    const Compression compression = detectCompression(std::span(buffer).first(size));
    result_.media_type =
        keep_ == KeepBlob::kCompress ? media_type::kOciLayerGzip : mediaTypeOf(compression);
    const auto decoder = makeDecoder(compression);
    while (size > 0) {
      if (!pass(std::span(buffer).first(size), *decoder)) return false;
      size = stream.read(buffer);
    }
    if (!decoder->complete()) {
      throw Error(ErrorKind::kCorrupt, "unpack layer: the compressed data is cut off");
    }
    if (gzip_) gzip_->finish();
    return true;
  }

  static size_t readHead(Source& stream, std::span<std::byte> buffer) {
    size_t size = 0;
    while (size < kCompressionMagicBytes) {
      const size_t got = stream.read(buffer.subspan(size));
      if (got == 0) break;
      size += got;
    }
    return size;
  }

  bool pass(std::span<const std::byte> in, Decoder& decoder) {
    stream_bytes_ += in.size();
    if (stream_bytes_ > limits_.max_blob_bytes) {
      throw Error(ErrorKind::kTooLarge,
                  "layer is larger than " + std::to_string(limits_.max_blob_bytes) + " bytes");
    }
    if (keep_ == KeepBlob::kAsIs) blob_->write(in);
    if (stream_hash_) stream_hash_->update(in);
    for (;;) {
      const std::span<std::byte> room = pipe_.space();
      if (room.empty()) return false;
      const size_t got = decoder.decode(in, room);
      result_.tar_bytes += got;
      checkExpansion();
      if (gzip_) gzip_->write(std::span<const std::byte>(room.first(got)));
      pipe_.filled(got);
      if (got < room.size()) return true;
    }
  }

  void checkExpansion() const {
    if (result_.tar_bytes > limits_.max_unpacked_bytes) {
      throw Error(ErrorKind::kTooLarge, "layer unpacks to more than " +
                                            std::to_string(limits_.max_unpacked_bytes) + " bytes");
    }
    if (result_.tar_bytes > kRatioFreeBytes &&
        result_.tar_bytes / limits_.max_ratio > stream_bytes_) {
      throw Error(ErrorKind::kTooLarge, "layer unpacks to more than " +
                                            std::to_string(limits_.max_ratio) +
                                            " times its size: refused as a bomb");
    }
  }

  const LayerLimits& limits_;
  KeepBlob keep_;
  const Digest& expected_blob_;
  const Digest& expected_diff_;
  std::optional<BlobWriter> blob_;
  std::optional<GzipWriter> gzip_;
  std::optional<Hasher> stream_hash_;
  ChunkPipe pipe_;
  uint64_t stream_bytes_ = 0;
  IngestedLayer result_;
};

}  // namespace

LayerStore::LayerStore(std::string root, BlobStore& blobs, LayerLimits limits)
    : root_(std::move(root)), blobs_(blobs), limits_(limits), pins_(std::make_shared<PinSet>()) {
  makeDirectories(folder());
  sweepAbandoned(root_, folder());
}

std::string LayerStore::folder() const {
  return root_ + "/layers";
}

std::string LayerStore::path(const Digest& diff_id) const {
  if (diff_id.empty()) throw Error(ErrorKind::kInternal, "a layer without a digest was asked for");
  return folder() + "/" + std::string(diff_id.hex());
}

IngestedLayer LayerStore::ingest(Source& stream, KeepBlob keep, const Digest& blob,
                                 const Digest& diff_id, std::vector<FileContent>* contents) {
  PendingFolder pending(root_, folder());
  Ingest ingest(blobs_, limits_, keep, blob, diff_id);
  ingest.run(stream, pending.path(), contents);
  return ingest.publish(pending, path(ingest.diffId()), *pins_);
}

bool LayerStore::has(const Digest& diff_id) const {
  return !diff_id.empty() && fileExists(path(diff_id) + "/index");
}

LayerIndex LayerStore::index(const Digest& diff_id) const {
  if (!has(diff_id)) {
    throw Error(ErrorKind::kNotFound, "layer " + diff_id.text() + " is not in the store");
  }
  return inContext("layer " + diff_id.text(), [&] {
    LayerIndex index =
        decodeLayerIndex(readFile(path(diff_id) + "/index", limits_.max_index_bytes + (1 << 20)));
    if (dataBytes(diff_id) < index.data_bytes) {
      throw Error(ErrorKind::kCorrupt, "its data file is cut short on disk");
    }
    return index;
  });
}

std::string LayerStore::dataPath(const Digest& diff_id) const {
  return path(diff_id) + "/data";
}

uint64_t LayerStore::dataBytes(const Digest& diff_id) const {
  struct stat info;
  if (::stat(dataPath(diff_id).c_str(), &info) == 0) return static_cast<uint64_t>(info.st_size);
  if (errno == ENOENT) {
    throw Error(ErrorKind::kNotFound, "layer " + diff_id.text() + " is not in the store");
  }
  throw sysError("examine layer " + diff_id.text());
}

void LayerStore::remove(const Digest& diff_id) {
  removeFolder(path(diff_id));
}

void LayerStore::forEach(const std::function<void(const Digest& diff_id)>& visit) const {
  constexpr size_t kSha512HexDigits = 128;
  for (const auto& item : fs::directory_iterator(folder())) {
    const std::string name = item.path().filename().string();
    if (name.starts_with('.')) continue;
    Digest digest;
    try {
      digest = Digest::parse((name.size() == kSha512HexDigits ? "sha512:" : "sha256:") + name);
    } catch (const Error&) {
      continue;  // not ours
    }
    visit(digest);
  }
}

}  // namespace hull::image
