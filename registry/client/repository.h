// The operations of the distribution API that pull and push are made of, on one repository.
// Any thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "image/types/manifest.h"
#include "registry/client/session.h"

namespace hull::registry {

struct FetchedManifest {
  std::string bytes;
  std::string media_type;
  image::Digest digest;  // verified
};

class Repository {
 public:
  Repository(Session& session, std::string name) : session_(session), name_(std::move(name)) {}

  // `reference`: a tag or a digest. Throws with Docker's words when there is none (`shown` names
  // the image in them).
  FetchedManifest manifest(const std::string& reference, const image::Reference& shown);
  // HEAD: nullopt when the registry does not tell all of it that way.
  std::optional<image::Descriptor> describe(const std::string& reference,
                                            const image::Reference& shown);

  // The blob's bytes, not verified; continues after broken connections.
  std::unique_ptr<Source> open(const image::Descriptor& blob);

  bool hasBlob(const image::Digest& digest);
  // True when the registry took the blob over from `from`; otherwise `upload` is where it goes.
  struct Started {
    bool mounted = false;
    Url upload;
  };
  Started start(const image::Digest& digest, const std::string& from);
  // One whole blob from the start of `file`, which has `bytes`.
  void upload(const image::Digest& digest, const std::string& from, int file, uint64_t bytes,
              const std::function<void(uint64_t)>& sent, bool& mounted);
  void putManifest(const std::string& reference, const std::string& bytes,
                   const std::string& media_type);

 private:
  std::string path(const std::string& rest) const { return "/v2/" + name_ + rest; }

  Session& session_;
  std::string name_;
};

// An error whose words are Docker's own: nothing is put before them.
class DockerError : public Error {
 public:
  using Error::Error;
};

}  // namespace hull::registry
