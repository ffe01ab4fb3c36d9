#include "registry/client/transfer.h"

#include <curl/curl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "base/file.h"
#include "registry/client/trust.h"

namespace hull::registry {

namespace {

constexpr int kPollMilliseconds = 200;  // how soon a cancellation is noticed
constexpr long kReceiveBufferBytes = 512 << 10;
constexpr size_t kMaxCertificateBytes = size_t{4} << 20;
constexpr const char* kUserAgent = "hull/0.1";

struct EasyDeleter {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct MultiDeleter {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
struct ListDeleter {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using List = std::unique_ptr<curl_slist, ListDeleter>;

void append(List& list, const std::string& text) {
  curl_slist* longer = curl_slist_append(list.get(), text.c_str());
  if (!longer) throw std::bad_alloc();
  [[maybe_unused]] curl_slist* same = list.release();
  list.reset(longer);
}

// OpenSSL writes to sockets with write(2): a peer that went away must not end the process.
class BrokenPipeBlocked {
 public:
  BrokenPipeBlocked() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &signals_, &before_);
  }
  ~BrokenPipeBlocked() {
    if (sigismember(&before_, SIGPIPE) == 1) return;
    const timespec now{};
    while (sigtimedwait(&signals_, nullptr, &now) < 0 && errno == EINTR) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  BrokenPipeBlocked(const BrokenPipeBlocked&) = delete;
  BrokenPipeBlocked& operator=(const BrokenPipeBlocked&) = delete;

 private:
  sigset_t signals_;
  sigset_t before_;
};

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return result;
}

std::string_view trim(std::string_view text) {
  static constexpr std::string_view kSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace

std::string ResponseHead::header(const std::string& name) const {
  const auto it = headers.find(name);
  return it == headers.end() ? std::string() : it->second;
}

std::vector<std::string> ResponseHead::all(const std::string& name) const {
  std::vector<std::string> values;
  const auto [from, to] = headers.equal_range(name);
  for (auto it = from; it != to; ++it) values.push_back(it->second);
  return values;
}

// Each multi handle keeps the connections it has made; one is lent to one transfer at a time.
struct ConnectionPool::State {
  std::unique_ptr<CURLM, MultiDeleter> take(const std::string& origin) {
    const std::lock_guard lock(mutex);
    const auto it = idle.find(origin);
    if (it == idle.end()) return nullptr;
    auto multi = std::move(it->second);
    idle.erase(it);
    return multi;
  }

  void give(const std::string& origin, std::unique_ptr<CURLM, MultiDeleter> multi) {
    const std::lock_guard lock(mutex);
    if (idle.size() < kMaxIdleConnections) idle.emplace(origin, std::move(multi));
  }

  std::mutex mutex;
  std::multimap<std::string, std::unique_ptr<CURLM, MultiDeleter>> idle;  // guarded by mutex
};

ConnectionPool::ConnectionPool() : state_(std::make_unique<State>()) {}

ConnectionPool::~ConnectionPool() {
  const BrokenPipeBlocked guard;  // saying goodbye to who is gone
  state_.reset();
}

struct Transfer::State {
  State(TransferRequest asked, const ClientOptions& client, ConnectionPool* from)
      : request(std::move(asked)), options(client), pool(from) {
    static std::once_flag once;
    std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
    easy.reset(curl_easy_init());
    if (pool) multi = pool->state().take(origin());
    if (!multi) multi.reset(curl_multi_init());
    if (!easy || !multi) throw Error(ErrorKind::kInternal, "start libcurl: out of memory");
    configure();
    configureMethod();
    configurePeer();
    curl_multi_add_handle(multi.get(), easy.get());
  }

  ~State() {
    const BrokenPipeBlocked guard;
    curl_multi_remove_handle(multi.get(), easy.get());
    easy.reset();
    if (pool) pool->state().give(origin(), std::move(multi));
    multi.reset();
  }

  std::string origin() const { return request.url.scheme + "://" + peer(); }

  template <typename Value>
  void set(CURLoption option, Value value) {
    const CURLcode code = curl_easy_setopt(easy.get(), option, value);
    if (code != CURLE_OK) {
      throw Error(ErrorKind::kInternal,
                  std::string("configure libcurl: ") + curl_easy_strerror(code));
    }
  }

  void configure() {
    const std::string url_text = request.url.text();
    set(CURLOPT_URL, url_text.c_str());
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_FOLLOWLOCATION, 0L);
    set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
    set(CURLOPT_PATH_AS_IS, 1L);
    set(CURLOPT_USERAGENT, kUserAgent);
    set(CURLOPT_CONNECTTIMEOUT, kConnectLimitSeconds);
    set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    set(CURLOPT_LOW_SPEED_TIME, kSilenceLimitSeconds);
    set(CURLOPT_BUFFERSIZE, kReceiveBufferBytes);
    set(CURLOPT_UPLOAD_BUFFERSIZE, kReceiveBufferBytes);
    set(CURLOPT_ERRORBUFFER, static_cast<char*>(error_text));
    set(CURLOPT_HEADERFUNCTION, &State::onHeader);
    set(CURLOPT_HEADERDATA, this);
    set(CURLOPT_WRITEFUNCTION, &State::onBody);
    set(CURLOPT_WRITEDATA, this);
    append(header_list, "Expect:");  // one round trip less; a 401 has come before
    for (const std::string& header : request.headers) append(header_list, header);
    set(CURLOPT_HTTPHEADER, header_list.get());
  }

  void configureMethod() {
    if (request.method == "HEAD") {
      set(CURLOPT_NOBODY, 1L);
    } else if (request.method == "DELETE") {
      set(CURLOPT_CUSTOMREQUEST, "DELETE");
    } else if (request.method == "POST" || request.method == "PATCH") {
      set(CURLOPT_POST, 1L);
      if (request.method == "PATCH") set(CURLOPT_CUSTOMREQUEST, "PATCH");
      set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
      set(CURLOPT_POSTFIELDS, request.body.c_str());
    } else if (request.method == "PUT") {
      const uint64_t bytes = request.file >= 0 ? request.file_bytes : request.body.size();
      set(CURLOPT_UPLOAD, 1L);
      set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(bytes));
      set(CURLOPT_READFUNCTION, &State::onSend);
      set(CURLOPT_READDATA, this);
      set(CURLOPT_SEEKFUNCTION, &State::onSeek);
      set(CURLOPT_SEEKDATA, this);
    } else if (request.method != "GET") {
      throw Error(ErrorKind::kInternal, "unexpected method " + request.method);
    }
  }

  void configurePeer() {
    configureTls();
    if (!isLoopbackHost(request.url.host)) return configureProxy();
    set(CURLOPT_PROXY, "");  // a proxy's loopback is not ours
    if (options.loopback_address.empty()) return;
    const bool v6 = options.loopback_address.find(':') != std::string::npos;
    append(connect_to,
           "::" + (v6 ? "[" + options.loopback_address + "]" : options.loopback_address) + ":");
    set(CURLOPT_CONNECT_TO, connect_to.get());
  }

  void configureTls() {
    if (request.url.scheme != "https") return;
    // Debian's libcurl keeps its folder of system certificates beside this file.
    if (!options.ca_bundle.empty()) set(CURLOPT_CAINFO, options.ca_bundle.c_str());
    if (isInsecure(options, request.url)) {
      set(CURLOPT_SSL_VERIFYPEER, 0L);
      set(CURLOPT_SSL_VERIFYHOST, 0L);
    }
    const RegistryCertificates own = certificatesFor(certificateFolders(), request.url);
    if (!own.certificate.empty()) {
      set(CURLOPT_SSLCERT, own.certificate.c_str());
      set(CURLOPT_SSLKEY, own.key.c_str());
    }
    if (own.authorities.empty()) return;
    // Besides the system's, which stay in libcurl's folder of certificates.
    std::string authorities;
    for (const std::string& file : own.authorities) {
      authorities += readFile(file, kMaxCertificateBytes) + "\n";
    }
    curl_blob blob{authorities.data(), authorities.size(), CURL_BLOB_COPY};
    set(CURLOPT_CAINFO_BLOB, &blob);
  }

  // libcurl reads https_proxy, HTTPS_PROXY, no_proxy and NO_PROXY itself, but of the pair for plain
  // HTTP only the lower-case name: in a CGI program HTTP_PROXY would be a header of the request.
  // This is none, and Docker takes both.
  void configureProxy() {
    if (request.url.scheme != "http" || getenv("http_proxy")) return;
    if (const char* proxy = getenv("HTTP_PROXY")) set(CURLOPT_PROXY, proxy);
  }

  static size_t onHeader(char* data, size_t, size_t size, void* self) {
    return static_cast<State*>(self)->takeHeader(std::string_view(data, size)) ? size : 0;
  }

  bool takeHeader(std::string_view line) {
    header_bytes += line.size();
    if (header_bytes > kMaxResponseHeaderBytes) return false;
    if (line.starts_with("HTTP/")) {
      head = {};
      return true;
    }
    const std::string_view content = trim(line);
    if (content.empty()) {
      long status = 0;
      curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
      head.status = static_cast<int>(status);
      head_complete = status >= 200;
      return true;
    }
    const size_t colon = content.find(':');
    if (colon != std::string_view::npos && !head_complete) {  // not trailers
      head.headers.emplace(lower(content.substr(0, colon)),
                           std::string(trim(content.substr(colon + 1))));
    }
    return true;
  }

  static size_t onBody(char* data, size_t, size_t size, void* self) {
    State& state = *static_cast<State*>(self);
    if (state.received.size() - state.consumed >= kTransferBufferBytes) {
      state.paused = true;
      return CURL_WRITEFUNC_PAUSE;
    }
    state.received.append(data, size);
    return size;
  }

  static size_t onSend(char* data, size_t, size_t size, void* self) {
    State& state = *static_cast<State*>(self);
    const TransferRequest& request = state.request;
    const uint64_t total = request.file >= 0 ? request.file_bytes : request.body.size();
    size = static_cast<size_t>(std::min<uint64_t>(size, total - state.sent));
    if (request.file >= 0) {
      const ssize_t got = ::pread(request.file, data, size, static_cast<off_t>(state.sent));
      if (got < 0) return CURL_READFUNC_ABORT;
      size = static_cast<size_t>(got);
    } else {
      std::memcpy(data, request.body.data() + state.sent, size);
    }
    state.sent += size;
    state.sent_changed = true;
    return size;
  }

  static int onSeek(void* self, curl_off_t offset, int origin) {
    if (origin != SEEK_SET || offset < 0) return CURL_SEEKFUNC_FAIL;
    static_cast<State*>(self)->sent = static_cast<uint64_t>(offset);
    return CURL_SEEKFUNC_OK;
  }

  // Lets libcurl work until something changed, or at most kPollMilliseconds.
  void step(bool wait) {
    if (options.cancelled && options.cancelled()) {
      throw Error(ErrorKind::kCancelled, "cancelled");
    }
    const BrokenPipeBlocked guard;
    if (wait) curl_multi_poll(multi.get(), nullptr, 0, kPollMilliseconds, nullptr);
    int running = 0;
    const CURLMcode code = curl_multi_perform(multi.get(), &running);
    if (code != CURLM_OK) throw Error(ErrorKind::kInternal, curl_multi_strerror(code));
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      done = true;
      result = message->data.result;
    }
    // Callbacks of the caller may throw: not through libcurl.
    if (sent_changed && request.sent) request.sent(sent);
    sent_changed = false;
  }

  void waitForHead() {
    step(false);
    while (!head_complete && !done) step(true);
    if (!head_complete) fail();
  }

  size_t available() const { return received.size() - consumed; }

  size_t take(std::span<std::byte> into) {
    while (available() == 0) {
      if (done && result == CURLE_OK) return 0;
      if (done) fail();
      received.clear();
      consumed = 0;
      if (paused) {
        paused = false;
        const BrokenPipeBlocked guard;
        curl_easy_pause(easy.get(), CURLPAUSE_CONT);
        if (available() > 0) break;
      }
      step(false);
      if (available() == 0 && !done) step(true);
    }
    const size_t size = std::min(into.size(), available());
    std::memcpy(into.data(), received.data() + consumed, size);
    consumed += size;
    return size;
  }

  std::string peer() const {
    const Url& url = request.url;
    return (url.host.find(':') == std::string::npos ? url.host : "[" + url.host + "]") + ":" +
           std::to_string(url.port);
  }

  std::string cause() const { return error_text[0] ? error_text : curl_easy_strerror(result); }

  [[noreturn]] void failConnect() const {
    long number = 0;
    curl_easy_getinfo(easy.get(), CURLINFO_OS_ERRNO, &number);
    std::string text = "connect to " + peer() + ": ";
    text += number != 0 ? std::strerror(static_cast<int>(number)) : cause();
    if (number == ECONNREFUSED) text += " (is the registry running?)";
    throw TransferError(ErrorKind::kUnavailable, text, false);
  }

  [[noreturn]] void fail() const {
    switch (result) {
      case CURLE_COULDNT_CONNECT:
        failConnect();
      case CURLE_COULDNT_RESOLVE_HOST:
      case CURLE_COULDNT_RESOLVE_PROXY:
        throw TransferError(
            ErrorKind::kUnavailable,
            "look up " + request.url.host + ": no such host (check the name and this host's DNS)",
            false);
      case CURLE_PEER_FAILED_VERIFICATION:
      case CURLE_SSL_CACERT_BADFILE:
      case CURLE_SSL_ISSUER_ERROR:
        throw TransferError(
            ErrorKind::kUnavailable,
            "verify the certificate of " + peer() + ": " + cause() +
                " (to trust its CA, copy the CA's certificate to /etc/hull/certs.d/" + peer() +
                "/ca.crt, or to /usr/local/share/ca-certificates/ and run update-ca-certificates)",
            false);
      case CURLE_SSL_CONNECT_ERROR: {
        const bool plain = cause().find("wrong version number") != std::string::npos;
        throw TransferError(
            ErrorKind::kUnavailable,
            "TLS handshake with " + peer() + ": " +
                (plain ? "the server speaks plain HTTP (allow that by naming it as an insecure "
                         "registry)"
                       : cause()),
            false);
      }
      case CURLE_OPERATION_TIMEDOUT:
        throw TransferError(ErrorKind::kTimeout, "wait for " + peer() + ": no answer in time",
                            true);
      default:
        throw TransferError(ErrorKind::kUnavailable,
                            "talk to " + peer() + ": the connection broke: " + cause(), true);
    }
  }

  TransferRequest request;
  const ClientOptions& options;
  ConnectionPool* pool;
  List header_list;
  List connect_to;
  char error_text[CURL_ERROR_SIZE] = "";
  ResponseHead head;
  size_t header_bytes = 0;
  bool head_complete = false;
  std::string received;
  size_t consumed = 0;
  bool paused = false;
  uint64_t sent = 0;
  bool sent_changed = false;
  bool done = false;
  CURLcode result = CURLE_OK;
  std::unique_ptr<CURLM, MultiDeleter> multi;
  std::unique_ptr<CURL, EasyDeleter> easy;
};

Transfer::Transfer(TransferRequest request, const ClientOptions& options, ConnectionPool* pool)
    : state_(std::make_unique<State>(std::move(request), options, pool)) {
  state_->waitForHead();
}

Transfer::~Transfer() = default;

const ResponseHead& Transfer::head() const {
  return state_->head;
}

const Url& Transfer::url() const {
  return state_->request.url;
}

size_t Transfer::read(std::span<std::byte> into) {
  return state_->take(into);
}

std::string Transfer::text(size_t limit, std::string_view what) {
  return readAll(*this, limit, what);
}

}  // namespace hull::registry
