#include "image/build/fetch.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "base/error.h"
#include "base/hash.h"

namespace hull::build {

namespace {

// Set up while other threads may run, so once and before the first handle.
void initializeCurl() {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
}

Fd namelessFile(const std::string& folder) {
  std::string path = folder + "/.tmp-download-XXXXXX";
  Fd file(mkostemp(path.data(), O_CLOEXEC));
  if (!file) throw sysError("create a file in " + folder);
  ::unlink(path.c_str());
  return file;
}

struct Transfer {
  Download* result;
  Hasher hasher;
  const std::function<bool()>* cancelled;
  std::exception_ptr failure;

  static size_t onData(char* data, size_t size, size_t count, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    const std::string_view bytes(data, size * count);
    try {
      if (transfer.result->size + bytes.size() > kMaxDownloadBytes)
        throw Error(ErrorKind::kTooLarge, "larger than 64 GiB");
      writeFull(transfer.result->file.get(), bytes);
      transfer.hasher.update(bytes);
      transfer.result->size += bytes.size();
      return bytes.size();
    } catch (...) {  // must not cross the C frames
      transfer.failure = std::current_exception();
      return 0;
    }
  }

  static int onProgress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    const auto& cancelled = *static_cast<Transfer*>(self)->cancelled;
    return cancelled && cancelled() ? 1 : 0;
  }
};

// The last part of an address's path, percent-decoded; empty when there is none that names a file.
std::string nameOf(const std::string& url) {
  const std::unique_ptr<CURLU, void (*)(CURLU*)> parts(curl_url(), &curl_url_cleanup);
  if (curl_url_set(parts.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) return {};
  char* path = nullptr;
  if (curl_url_get(parts.get(), CURLUPART_PATH, &path, CURLU_URLDECODE) != CURLUE_OK) return {};
  const std::string text(path);
  curl_free(path);
  const std::string name = text.substr(text.rfind('/') + 1);
  return name == "." || name == ".." || name.find('\0') != std::string::npos ? "" : name;
}

void configure(CURL* handle, const std::string& url, Transfer& transfer) {
  curl_easy_setopt(handle, CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(handle, CURLOPT_MAXREDIRS, kMaxRedirects);
  curl_easy_setopt(handle, CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(handle, CURLOPT_FILETIME, 1L);
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT, kConnectTimeoutSeconds);
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, kStallTimeoutSeconds);
  curl_easy_setopt(handle, CURLOPT_USERAGENT, "hull-build");
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &Transfer::onData);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, &Transfer::onProgress);
  curl_easy_setopt(handle, CURLOPT_XFERINFODATA, &transfer);
}

[[noreturn]] void fail(const std::string& url, CURLcode code, long status, const char* detail) {
  if (code == CURLE_ABORTED_BY_CALLBACK) throw Error(ErrorKind::kCancelled, "build cancelled");
  if (code == CURLE_HTTP_RETURNED_ERROR) {
    throw Error(status == 404 ? ErrorKind::kNotFound : ErrorKind::kUnavailable,
                "download " + url + ": the server answered " + std::to_string(status));
  }
  throw Error(ErrorKind::kUnavailable,
              "download " + url + ": " + (*detail ? detail : curl_easy_strerror(code)));
}

}  // namespace

bool isUrl(std::string_view text) {
  return text.starts_with("http://") || text.starts_with("https://");
}

Download download(const std::string& url, const std::string& folder,
                  const std::function<bool()>& cancelled) {
  initializeCurl();
  const std::unique_ptr<CURL, void (*)(CURL*)> handle(curl_easy_init(), &curl_easy_cleanup);
  if (!handle) throw Error(ErrorKind::kInternal, "download " + url + ": no memory");
  Download result;
  result.file = namelessFile(folder);
  result.name = nameOf(url);
  Transfer transfer{&result, Hasher(), &cancelled, nullptr};
  char detail[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(handle.get(), CURLOPT_ERRORBUFFER, detail);
  configure(handle.get(), url, transfer);
  const CURLcode code = curl_easy_perform(handle.get());
  if (transfer.failure) {
    inContext("download " + url, [&] { std::rethrow_exception(transfer.failure); });
  }
  long status = 0;
  curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
  if (code != CURLE_OK) fail(url, code, status, detail);
  curl_off_t modified = -1;
  curl_easy_getinfo(handle.get(), CURLINFO_FILETIME_T, &modified);
  if (modified >= 0) result.last_modified = modified;
  result.digest = "sha256:" + transfer.hasher.finishHex();
  return result;
}

}  // namespace hull::build
