#include "base/error.h"

#include <cerrno>
#include <cstring>

namespace hull {

std::string_view toString(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInvalidArgument:
      return "invalid argument";
    case ErrorKind::kNotFound:
      return "not found";
    case ErrorKind::kConflict:
      return "conflict";
    case ErrorKind::kUnauthorized:
      return "unauthorized";
    case ErrorKind::kForbidden:
      return "forbidden";
    case ErrorKind::kNotSupported:
      return "not supported";
    case ErrorKind::kUnavailable:
      return "unavailable";
    case ErrorKind::kCorrupt:
      return "corrupt";
    case ErrorKind::kTooLarge:
      return "too large";
    case ErrorKind::kNoSpace:
      return "no space";
    case ErrorKind::kCancelled:
      return "cancelled";
    case ErrorKind::kTimeout:
      return "timeout";
    case ErrorKind::kInternal:
      return "internal";
  }
  return "unknown";
}

Error Error::within(std::string_view context) const {
  return Error(kind_, std::string(context) + ": " + what());
}

ErrorKind kindOfErrno(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return ErrorKind::kNotFound;
    case EEXIST:
    case EBUSY:
    case EADDRINUSE:
      return ErrorKind::kConflict;
    case EACCES:
    case EPERM:
      return ErrorKind::kForbidden;
    case ENOSPC:
    case EDQUOT:
      return ErrorKind::kNoSpace;
    case EINVAL:
    case ENAMETOOLONG:
      return ErrorKind::kInvalidArgument;
    case EOPNOTSUPP:
    case ENOSYS:
      return ErrorKind::kNotSupported;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EHOSTUNREACH:
    case ENETUNREACH:
      return ErrorKind::kUnavailable;
    case ETIMEDOUT:
      return ErrorKind::kTimeout;
    case ECANCELED:
      return ErrorKind::kCancelled;
    default:
      return ErrorKind::kInternal;
  }
}

Error sysError(const std::string& message, int error_number) {
  char text[128];
  const char* cause = strerror_r(error_number, text, sizeof text);  // GNU form, thread-safe
  return Error(kindOfErrno(error_number), message + ": " + cause);
}

Error sysError(const std::string& message) {
  return sysError(message, errno);
}

}  // namespace hull
