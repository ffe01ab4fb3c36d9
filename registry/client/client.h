// The registry client: pulls images into a store and pushes them out of it (OCI Distribution 1.1,
// Docker Hub's token protocol). Digests are verified while streaming; credentials go to the host
// they are meant for and no other. Any thread; one call is one transfer.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "image/store/image_store.h"
#include "image/types/reference.h"

namespace hull::registry {

struct Credentials {
  std::string username;
  std::string password;
  std::string identity_token;  // OAuth2 refresh token; used instead of the password
  bool empty() const { return username.empty() && identity_token.empty(); }
};

struct ClientOptions {
  // Registries besides loopback addresses that may be spoken to over plain HTTP ("host:port").
  std::vector<std::string> insecure_registries;
  // The address that a registry named localhost or 127.0.0.1 is reached at; empty: as written.
  // Inside `hull machine` the user's localhost is another host.
  std::string loopback_address;
  std::string ca_bundle;  // extra CA certificates (PEM file); empty: the system's
  std::function<bool()> cancelled;
};

struct PullResult {
  image::Image image;
  bool up_to_date = false;  // nothing had to be fetched: "Image is up to date"
};

// Pulls `name` for `platform`, records it under its tag and its digest.
PullResult pull(image::ImageStore& store, const image::Reference& name,
                const image::Platform& platform, const Credentials& credentials,
                const ClientOptions& options, const image::ProgressFunction& progress);

struct PushResult {
  image::Digest manifest;
  uint64_t manifest_bytes = 0;
};

// Pushes the image that `name` names in the store. Progress in Docker's words ("Preparing",
// "Pushing", "Layer already exists", "Pushed").
PushResult push(image::ImageStore& store, const image::Reference& name,
                const Credentials& credentials, const ClientOptions& options,
                const image::ProgressFunction& progress);

// Throws kUnauthorized when the registry does not accept the credentials; returns the identity
// token when it gave one.
std::string login(const std::string& registry, const Credentials& credentials,
                  const ClientOptions& options);

// The manifest's descriptor at the registry (docker's distribution/{name}/json).
image::Descriptor resolve(const image::Reference& name, const Credentials& credentials,
                          const ClientOptions& options);

// X-Registry-Auth of the Docker API: base64url JSON; "" and "{}" are no credentials. Untrusted.
Credentials parseAuthHeader(std::string_view header);

}  // namespace hull::registry
