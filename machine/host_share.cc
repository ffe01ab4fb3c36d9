#include "machine/host_share.h"

#include <poll.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/stream.h"

namespace hull::machine {

namespace {

constexpr int kListenerFd = 3, kStatusFd = 4;
constexpr size_t kMaxFailureBytes = 4096;

std::string findVirtiofsd() {
  for (const char* path : {"/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"}) {
    if (fileExists(path)) return path;
  }
  throw Error(ErrorKind::kNotFound,
              "no virtiofsd (apt-get install virtiofsd, or qemu-system-common where that is its "
              "package)");
}

// What gives a user the rights over owners that virtiofsd needs, in a namespace of his own.
std::vector<std::string> asRoot() {
  if (geteuid() == 0) return {};
  std::vector<std::string> unshare{"unshare", "--user", "--map-root-user", "--map-auto"};
  std::vector<std::string> probe = unshare;
  probe.emplace_back("true");
  if (const auto tried = runCommand(probe); tried.status != 0) {
    throw Error(ErrorKind::kNotSupported,
                "user namespaces do not work here (apt-get install uidmap, and a range of yours in "
                "/etc/subuid and /etc/subgid): " +
                    tried.errors.substr(0, tried.errors.find('\n')));
  }
  return unshare;
}

}  // namespace

std::optional<HostShare> HostShare::start(const MachinePaths& paths,
                                          const std::string& payload_directory, int errors) {
  try {
    const std::string folder = paths.state + "/share", socket = paths.state + "/share.sock";
    const std::string program = payload_directory + "/hull-share";
    if (!fileExists(program)) return std::nullopt;  // a machine without an engine
    makeDirectories(folder, 0700);
    ::unlink(socket.c_str());
    // Connected before it starts, so that nobody else can be.
    const Fd listener = listenUnix(socket);
    Fd connection = connectUnix(socket);
    ::unlink(socket.c_str());
    FdPair status = makePipe();
    SubprocessOptions options;
    options.arguments = asRoot();
    // Slave: what the host mounts later is seen, too.
    options.arguments.insert(options.arguments.end(),
                             {program, std::to_string(kListenerFd), std::to_string(kStatusFd),
                              findVirtiofsd(), folder, "s", "/", "/"});
    options.working_directory = "/";
    options.new_session = true;
    options.descriptors = {
        {listener.get(), kListenerFd}, {status.second.get(), kStatusFd}, {errors, STDERR_FILENO}};
    HostShare share(std::move(connection), Subprocess(options));
    status.second.reset();
    FdSource source(status.first.get());
    const std::string failure = readAll(source, kMaxFailureBytes, "what hull-share says");
    if (!failure.empty()) throw Error(ErrorKind::kInternal, failure);
    return share;
  } catch (const Error& error) {
    log::warning(std::string("bind mounts will not work, this host's files are not shared: ") +
                 error.what());
    return std::nullopt;
  }
}

bool HostShare::ended() const {
  pollfd polled{process_.pidfd(), POLLIN, 0};
  return poll(&polled, 1, 0) > 0;
}

}  // namespace hull::machine
