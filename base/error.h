// Errors of the control plane. One exception type, one closed set of kinds: the engine maps kinds
// to HTTP status, the client to exit codes, in one table each. The VMM's data path does not throw.
// No state, any thread.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace hull {

enum class ErrorKind {
  kInvalidArgument,  // the request itself is wrong; repeating it cannot help
  kNotFound,         // the named object does not exist
  kConflict,         // the object's state forbids it (name in use, container running, port taken)
  kUnauthorized,     // credentials missing or refused
  kForbidden,        // known but not allowed
  kNotSupported,     // valid, but not something Hull does
  kUnavailable,      // a peer (engine, registry, guest) could not be reached; retry may help
  kCorrupt,          // data does not match its digest or format
  kTooLarge,         // a named limit was exceeded
  kNoSpace,          // disk or quota full
  kCancelled,        // the caller went away
  kTimeout,          // a peer did not answer in time
  kInternal,         // a bug or an unexpected system failure
};

std::string_view toString(ErrorKind kind);

// `what()` reads "operation object: cause (next step)", lower case, no secrets.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}

  ErrorKind kind() const { return kind_; }

  // A copy whose message is "<context>: <message>": outer frames add what they were doing.
  Error within(std::string_view context) const;

 private:
  ErrorKind kind_;
};

// "<message>: <strerror(errno)>", with the kind derived from the errno (ENOSPC → kNoSpace, …).
Error sysError(const std::string& message, int error_number);
Error sysError(const std::string& message);  // uses errno

ErrorKind kindOfErrno(int error_number);

// Runs `work`, adding `context` to any hull::Error that leaves it.
template <typename Work>
auto inContext(std::string_view context, Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const Error& error) {
    throw error.within(context);
  }
}

}  // namespace hull
