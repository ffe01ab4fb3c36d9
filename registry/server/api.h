// The distribution API (OCI distribution-spec 1.1) as a function from request to answer. Any
// thread.
#pragma once

#include <memory>
#include <string>

#include "image/types/digest.h"
#include "registry/server/message.h"
#include "registry/server/passwords.h"
#include "registry/server/repositories.h"
#include "registry/server/route.h"
#include "registry/server/uploads.h"

namespace hull::registry {

inline constexpr size_t kMaxServedManifestBytes = size_t{4} << 20;  // the specification's minimum
inline constexpr size_t kMaxPageEntries = 10000;                    // of tags, repositories
inline constexpr size_t kMaxReferrersPageBytes = size_t{3} << 20;   // answers stay below 4 MiB

struct ApiOptions {
  bool read_only = false;
  bool allow_delete = true;
};

class Api {
 public:
  // `passwords` may be null: everybody may do everything. All outlive this.
  Api(RepositoryStore& store, Uploads& uploads, const Passwords* passwords, ApiOptions options)
      : store_(store), uploads_(uploads), passwords_(passwords), options_(options) {}

  // Never throws: what goes wrong is in the answer. The body is read by uploads only.
  Response handle(Request& request);

 private:
  Response dispatch(Request& request);
  void authorize(const Request& request) const;
  void checkMethod(const Request& request, const Route& route) const;

  Response blob(const Request& request, const Route& route);
  Response getBlob(const Request& request, const Route& route, const image::Digest& digest);
  Response startUpload(Request& request, const Route& route);
  Response upload(Request& request, const Route& route);
  Response patchUpload(Request& request, const Route& route);
  Response putUpload(Request& request, const Route& route);

  Response manifest(Request& request, const Route& route);
  Response getManifest(const Request& request, const Route& route);
  Response putManifest(Request& request, const Route& route);
  Response deleteManifest(const Route& route);

  Response tags(const Route& route);
  Response catalog(const Route& route);
  Response referrers(const Route& route);

  RepositoryStore& store_;
  Uploads& uploads_;
  const Passwords* passwords_;
  ApiOptions options_;
};

// A digest in a request: ApiError 400 when malformed.
image::Digest requestedDigest(std::string_view text);
// {"errors": […]} with the code.
Response errorResponse(int status, const char* error_code, const std::string& message,
                       HeaderList headers = {});

}  // namespace hull::registry
