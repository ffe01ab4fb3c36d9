// The JSON lines of pull, push, load and build: the HTTP answer begins with the first line, so what
// fails before it is a plain HTTP error, and what fails later becomes
// {"errorDetail":{"message":…},"error":…} in the stream. Lines may come from several threads; a
// client that went away makes cancelled() true instead of throwing into a worker.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "daemon/api/http.h"
#include "image/store/image_store.h"

namespace hull::engine::api {

class JsonStream {
 public:
  explicit JsonStream(Exchange& exchange);

  void line(const nlohmann::json& object);
  void status(const std::string& text, const std::string& id = {});
  // A layer's progress in Docker's words; repeated states are thinned out.
  void progress(const image::LayerProgress& progress);
  bool cancelled() const { return *cancelled_; }
  std::function<bool()> cancelFunction() const {
    return [flag = cancelled_] { return flag->load(); };
  }

  // Runs `work`; an error becomes the stream's error line, or is thrown when nothing was sent.
  void run(const std::function<void()>& work);

 private:
  Exchange& exchange_;
  std::mutex mutex_;
  Sink* out_ = nullptr;
  std::shared_ptr<std::atomic<bool>> cancelled_;
  std::map<std::string, std::pair<std::string, int64_t>> shown_;  // layer → status, when (ns)
  std::shared_ptr<void> watch_;
};

}  // namespace hull::engine::api
