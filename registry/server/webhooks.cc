#include "registry/server/webhooks.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <time.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "registry/client/transfer.h"
#include "registry/server/pattern.h"

namespace hull::registry {

namespace {

constexpr const char* kEventsType = "application/vnd.docker.distribution.events.v2+json";
constexpr std::chrono::milliseconds kFirstHookPause{500};
constexpr size_t kMaxHookAnswerBytes = 64 << 10;

bool wants(const WebhookOptions& hook, const Event& event) {
  return matchesPattern(hook.repository, event.repository) &&
         std::find(hook.events.begin(), hook.events.end(), event.action) != hook.events.end();
}

std::string timestampNow() {
  const time_t now = ::time(nullptr);
  tm utc{};
  gmtime_r(&now, &utc);
  char text[40];
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

}  // namespace

std::string eventEnvelope(const Event& event, const std::string& id, const std::string& timestamp) {
  using Json = nlohmann::ordered_json;
  const bool manifest = !event.digest.empty();
  Json target = {{"mediaType", event.media_type},
                 {"size", event.size},
                 {"digest", event.digest},
                 {"length", event.size},
                 {"repository", event.repository}};
  if (manifest) {
    target["url"] = "/v2/" + event.repository + "/manifests/" + event.digest;
  }
  if (!event.tag.empty()) target["tag"] = event.tag;
  const Json one = {{"id", id},
                    {"timestamp", timestamp},
                    {"action", event.action},
                    {"target", target},
                    {"request",
                     {{"id", id},
                      {"addr", event.address},
                      {"host", event.host},
                      {"method", event.method},
                      {"useragent", event.user_agent}}},
                    {"actor", {{"name", event.actor}}},
                    {"source", {{"addr", event.host}, {"instanceID", "hull-registry"}}}};
  return Json({{"events", Json::array({one})}})
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string hmacSha256(std::string_view key, std::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest, &size);
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (unsigned i = 0; i < size; ++i) {
    hex += kDigits[digest[i] >> 4];
    hex += kDigits[digest[i] & 15];
  }
  return hex;
}

Webhooks::Webhooks(Metrics& metrics) : metrics_(metrics), thread_([this] { work(); }) {}

Webhooks::~Webhooks() {
  stopping_ = true;
  {
    const std::lock_guard lock(mutex_);
    queue_.clear();
  }
  changed_.notify_all();
  thread_.join();
}

void Webhooks::publish(const std::vector<WebhookOptions>& hooks, const Event& event) {
  for (const WebhookOptions& hook : hooks) {
    if (!wants(hook, event)) continue;
    const std::lock_guard lock(mutex_);
    if (queue_.size() >= kMaxQueuedEvents) {
      metrics_.add("hull_registry_webhooks_dropped_total",
                   "Events that the queue had no room for.");
      log::warning("webhook " + hook.url + ": the queue is full: an event is dropped");
      continue;
    }
    queue_.push_back({hook, eventEnvelope(event, randomHex(16), timestampNow())});
    changed_.notify_all();
  }
}

void Webhooks::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return queue_.empty() && !busy_; });
}

void Webhooks::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const Delivery delivery = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    deliver(delivery);
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

void Webhooks::deliver(const Delivery& delivery) {
  std::string why;
  for (int number = 0; number < kMaxHookAttempts; ++number) {
    if (number > 0 && !pause(number)) return;
    if (attempt(delivery, why)) {
      metrics_.add("hull_registry_webhooks_sent_total", "Events that a webhook took.");
      return;
    }
  }
  metrics_.add("hull_registry_webhooks_failed_total", "Events that no attempt could deliver.");
  log::warning("webhook " + delivery.hook.url + ": given up: " + why);
}

bool Webhooks::attempt(const Delivery& delivery, std::string& why) const {
  try {
    TransferRequest request;
    request.method = "POST";
    request.url = Url::parse(delivery.hook.url);
    request.body = delivery.body;
    request.headers = {std::string("Content-Type: ") + kEventsType};
    if (!delivery.hook.secret.empty()) {
      request.headers.push_back("X-Hull-Signature-256: sha256=" +
                                hmacSha256(delivery.hook.secret, delivery.body));
    }
    ClientOptions options;
    options.cancelled = [this] { return stopping_.load(); };
    Transfer answer(std::move(request), options);
    const int status = answer.head().status;
    answer.text(kMaxHookAnswerBytes, "answer");
    if (status >= 200 && status < 300) return true;
    why = "it answered " + std::to_string(status);
  } catch (const std::exception& error) {
    why = error.what();
  }
  return false;
}

bool Webhooks::pause(int number) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, kFirstHookPause * (1 << number),
                            [this] { return stopping_.load(); });
}

}  // namespace hull::registry
