#include "machine/agent.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/descriptor_limit.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "machine/address.h"
#include "machine/datagrams.h"
#include "machine/exec.h"
#include "machine/mux.h"
#include "machine/relay.h"

namespace hull::machine {

namespace {

constexpr int kChannelTries = 200;  // × 50 ms
constexpr int kListenBacklog = 1024;

std::string findChannel() {
  namespace fs = std::filesystem;
  for (int i = 0; i < kChannelTries; ++i) {
    std::error_code missing;
    for (const auto& entry : fs::directory_iterator("/sys/class/virtio-ports", missing)) {
      const std::string name = (entry.path() / "name").string();  // consoles have none
      if (fileExists(name) && readFile(name) == std::string(kChannelName) + "\n") {
        return "/dev/" + entry.path().filename().string();
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  throw Error(ErrorKind::kNotFound,
              std::string("find the channel to the host: no virtio port ") + kChannelName);
}

bool startsWith(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

Fd connectTcp(std::string_view target) {
  const SocketAddress address = parseTarget(target);
  Fd socket(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) throw sysError("create socket");
  if (::connect(socket.get(), address.get(), address.length) < 0 && errno != EINPROGRESS) {
    throw sysError("connect to " + std::string(target));
  }
  return socket;
}

class NoEvents final : public StreamEvents {
 public:
  void onData(std::string_view) override {}
  void onFin() override {}
  void onClosed(bool) override {}
  void onWritable() override {}
};

class Agent {
 public:
  explicit Agent(const std::string& channel) {
    listener_ = listenUnix(kPortsSocketInside, 0600, kListenBacklog);
    setNonBlocking(listener_.get());
    mux_.emplace(
        loop_, openFile(channel, O_RDWR | O_NONBLOCK), Mux::Side::kMachine,
        [this](uint32_t stream, std::string_view target) { return serve(stream, target); },
        [this](const std::string& reason) {
          log::error("the host is gone: " + reason);
          status_ = 1;
          loop_.stop();
        });
    loop_.add(listener_.get(), EPOLLIN, [this](uint32_t) { acceptPublisher(); });
    const std::string hello = nlohmann::json{{"engine", fileExists("/opt/hull/hulld")}}.dump();
    mux_->open("hello:" + hello, std::make_shared<NoEvents>());
  }

  int run() {
    loop_.run();
    return status_;
  }

 private:
  std::shared_ptr<StreamEvents> serve(uint32_t stream, std::string_view target) {
    try {
      if (startsWith(target, "unix:")) {
        return Relay::accept(loop_, *mux_, stream, connectUnix(std::string(target)));
      }
      if (startsWith(target, "tcp:")) {
        return Relay::accept(loop_, *mux_, stream, connectTcp(target));
      }
      if (startsWith(target, "udp:")) return serveDatagrams(loop_, *mux_, stream, target);
      if (startsWith(target, "exec:")) return serveExec(loop_, *mux_, stream, target);
      if (startsWith(target, "clock:")) setClock(target);
      if (target == "poweroff") loop_.stop();
    } catch (const Error& error) {
      log::debug(error.what());  // the stream is refused; the asker sees that
    }
    return nullptr;
  }

  // The emulated clock falls behind when the host sleeps. Nanoseconds since the epoch.
  static void setClock(std::string_view digits) {
    int64_t wanted = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), wanted);
    if (parsed.ec != std::errc() || wanted <= 0) return;
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    constexpr int64_t kSecond = 1'000'000'000;
    const int64_t off = wanted - (now.tv_sec * kSecond + now.tv_nsec);
    if (off < kSecond && off > -kSecond) return;
    const timespec corrected{wanted / kSecond, wanted % kSecond};
    clock_settime(CLOCK_REALTIME, &corrected);
  }

  void acceptPublisher() {
    Fd client(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (client) Relay::open(loop_, *mux_, "publish", std::move(client));
  }

  EventLoop loop_;
  Fd listener_;
  std::optional<Mux> mux_;
  int status_ = 0;
};

}  // namespace

int runAgent(const std::string& channel) {
  log::setPart("machine-agent");
  signal(SIGPIPE, SIG_IGN);
  raiseDescriptorLimit();  // one for each stream
  try {
    return Agent(channel.empty() ? findChannel() : channel).run();
  } catch (const Error& error) {
    log::error(error.what());
    return 1;
  }
}

}  // namespace hull::machine
