// An HTTP request and its answer as the registry's handlers see them: no sockets, so that handlers
// are plain functions. One connection's thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/stream.h"

namespace hull::registry {

using HeaderList = std::vector<std::pair<std::string, std::string>>;

struct Request {
  std::string method;
  std::string target;
  std::map<std::string, std::string, std::less<>> headers;  // names in lower case
  std::optional<uint64_t> content_length;                   // absent when chunked
  Source* body = nullptr;                                   // never null in a handler
  std::string peer;                                         // address:port
  bool tls = false;
  std::string user;  // set by the handler, for the log

  std::string_view header(std::string_view name) const {
    const auto it = headers.find(name);
    return it == headers.end() ? std::string_view() : std::string_view(it->second);
  }
};

struct Response {
  int status = 200;
  HeaderList headers;
  std::string body;
  struct File {
    Fd fd;
    uint64_t offset = 0;
    uint64_t length = 0;
  };
  std::optional<File> file;  // instead of `body`
  // Instead of both: bytes that are still on their way, `stream_length` of them. What it throws
  // ends the connection in the middle.
  std::shared_ptr<Source> stream;
  uint64_t stream_length = 0;
};

// The error codes of the distribution specification, as written in its JSON.
namespace code {
inline constexpr const char* kBlobUnknown = "BLOB_UNKNOWN";
inline constexpr const char* kBlobUploadInvalid = "BLOB_UPLOAD_INVALID";
inline constexpr const char* kBlobUploadUnknown = "BLOB_UPLOAD_UNKNOWN";
inline constexpr const char* kDigestInvalid = "DIGEST_INVALID";
inline constexpr const char* kManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN";
inline constexpr const char* kManifestInvalid = "MANIFEST_INVALID";
inline constexpr const char* kManifestUnknown = "MANIFEST_UNKNOWN";
inline constexpr const char* kNameInvalid = "NAME_INVALID";
inline constexpr const char* kNameUnknown = "NAME_UNKNOWN";
inline constexpr const char* kSizeInvalid = "SIZE_INVALID";
inline constexpr const char* kUnauthorized = "UNAUTHORIZED";
inline constexpr const char* kDenied = "DENIED";
inline constexpr const char* kUnsupported = "UNSUPPORTED";
inline constexpr const char* kTooManyRequests = "TOOMANYREQUESTS";
// Not of the specification: our own failures.
inline constexpr const char* kUnknown = "UNKNOWN";
}  // namespace code

// What a handler throws to answer with an error.
class ApiError : public std::runtime_error {
 public:
  ApiError(int status, const char* error_code, const std::string& message, HeaderList headers = {})
      : std::runtime_error(message),
        status_(status),
        code_(error_code),
        headers_(std::move(headers)) {}
  int status() const { return status_; }
  const char* code() const { return code_; }
  const HeaderList& headers() const { return headers_; }

 private:
  int status_;
  const char* code_;
  HeaderList headers_;
};

}  // namespace hull::registry
