#include "registry/server/server.h"

#include <sys/stat.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "registry/server/acceptor.h"
#include "registry/server/access_log.h"
#include "registry/server/api.h"
#include "registry/server/collector.h"
#include "registry/server/layout.h"
#include "registry/server/metrics.h"

namespace hull::registry {

namespace {

constexpr std::chrono::minutes kSweepInterval{30};
constexpr std::chrono::seconds kMaintenanceInterval{1};
constexpr std::chrono::seconds kWatchInterval{5};  // how soon a changed file is noticed
constexpr size_t kMaxSideConnections = 16;         // of metrics, of control
constexpr const char* kTokenKeyFile = "/.token-key.pem";

ServerOptions withFile(ServerOptions options, const std::string& config_file) {
  if (config_file.empty()) return options;
  inContext("read " + config_file,
            [&] { applyConfiguration(readFile(config_file, kMaxConfigurationBytes), options); });
  return options;
}

ServerOptions complete(ServerOptions options) {
  if (options.root.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "no folder to serve: name one with --root");
  }
  if (options.tls_certificate.empty() != options.tls_key.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                "TLS needs both a certificate and a key (--tls-cert, --tls-key)");
  }
  return options;
}

// Changes when any of the files does: times, sizes and inodes as one text.
std::string fingerprint(const std::vector<std::string>& files) {
  std::string text;
  for (const std::string& file : files) {
    struct stat info {};
    if (file.empty() || ::stat(file.c_str(), &info) < 0) {
      text += "-;";
      continue;
    }
    text += std::to_string(info.st_ino) + "," + std::to_string(info.st_size) + "," +
            std::to_string(info.st_mtim.tv_sec) + "." + std::to_string(info.st_mtim.tv_nsec) + ";";
  }
  return text;
}

// A fixed name per kind of request, for metrics.
const char* endpointName(std::string_view target) {
  const std::string_view path = target.substr(0, target.find('?'));
  if (path == "/v2/" || path == "/v2") return "base";
  if (path == "/token") return "token";
  if (path == "/healthz") return "healthz";
  if (path == "/v2/_catalog") return "catalog";
  if (path.ends_with("/tags/list")) return "tags";
  if (path.find("/blobs/uploads") != std::string_view::npos) return "upload";
  if (path.find("/blobs/") != std::string_view::npos) return "blob";
  if (path.find("/manifests/") != std::string_view::npos) return "manifest";
  if (path.find("/referrers/") != std::string_view::npos) return "referrers";
  return "other";
}

Response plainText(int status, std::string body) {
  Response response;
  response.status = status;
  response.headers.emplace_back("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
  response.body = std::move(body);
  return response;
}

}  // namespace

struct Server::State {
  State(const ServerOptions& base, std::string file)
      : base_options(base),
        config_file(std::move(file)),
        options(complete(withFile(base, config_file))),
        store(options.root),
        uploads(store),
        policy(makePolicy(options)),
        webhooks(metrics),
        access_log(options.access_log) {
    if (!options.tls_certificate.empty()) {
      tls = std::make_unique<TlsContext>(options.tls_certificate, options.tls_key);
    }
    if (!options.cache.upstream.empty()) {
      cache = std::make_unique<PullThrough>(options.cache, store, metrics);
      writeFileAtomic(options.root + "/.cache", cache->upstream() + "\n");
    }
    api = std::make_unique<Api>(ApiParts{store, uploads, policy, &webhooks, cache.get()});
    seen = fingerprint(watched());
    layout.update();
    listen();
    maintainer = std::thread([this] { maintain(); });
  }

  ~State() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    ended.notify_all();
    maintainer.join();
    if (cache) cache->stop();
    control.reset();
    side.reset();
    front.reset();
    cache.reset();
    updateLayout();
  }

  void listen() {
    const Finished finished = [this](const Exchange& exchange) {
      metrics.request(exchange.request.method, endpointName(exchange.request.target),
                      exchange.response.status, exchange.took, exchange.received, exchange.sent);
      access_log.write(exchange);
    };
    const auto quiet = [](const Exchange&) {};
    front = std::make_unique<Acceptor>(
        listenOn(options.listen), options.connections,
        [this, finished](int socket, const std::string& peer) {
          const auto transport = tls ? makeTlsTransport(socket, kIdleLimit, *tls)
                                     : makePlainTransport(socket, kIdleLimit);
          serveConnection(
              *transport, {peer, tls != nullptr},
              [this](Request& request) { return api->handle(request); }, finished);
        });
    if (!options.metrics_listen.empty()) {
      side = std::make_unique<Acceptor>(
          listenOn(options.metrics_listen), kMaxSideConnections,
          [this, quiet](int socket, const std::string& peer) {
            serveConnection(
                *makePlainTransport(socket, kIdleLimit), {peer, false},
                [this](Request& request) { return observe(request); }, quiet);
          });
    }
    control = std::make_unique<Acceptor>(
        listenOnPath(options.root, kControlSocket), kMaxSideConnections,
        [this, quiet](int socket, const std::string& peer) {
          serveConnection(
              *makePlainTransport(socket, kIdleLimit), {peer, false},
              [this](Request& request) { return command(request); }, quiet);
        });
  }

  std::shared_ptr<const ActivePolicy> makePolicy(const ServerOptions& from) {
    const AccessOptions& access = from.policy.access;
    if (access.tokens && access.token_realm.empty() && !signer) {
      signer = std::make_unique<TokenSigner>(options.root + kTokenKeyFile);
    }
    return std::make_shared<ActivePolicy>(from.policy, signer.get());
  }

  std::vector<std::string> watched() {
    const auto active = policy.get();
    return {config_file, options.tls_certificate, options.tls_key, active->settings.access.htpasswd,
            active->settings.access.token_keys};
  }

  void reload() {
    const std::lock_guard lock(reloading);
    try {
      const ServerOptions fresh = complete(withFile(base_options, config_file));
      policy.set(makePolicy(fresh));
      if (tls && !fresh.tls_certificate.empty()) {
        options.tls_certificate = fresh.tls_certificate;
        options.tls_key = fresh.tls_key;
        tls->reload(fresh.tls_certificate, fresh.tls_key);
      }
      access_log.reopen();
      log::info("read the configuration again");
    } catch (const std::exception& error) {
      log::error(std::string("read the configuration again: ") + error.what() +
                 " (going on with what was read before)");
    }
    seen = fingerprint(watched());
  }

  // What is done beside serving.
  void maintain() {
    using Clock = std::chrono::steady_clock;
    auto next_sweep = Clock::now() + kSweepInterval;
    auto next_watch = Clock::now() + kWatchInterval;
    auto last_collection = Clock::now();
    std::unique_lock lock(mutex);
    while (!ended.wait_for(lock, kMaintenanceInterval, [this] { return stopping.load(); })) {
      lock.unlock();
      updateLayout();
      if (Clock::now() >= next_watch) {
        next_watch = Clock::now() + kWatchInterval;
        if (changedOnDisk()) reload();
      }
      if (Clock::now() >= next_sweep) {
        next_sweep = Clock::now() + kSweepInterval;
        if (const size_t swept = uploads.sweep()) {
          log::info("swept " + std::to_string(swept) + " expired uploads");
        }
      }
      const auto interval = policy.get()->settings.collection.interval;
      if (interval.count() > 0 && Clock::now() - last_collection >= interval) {
        collect(false, policy.get()->settings.collection, {});
        last_collection = Clock::now();
      }
      lock.lock();
    }
  }

  bool changedOnDisk() {
    const std::lock_guard lock(reloading);
    return seen != fingerprint(watched());
  }

  void updateLayout() {
    try {
      layout.update();
    } catch (const std::exception& error) {  // the registry works without it
      log::warning(error.what());
    }
  }

  CollectionReport collect(bool dry_run, const CollectionOptions& how,
                           const std::function<void(const std::string&)>& report) {
    const std::lock_guard lock(collecting);
    CollectionReport done;
    try {
      done = collectGarbage(
          store, {how, dry_run, report, &stopping, policy.get()->settings.immutable_tags});
    } catch (const std::exception& error) {
      log::error(std::string("collect garbage: ") + error.what());
    }
    log::info("collected garbage: " + done.text(dry_run));
    if (!dry_run) {
      metrics.add("hull_registry_collections_total", "Runs of garbage collection.");
      metrics.add("hull_registry_collected_bytes_total", "Bytes that they freed.", done.bytes);
    }
    return done;
  }

  // Of the metrics address.
  Response observe(const Request& request) {
    const std::string_view path =
        std::string_view(request.target).substr(0, request.target.find('?'));
    if (path == "/healthz") return plainText(200, "ok\n");
    if (path != "/metrics") return plainText(404, "there are /metrics and /healthz\n");
    metrics.set("hull_registry_connections", "Open connections.", front->connections());
    metrics.set("hull_registry_uploads", "Uploads that are not finished.", uploads.open());
    metrics.set("hull_registry_stored_bytes",
                "Bytes of all repositories' blobs and manifests, each repository by itself.",
                store.bytesOf("**"));
    return plainText(200, metrics.text());
  }

  // Of the control socket: POST /gc?dry_run=1&untagged=1, POST /reload.
  Response command(const Request& request) {
    const size_t question = std::min(request.target.find('?'), request.target.size());
    const std::string path = request.target.substr(0, question);
    const auto query = parseQuery(
        std::string_view(request.target).substr(std::min(question + 1, request.target.size())));
    if (path == "/reload") {
      reload();
      return plainText(200, "");
    }
    if (path != "/gc" || !query) return plainText(404, "there are /gc and /reload\n");
    CollectionOptions how = policy.get()->settings.collection;
    if (query->contains("untagged")) how.untagged = true;
    if (const auto grace = query->find("grace"); grace != query->end()) {
      try {
        how.grace = parseDuration(grace->second, "grace");
      } catch (const Error& error) {
        return plainText(400, std::string(error.what()) + "\n");
      }
    }
    const bool dry_run = query->contains("dry_run");
    std::string lines;
    const auto report = [&](const std::string& line) {
      if (lines.size() < kMaxControlBytes) lines += line + "\n";
    };
    const CollectionReport done = collect(dry_run, how, report);
    return plainText(200, lines + done.text(dry_run) + "\n");
  }

  static constexpr size_t kMaxControlBytes = size_t{8} << 20;  // of an answer

  const ServerOptions base_options;
  const std::string config_file;
  ServerOptions options;
  RepositoryStore store;
  Uploads uploads;
  std::unique_ptr<TokenSigner> signer;
  PolicyHolder policy;
  Metrics metrics;
  Webhooks webhooks;
  AccessLog access_log;
  std::unique_ptr<TlsContext> tls;
  std::unique_ptr<PullThrough> cache;
  std::unique_ptr<Api> api;
  LayoutIndex layout{store};  // the maintainer's, then the destructor's
  std::mutex reloading;
  std::string seen;  // guarded by reloading
  std::mutex collecting;
  std::mutex mutex;
  std::condition_variable ended;
  std::atomic<bool> stopping = false;
  std::unique_ptr<Acceptor> front;
  std::unique_ptr<Acceptor> side;
  std::unique_ptr<Acceptor> control;
  std::thread maintainer;
};

Server::Server(const ServerOptions& options, const std::string& config_file)
    : state_(std::make_unique<State>(options, config_file)) {}
Server::~Server() = default;

uint16_t Server::port() const {
  return state_->front->port();
}

std::string Server::address() const {
  return state_->front->address();
}

std::string Server::metricsAddress() const {
  return state_->side ? state_->side->address() : std::string();
}

const std::string& Server::root() const {
  return state_->options.root;
}

bool Server::tls() const {
  return state_->tls != nullptr;
}

void Server::reload() {
  state_->reload();
}

}  // namespace hull::registry
