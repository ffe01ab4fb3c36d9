// The engine's lower half with real virtual machines: hull-vmm, the guest kernel, hull-init, the
// network. Needs KVM, root, HULL_BIN (folder with hull-vmm and hull-initramfs), HULL_KERNEL and a
// static busybox (HULL_BUSYBOX, or /bin/busybox) for the containers' root; skipped otherwise, with
// the reason.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <iostream>

#include "base/error.h"
#include "base/file.h"
#include "base/socket_address.h"
#include "base/subprocess.h"
#include "daemon/network/network.h"
#include "daemon/network/tcp_relay.h"
#include "daemon/vm/guest_files.h"
#include "daemon/vm/network_card.h"
#include "daemon/vm/process_output.h"
#include "daemon/vm/vm.h"
#include "daemon/vm/vm_step_runner.h"

namespace hull::engine {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using testing::HasSubstr;

constexpr seconds kPatience{120};
constexpr uint64_t kRootBytes = 16 << 20;
const char* const kContainer = "0123456789abcdef";

std::string setting(const char* name, const std::string& otherwise = {}) {
  const char* value = getenv(name);
  return value == nullptr ? otherwise : value;
}

class RealVm : public testing::Test {
 protected:
  void SetUp() override {
    const std::string bin = setting("HULL_BIN"), busybox = setting("HULL_BUSYBOX", "/bin/busybox");
    resources_.vmm_program = bin + "/hull-vmm";
    resources_.initramfs = bin + "/hull-initramfs";
    resources_.kernel = setting("HULL_KERNEL");
    resources_.template_disk = root_.path() + "/template";
    resources_.vmm_uid_base =
        static_cast<uint32_t>(std::stoul(setting("HULL_VMM_UIDS", "1000000")));
    if (access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "needs /dev/kvm";
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
    for (const auto& file :
         {resources_.vmm_program, resources_.initramfs, resources_.kernel, busybox}) {
      if (!fileExists(file)) GTEST_SKIP() << "needs " << file;
    }
    makeRootDisk(busybox);
  }

  void makeRootDisk(const std::string& busybox) {
    const std::string tree = root_.path() + "/tree";
    for (const char* folder : {"bin", "etc", "tmp", "root", "dev", "proc", "sys"}) {
      makeDirectories(tree + "/" + folder);
    }
    fs::copy_file(busybox, tree + "/bin/busybox");
    fs::permissions(tree + "/bin/busybox", fs::perms(0755));
    for (const char* name :
         {"sh", "cat", "echo", "sleep", "wget", "nc", "ls", "true", "id", "nslookup"}) {
      fs::create_symlink("busybox", tree + "/bin/" + name);
    }
    writeFileAtomic(tree + "/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    const Fd disk = openFile(root_.path() + "/root.ext4", O_RDWR | O_CREAT);
    ASSERT_EQ(ftruncate(disk.get(), kRootBytes), 0);
    checkCommand({"/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", tree,
                  root_.path() + "/root.ext4"});
  }

  image::RootDisk rootDisk() const {
    image::RootDisk disk;
    disk.disk_bytes = kRootBytes;
    // In two segments, so that the seam is used.
    disk.segments = {{root_.path() + "/root.ext4", 0, 0, kRootBytes / 2},
                     {root_.path() + "/root.ext4", kRootBytes / 2, kRootBytes / 2, kRootBytes / 2}};
    return disk;
  }

  std::unique_ptr<Vm> start(Attachment* attachment = nullptr) {
    VmSpec spec;
    const std::string directory = root_.path() + "/vm";
    makeDirectories(directory);
    spec.directory = directory;
    spec.memory_mib = 128;
    spec.root = rootDisk();
    spec.writable_bytes = uint64_t{1} << 30;
    if (attachment != nullptr) {
      spec.networks.push_back(networkCard(*attachment));
    }
    const auto began = std::chrono::steady_clock::now();
    auto vm = Vm::start(resources_, std::move(spec));
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - began;
    std::cout << "Vm::start took " << took.count() << " ms" << std::endl;
    if (getenv("HULL_DEBUG") != nullptr) std::cout << readFile(directory + "/console.log");
    return vm;
  }

  static void createContainer(Vm& vm, const Attachment* at = nullptr) {
    if (at != nullptr) {
      vm.request("", guest::ConfigureNetwork{at->address, at->prefix_length, at->gateway, at->mtu});
    }
    guest::CreateContainer container;
    container.root_disk = Vm::kRootDisk;
    container.writable_disk = Vm::kWritableDisk;
    container.hostname = "box";
    if (at != nullptr) container.resolv_conf = resolvConf({.servers = {at->gateway}});
    vm.request(kContainer, container);
  }

  static void run(Vm& vm, const std::string& script) {
    guest::StartProcess start;
    start.process = guest::kMainProcess;
    start.arguments = {"sh", "-c", script};
    start.environment = {"PATH=/bin"};
    start.working_directory = "/";
    start.capabilities = kDefaultCapabilities;
    vm.requestFor<guest::ProcessStarted>(kContainer, start);
  }

  static ProcessOutput::OpenFunction streamsOf(Vm& vm) {
    return [&vm](OutputKind kind, uint64_t offset) {
      guest::OpenStream open;
      open.process = guest::kMainProcess;
      open.kind = kind == OutputKind::kStdout ? guest::OpenStream::Kind::kStdout
                                              : guest::OpenStream::Kind::kStderr;
      open.offset = offset;
      return vm.openStream(kContainer, open);
    };
  }

  std::string logText(OutputKind kind) const {
    LogReader reader(log_, {}, nullptr);
    std::string text;
    while (auto entry = reader.next()) {
      if (entry->stream == kind) text += entry->text;
    }
    return text;
  }

  TemporaryDirectory root_{"hull-vm-e2e"};
  VmResources resources_;
  std::string log_ = root_.path() + "/container-json.log";
};

TEST_F(RealVm, RunsAProcessAndPowersOff) {
  const auto vm = start();
  std::promise<int> code;
  vm->onProcessExit([&](const std::string& container, const guest::ProcessExited& exited) {
    EXPECT_EQ(container, kContainer);
    code.set_value(exited.exit_code);
  });
  createContainer(*vm);
  ProcessOutput output({log_, false, false});
  run(*vm, "echo hello from $(busybox uname -s); echo careful >&2; touch /made; exit 3");
  output.begin(streamsOf(*vm));
  ASSERT_TRUE(output.waitEnded(kPatience));
  EXPECT_EQ(logText(OutputKind::kStdout), "hello from Linux\n");
  EXPECT_THAT(logText(OutputKind::kStderr), HasSubstr("careful\n"));
  auto future = code.get_future();
  ASSERT_EQ(future.wait_for(kPatience), std::future_status::ready);
  EXPECT_EQ(future.get(), 3);
  // Not root on the host.
  struct stat info;
  ASSERT_EQ(stat(("/proc/" + std::to_string(vm->vmmPid())).c_str(), &info), 0);
  EXPECT_GE(info.st_uid, resources_.vmm_uid_base);
  vm->request(kContainer, guest::ForgetProcess{guest::kMainProcess});
  EXPECT_EQ(vm->stop(kPatience).reason, "poweroff");
}

TEST_F(RealVm, WhatAContainerWroteIsThereWhenItIsStartedAgain) {
  for (const char* expected : {"", "once\n"}) {
    const auto vm = start();
    createContainer(*vm);
    ProcessOutput output({root_.path() + "/" + std::to_string(*expected), false, false});
    const auto attached = output.subscribe();
    run(*vm, "cat /note; echo once > /note");
    output.begin(streamsOf(*vm));
    std::string text;
    while (const auto chunk = attached->next()) {
      if (chunk->stream == OutputKind::kStdout) text += chunk->bytes;
    }
    EXPECT_EQ(text, expected);
    EXPECT_EQ(vm->stop(kPatience).reason, "poweroff");
  }
}

TEST_F(RealVm, NextEngineProcessAdoptsItAndLosesNothing) {
  makeDirectories(root_.path() + "/vm");
  const pid_t engine = fork();
  if (engine == 0) {
    try {
      auto vm = start();
      createContainer(*vm);
      ProcessOutput output({log_, false, false});
      run(*vm, "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; exit 7");
      output.begin(streamsOf(*vm));
      output.waitForLog(2000, kPatience);
      _exit(0);  // as if killed: nothing is taken down
    } catch (const std::exception& error) {
      std::cerr << error.what() << '\n';
      _exit(1);
    }
  }
  int status = -1;
  waitpid(engine, &status, 0);
  ASSERT_EQ(status, 0);

  const auto vm = Vm::adopt(resources_, root_.path() + "/vm");
  ASSERT_NE(vm, nullptr);
  ProcessOutput output({log_, false, true});
  output.begin(streamsOf(*vm));
  ASSERT_TRUE(output.waitEnded(kPatience));
  std::string expected;
  for (int i = 1; i <= 2000; ++i) expected += "line " + std::to_string(i) + "\n";
  EXPECT_EQ(logText(OutputKind::kStdout), expected);
  const auto state = vm->requestFor<guest::StateReply>("", guest::ListState{});
  ASSERT_EQ(state.containers.size(), 1u);
  ASSERT_EQ(state.containers[0].processes.size(), 1u);
  EXPECT_FALSE(state.containers[0].processes[0].running);
  EXPECT_EQ(state.containers[0].processes[0].exit_code, 7);
  EXPECT_EQ(vm->stop(kPatience).reason, "poweroff");
}

TEST_F(RealVm, NetworkReachesTheHostAndPublishedPortsReachTheGuest) {
  NetworkOptions options;
  options.state_directory = root_.path() + "/network";
  const auto network = Network::create(options);
  EndpointSpec endpoint;
  endpoint.reaches_host = true;  // no other host is there in this test's network namespace
  Attachment attachment = network->attach(kContainer, endpoint);
  const auto vm = start(&attachment);
  createContainer(*vm, &attachment);

  const Fd listener = listenTcp(*SocketAddress::parse(attachment.gateway, 0));
  setNonBlocking(listener.get(), false);
  ProcessOutput output({log_, false, false});
  run(*vm, "nc " + attachment.gateway + " " +
               std::to_string(SocketAddress::local(listener.get()).port()) +
               " </dev/null; echo | nc -l -p 80 > /got; cat /got");
  output.begin(streamsOf(*vm));
  pollfd arrival{listener.get(), POLLIN, 0};
  ASSERT_EQ(poll(&arrival, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count())), 1);
  const Fd from_guest(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  writeFull(from_guest.get(), "from the host\n");
  shutdown(from_guest.get(), SHUT_RDWR);

  const auto ports = network->publish(kContainer, {{"127.0.0.1", 0, 80}});
  for (int attempt = 0; attempt < 1000 && !output.ended(); ++attempt) {
    const Fd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto address = *SocketAddress::parse("127.0.0.1", ports.at(0).host_port);
    ASSERT_EQ(connect(client.get(), address.get(), address.length), 0);
    send(client.get(), "through the port\n", 17, MSG_NOSIGNAL);
    shutdown(client.get(), SHUT_WR);
    char ignored[64];
    while (recv(client.get(), ignored, sizeof ignored, 0) > 0) {
    }
    output.waitEnded(std::chrono::milliseconds(100));
  }
  EXPECT_EQ(logText(OutputKind::kStdout), "from the host\nthrough the port\n");
  EXPECT_EQ(vm->stop(kPatience).reason, "poweroff");
  network->detach(kContainer);
  network->shutdown();
}

TEST_F(RealVm, BuildStepsMakeLayers) {
  VmStepRunner::Options options;
  options.work_directory = root_.path() + "/build";
  options.memory_mib = 128;
  options.writable_bytes = uint64_t{1} << 30;
  VmStepRunner runner(
      resources_, nullptr, [this](const std::vector<image::Digest>&) { return rootDisk(); },
      options);
  const auto session = runner.open({}, {});
  std::string text;
  const build::OutputFunction collect = [&](build::OutputStream, std::string_view bytes) {
    text += bytes;
  };
  build::RunStep step;
  step.arguments = {"/bin/sh", "-c", "cat > /from-stdin; echo made; echo >&2 warned"};
  step.environment = {"PATH=/bin"};
  step.stdin_text = "heredoc\n";
  EXPECT_EQ(session->run(step, collect).exit_code, 0);
  EXPECT_THAT(text, HasSubstr("made\n"));
  EXPECT_THAT(text, HasSubstr("warned\n"));
  StringSink tar;
  session->readLayer(tar);
  EXPECT_THAT(tar.text, HasSubstr("from-stdin"));
  EXPECT_THAT(tar.text, HasSubstr("heredoc\n"));
  step.arguments = {"/bin/sh", "-c", "cat /from-stdin"};
  step.stdin_text.clear();
  text.clear();
  EXPECT_EQ(session->run(step, collect).exit_code, 0);
  EXPECT_EQ(text, "heredoc\n");
  StringSink second;
  session->readLayer(second);
  EXPECT_EQ(second.text.find("from-stdin"), std::string::npos);
  StringSource again(tar.text);
  EXPECT_NO_THROW(session->applyLayer(again));
}

}  // namespace
}  // namespace hull::engine
