#include "daemon/api/json_stream.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "daemon/api/shapes.h"

namespace hull::engine::api {

namespace {
constexpr int64_t kProgressIntervalNs = 100'000'000;
}

JsonStream::JsonStream(Exchange& exchange)
    : exchange_(exchange), cancelled_(std::make_shared<std::atomic<bool>>(false)) {
  watch_ = exchange.onDisconnect([flag = cancelled_] { flag->store(true); });
}

void JsonStream::line(const Json& object) {
  const std::string text = dump(object);
  const std::lock_guard lock(mutex_);
  if (*cancelled_) return;
  try {
    if (!out_) out_ = &exchange_.stream(200, "application/json", {});
    out_->write(text);
  } catch (const Error&) {
    *cancelled_ = true;
  }
}

void JsonStream::status(const std::string& text, const std::string& id) {
  Json object{{"status", text}};
  if (!id.empty()) object["id"] = id;
  line(object);
}

void JsonStream::progress(const image::LayerProgress& progress) {
  const std::string id = progress.blob.shortHex();
  {
    const std::lock_guard lock(mutex_);
    auto& [status, when] = shown_[id];
    const int64_t now = nowNs();
    if (status == progress.status && now - when < kProgressIntervalNs) return;
    status = progress.status;
    when = now;
  }
  Json detail = Json::object();
  if (progress.total > 0 && (progress.status == "Downloading" || progress.status == "Extracting" ||
                             progress.status == "Pushing")) {
    detail = {{"current", progress.current}, {"total", progress.total}};
  }
  line({{"status", progress.status}, {"progressDetail", detail}, {"id", id}});
}

void JsonStream::run(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    bool begun = false;
    {
      const std::lock_guard lock(mutex_);
      begun = out_ != nullptr;
    }
    if (!begun) throw;
    log::debug(std::string("stream: ") + error.what());
    line({{"errorDetail", {{"message", error.what()}}}, {"error", error.what()}});
  }
}

}  // namespace hull::engine::api
