#include "base/hash.h"

#include <openssl/evp.h>

#include <array>

#include "base/error.h"
#include "base/hex.h"

namespace hull {

struct Hasher::Context {
  EVP_MD_CTX* md = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(md); }
};

Hasher::Hasher(HashAlgorithm algorithm) : context_(std::make_unique<Context>()) {
  const EVP_MD* type = algorithm == HashAlgorithm::kSha256 ? EVP_sha256() : EVP_sha512();
  if (!context_->md || EVP_DigestInit_ex(context_->md, type, nullptr) != 1) {
    throw Error(ErrorKind::kInternal, "start message digest: OpenSSL refused");
  }
}

Hasher::Hasher(Hasher&&) noexcept = default;
Hasher::~Hasher() = default;

void Hasher::update(std::span<const std::byte> bytes) {
  EVP_DigestUpdate(context_->md, bytes.data(), bytes.size());
}

void Hasher::update(std::string_view text) {
  update(std::as_bytes(std::span(text.data(), text.size())));
}

std::string Hasher::finishHex() {
  std::array<std::byte, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  EVP_DigestFinal_ex(context_->md, reinterpret_cast<unsigned char*>(digest.data()), &size);
  return toHex(std::span(digest).first(size));
}

Sha256 Hasher::finishSha256() {
  Sha256 digest{};
  if (EVP_MD_CTX_get_size(context_->md) != static_cast<int>(digest.size()))
    throw Error(ErrorKind::kInternal, "finish message digest: not SHA-256");
  EVP_DigestFinal_ex(context_->md, reinterpret_cast<unsigned char*>(digest.data()), nullptr);
  return digest;
}

std::string sha256Hex(std::string_view text) {
  Hasher hasher;
  hasher.update(text);
  return hasher.finishHex();
}

}  // namespace hull
