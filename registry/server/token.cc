#include "registry/server/token.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/error.h"
#include "base/file.h"
#include "base/random.h"

namespace hull::registry {

using Json = nlohmann::json;

namespace {

constexpr size_t kMaxKeyFileBytes = size_t{1} << 20;
constexpr size_t kEs256NumberBytes = 32;  // of r and of s (RFC 7518 §3.4)
constexpr int kMinRsaBits = 2048;

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using Bio = std::unique_ptr<BIO, Deleter<BIO_free>>;
using Context = std::unique_ptr<EVP_MD_CTX, Deleter<EVP_MD_CTX_free>>;
using Signature = std::unique_ptr<ECDSA_SIG, Deleter<ECDSA_SIG_free>>;
using Certificate = std::unique_ptr<X509, Deleter<X509_free>>;

const unsigned char* bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

Bio memory(std::string_view text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// One "-----BEGIN …" block after another; empty at the end.
std::string_view nextBlock(std::string_view& pem) {
  const size_t begin = pem.find("-----BEGIN ");
  if (begin == std::string_view::npos) return {};
  const size_t end = pem.find("-----END ", begin);
  const size_t close = end == std::string_view::npos ? end : pem.find('\n', end);
  const std::string_view block = pem.substr(begin, close - begin);
  pem.remove_prefix(close == std::string_view::npos ? pem.size() : close);
  return block;
}

Key readKey(std::string_view block) {
  if (block.find("CERTIFICATE") != std::string_view::npos) {
    const Certificate certificate(
        PEM_read_bio_X509(memory(block).get(), nullptr, nullptr, nullptr));
    return Key(certificate ? X509_get_pubkey(certificate.get()) : nullptr);
  }
  if (block.find("PRIVATE KEY") != std::string_view::npos) {
    return Key(PEM_read_bio_PrivateKey(memory(block).get(), nullptr, nullptr, nullptr));
  }
  return Key(PEM_read_bio_PUBKEY(memory(block).get(), nullptr, nullptr, nullptr));
}

// RFC 7518 writes r and s one after the other, OpenSSL wants DER.
std::string derSignature(std::string_view raw) {
  if (raw.size() != 2 * kEs256NumberBytes) return {};
  const Signature signature(ECDSA_SIG_new());
  BIGNUM* r = BN_bin2bn(bytes(raw), kEs256NumberBytes, nullptr);
  BIGNUM* s = BN_bin2bn(bytes(raw) + kEs256NumberBytes, kEs256NumberBytes, nullptr);
  if (!signature || !r || !s || ECDSA_SIG_set0(signature.get(), r, s) != 1) return {};
  unsigned char* der = nullptr;
  const int size = i2d_ECDSA_SIG(signature.get(), &der);
  if (size <= 0) return {};
  std::string result(reinterpret_cast<char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  return result;
}

bool verifies(EVP_PKEY* key, std::string_view algorithm, std::string_view text,
              std::string_view signature) {
  std::string wanted(signature);
  // The key decides what it may sign, not the token (no algorithm confusion).
  if (algorithm == "ES256") {
    if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC || EVP_PKEY_get_bits(key) != 256) return false;
    wanted = derSignature(signature);
  } else if (algorithm == "RS256") {
    if (EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA || EVP_PKEY_get_bits(key) < kMinRsaBits) {
      return false;
    }
  } else {
    return false;
  }
  const Context context(EVP_MD_CTX_new());
  const bool good =
      context && EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr, key) == 1 &&
      EVP_DigestVerify(context.get(), bytes(wanted), wanted.size(), bytes(text), text.size()) == 1;
  ERR_clear_error();
  return good;
}

std::string textOf(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

// NumericDate may have a fraction (RFC 7519 §2); nothing absurd becomes an int64_t.
std::optional<int64_t> timeOf(const Json& object, const char* key, int64_t absent) {
  const auto it = object.find(key);
  if (it == object.end()) return absent;
  if (!it->is_number()) return std::nullopt;
  const double value = it->get<double>();
  if (!(value >= 0 && value < 1e15)) return std::nullopt;
  return static_cast<int64_t>(value);
}

bool namesAudience(const Json& claims, std::string_view audience) {
  const auto it = claims.find("aud");
  if (it == claims.end()) return false;
  if (it->is_string()) return it->get<std::string>() == audience;
  return it->is_array() && std::any_of(it->begin(), it->end(), [&](const Json& one) {
           return one.is_string() && one.get<std::string>() == audience;
         });
}

std::optional<std::vector<Grant>> grantsOf(const Json& claims) {
  std::vector<Grant> grants;
  const auto access = claims.find("access");
  if (access == claims.end() || access->is_null()) return grants;
  if (!access->is_array() || access->size() > kMaxTokenGrants) return std::nullopt;
  for (const Json& entry : *access) {
    if (!entry.is_object()) return std::nullopt;
    Grant grant{textOf(entry, "type"), textOf(entry, "name"), {}};
    const auto actions = entry.find("actions");
    if (actions != entry.end() && actions->is_array()) {
      for (const Json& action : *actions) {
        if (action.is_string()) grant.actions.push_back(action.get<std::string>());
      }
    }
    grants.push_back(std::move(grant));
  }
  return grants;
}

std::string base64Url(std::string_view text) {
  std::string encoded = base64Encode(text, Base64Alphabet::kUrl);
  while (encoded.ends_with('=')) encoded.pop_back();  // RFC 7515 §2
  return encoded;
}

std::string rawSignature(std::string_view der) {
  const unsigned char* at = bytes(der);
  const Signature signature(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(der.size())));
  std::string raw(2 * kEs256NumberBytes, '\0');
  auto* out = reinterpret_cast<unsigned char*>(raw.data());
  const int size = static_cast<int>(kEs256NumberBytes);
  if (!signature || BN_bn2binpad(ECDSA_SIG_get0_r(signature.get()), out, size) != size ||
      BN_bn2binpad(ECDSA_SIG_get0_s(signature.get()), out + kEs256NumberBytes, size) != size) {
    throw Error(ErrorKind::kInternal, "sign token: OpenSSL gave no signature");
  }
  return raw;
}

std::string makeKey() {
  const Key key(EVP_EC_gen("P-256"));
  const Bio out(BIO_new(BIO_s_mem()));
  if (!key || !out ||
      PEM_write_bio_PrivateKey(out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    throw Error(ErrorKind::kInternal, "make the token key: OpenSSL failed");
  }
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

}  // namespace

std::optional<TokenClaims> parseClaims(std::string_view json, std::string_view audience) {
  const Json document = Json::parse(json.begin(), json.end(), nullptr, false);
  if (!document.is_object() || !namesAudience(document, audience)) return std::nullopt;
  TokenClaims claims;
  claims.issuer = textOf(document, "iss");
  claims.subject = textOf(document, "sub");
  claims.audience = std::string(audience);
  const auto not_before = timeOf(document, "nbf", 0);
  const auto expires = timeOf(document, "exp", -1);
  auto grants = grantsOf(document);
  if (!not_before || !expires || *expires < 0 || !grants) return std::nullopt;
  claims.not_before = *not_before;
  claims.expires = *expires;
  claims.grants = std::move(*grants);
  return claims;
}

std::optional<Grant> parseScope(std::string_view scope) {
  const size_t first = scope.find(':');
  const size_t last = scope.rfind(':');
  if (first == std::string_view::npos || first == last) return std::nullopt;
  Grant grant{std::string(scope.substr(0, first)),
              std::string(scope.substr(first + 1, last - first - 1)),
              {}};
  if (const size_t klass = grant.type.find('('); klass != std::string::npos) {
    grant.type.resize(klass);  // "repository(plugin)"
  }
  std::string_view actions = scope.substr(last + 1);
  while (!actions.empty() && grant.actions.size() < kMaxTokenGrants) {
    const std::string_view action = actions.substr(0, actions.find(','));
    if (!action.empty()) grant.actions.emplace_back(action);
    actions.remove_prefix(std::min(action.size() + 1, actions.size()));
  }
  return grant;
}

struct TokenKeys::State {
  std::vector<Key> keys;
};

TokenKeys::TokenKeys(std::string_view pem) : state_(std::make_unique<State>()) {
  for (std::string_view block = nextBlock(pem); !block.empty(); block = nextBlock(pem)) {
    if (block.find("EC PARAMETERS") != std::string_view::npos) continue;
    Key key = readKey(block);
    ERR_clear_error();
    if (!key) {
      throw Error(ErrorKind::kInvalidArgument, "read token keys: block " +
                                                   std::to_string(state_->keys.size() + 1) +
                                                   " is no public key or certificate");
    }
    state_->keys.push_back(std::move(key));
  }
  if (state_->keys.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "read token keys: there is none (PEM is expected)");
  }
}

TokenKeys::~TokenKeys() = default;

size_t TokenKeys::size() const {
  return state_->keys.size();
}

std::optional<TokenClaims> TokenKeys::verify(std::string_view token, std::string_view issuer,
                                             std::string_view audience, int64_t now) const {
  const size_t first = token.find('.');
  const size_t last = token.rfind('.');
  if (token.size() > kMaxTokenTextBytes || first == std::string_view::npos || first == last) {
    return std::nullopt;
  }
  const auto header = base64Decode(token.substr(0, first));
  const auto body = base64Decode(token.substr(first + 1, last - first - 1));
  const auto signature = base64Decode(token.substr(last + 1));
  if (!header || !body || !signature) return std::nullopt;
  const Json head = Json::parse(*header, nullptr, false);
  // Extensions that must be understood (RFC 7515 §4.1.11): we know none.
  if (!head.is_object() || head.contains("crit")) return std::nullopt;
  const std::string algorithm = textOf(head, "alg");
  const bool good = std::any_of(state_->keys.begin(), state_->keys.end(), [&](const Key& key) {
    return verifies(key.get(), algorithm, token.substr(0, last), *signature);
  });
  if (!good) return std::nullopt;
  auto claims = parseClaims(*body, audience);
  if (!claims || (!issuer.empty() && claims->issuer != issuer)) return std::nullopt;
  if (claims->not_before > now + kClockSkew.count()) return std::nullopt;
  if (claims->expires <= now - kClockSkew.count()) return std::nullopt;
  return claims;
}

struct TokenSigner::State {
  Key key;
};

TokenSigner::TokenSigner(const std::string& path) : state_(std::make_unique<State>()) {
  if (!fileExists(path)) writeFileAtomic(path, makeKey(), 0600);
  pem_ = readFile(path, kMaxKeyFileBytes);
  state_->key = readKey(pem_);
  if (!state_->key || EVP_PKEY_get_base_id(state_->key.get()) != EVP_PKEY_EC ||
      EVP_PKEY_get_bits(state_->key.get()) != 256) {
    throw Error(ErrorKind::kInvalidArgument, "read the token key " + path +
                                                 ": it is no P-256 private key (remove it: a new "
                                                 "one is made)");
  }
}

TokenSigner::~TokenSigner() = default;

std::string TokenSigner::sign(const TokenClaims& claims) const {
  Json access = Json::array();
  for (const Grant& grant : claims.grants) {
    access.push_back({{"type", grant.type}, {"name", grant.name}, {"actions", grant.actions}});
  }
  const Json body = {{"iss", claims.issuer},     {"sub", claims.subject},
                     {"aud", claims.audience},   {"nbf", claims.not_before},
                     {"iat", claims.not_before}, {"exp", claims.expires},
                     {"jti", randomHex(16)},     {"access", access}};
  const std::string text = base64Url(R"({"alg":"ES256","typ":"JWT"})") + "." +
                           base64Url(body.dump(-1, ' ', false, Json::error_handler_t::replace));
  const Context context(EVP_MD_CTX_new());
  size_t size = 0;
  std::string der;
  if (context &&
      EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, state_->key.get()) == 1 &&
      EVP_DigestSign(context.get(), nullptr, &size, bytes(text), text.size()) == 1) {
    der.resize(size);
    if (EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(der.data()), &size,
                       bytes(text), text.size()) != 1) {
      size = 0;
    }
  }
  der.resize(size);
  return text + "." + base64Url(rawSignature(der));
}

}  // namespace hull::registry
