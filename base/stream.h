// Byte streams. A Source is pulled, a Sink is pushed; layers, archives, contexts and blobs flow
// through them without being held in memory. Errors are exceptions. A stream belongs to one thread
// at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace hull {

inline constexpr size_t kStreamChunkBytes = 256 * 1024;

class Source {
 public:
  virtual ~Source() = default;
  // At least one byte, or 0 at the end.
  virtual size_t read(std::span<std::byte> into) = 0;
};

class Sink {
 public:
  virtual ~Sink() = default;
  virtual void write(std::span<const std::byte> bytes) = 0;  // all of it, or throws
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
};

class FdSource final : public Source {
 public:
  explicit FdSource(int fd) : fd_(fd) {}  // does not own
  size_t read(std::span<std::byte> into) override;

 private:
  int fd_;
};

class FdSink final : public Sink {
 public:
  explicit FdSink(int fd) : fd_(fd) {}  // does not own
  using Sink::write;
  void write(std::span<const std::byte> bytes) override;

 private:
  int fd_;
};

class StringSource final : public Source {
 public:
  explicit StringSource(std::string_view text) : rest_(text) {}  // does not own
  size_t read(std::span<std::byte> into) override;

 private:
  std::string_view rest_;
};

class StringSink final : public Sink {
 public:
  using Sink::write;
  void write(std::span<const std::byte> bytes) override;
  std::string text;
};

class NullSink final : public Sink {
 public:
  using Sink::write;
  void write(std::span<const std::byte>) override {}
};

// At most `limit` bytes of `inner`; then the end.
class LimitedSource final : public Source {
 public:
  LimitedSource(Source& inner, uint64_t limit) : inner_(inner), left_(limit) {}
  size_t read(std::span<std::byte> into) override;
  uint64_t left() const { return left_; }

 private:
  Source& inner_;
  uint64_t left_;
};

// A Sink made of a function.
class FunctionSink final : public Sink {
 public:
  using Function = std::function<void(std::span<const std::byte>)>;
  explicit FunctionSink(Function function) : function_(std::move(function)) {}
  using Sink::write;
  void write(std::span<const std::byte> bytes) override { function_(bytes); }

 private:
  Function function_;
};

// Moves everything; returns the number of bytes.
uint64_t copy(Source& from, Sink& to);

// Everything as a string; throws kTooLarge beyond `limit` bytes, naming `what`.
std::string readAll(Source& from, size_t limit, std::string_view what);

}  // namespace hull
