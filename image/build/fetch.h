// What ADD and contexts take from elsewhere: files over HTTP and trees of git repositories, both as
// tars for the layer reader. Runs on the host; addresses and what comes from them are untrusted.
// Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/stream.h"
#include "image/build/git_address.h"

namespace hull::build {

inline constexpr uint64_t kMaxDownloadBytes = uint64_t{64} << 30;
inline constexpr long kMaxRedirects = 10;
inline constexpr long kConnectTimeoutSeconds = 30;
inline constexpr long kStallTimeoutSeconds = 60;  // this long without a byte ends a download

bool isUrl(std::string_view text);  // http:// or https://

struct Download {
  Fd file;  // nameless, positioned anywhere
  uint64_t size = 0;
  std::string name;                      // the last part of the address's path; may be empty
  std::optional<int64_t> last_modified;  // seconds, from the answer
  std::string digest;                    // "sha256:…"
};

// `folder` is where the nameless file is made. Throws kNotFound (404), kUnavailable, kTooLarge,
// kCancelled.
Download download(const std::string& url, const std::string& folder,
                  const std::function<bool()>& cancelled);

struct GitOptions {
  bool keep_git_directory = false;
  std::string protocols = "https:http:git:ssh";  // GIT_ALLOW_PROTOCOL
};

// A fetched commit in a folder of its own, which goes with the object.
class GitCheckout {
 public:
  // Throws kNotFound for an unknown reference, kUnavailable naming what git said.
  GitCheckout(const GitAddress& address, const GitOptions& options, const std::string& folder,
              const std::function<bool()>& cancelled);
  ~GitCheckout();
  GitCheckout(const GitCheckout&) = delete;
  GitCheckout& operator=(const GitCheckout&) = delete;

  const std::string& commit() const;  // 40 hex digits
  // The tree as a tar, submodules in their places; its times are the commit's.
  void writeTar(Sink& out) const;
  // The repository itself as a tar with the entries below ".git".
  void writeGitDirectory(Sink& out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hull::build
