#include "guest-init/testing/machine.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/subprocess.h"
#include "guest-init/system/files.h"

namespace hull::guest {

namespace {

constexpr const char* kPasswd =
    "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/home/web:/bin/sh\n";
constexpr const char* kGroup = "root:x:0:\nweb:x:1001:\nextra:x:2000:web\n";

void makeRootTree(const std::string& root) {
  for (const char* path : {"/bin", "/etc", "/tmp", "/root", "/home/web", "/full/sub"}) {
    makeDirectories(root + path);
  }
  checkCommand({"cp", "/bin/busybox", root + "/bin/busybox"});
  checkCommand({"chroot", root, "/bin/busybox", "--install", "-s", "/bin"});
  writeSmallFile(root + "/etc/passwd", kPasswd);
  writeSmallFile(root + "/etc/group", kGroup);
  writeSmallFile(root + "/etc/not-a-program", "text\n");
  writeSmallFile(root + "/full/file", "from the image\n");
  writeSmallFile(root + "/full/sub/deep", "deep\n");
  if (symlink("/full", (root + "/home/link").c_str()) < 0) throw sysError("make a link");
  chmod((root + "/etc").c_str(), 0751);
}

}  // namespace

std::string readToEnd(int fd) {
  std::string text;
  char buffer[65536];
  ssize_t got;
  while ((got = ::read(fd, buffer, sizeof buffer)) > 0)
    text.append(buffer, static_cast<size_t>(got));
  return text;
}

std::string TestMachine::whyNot() {
  return wantsVmHost() ? "" : whyNoNativeHost();
}

TestMachine::TestMachine() {
  disks_ = makeDisks();
  host_ = wantsVmHost() ? makeVmHost(disks_) : makeNativeHost(disks_);
  reconnect();
}

TestDisks TestMachine::makeDisks() {
  const std::string folder = folder_.path();
  makeRootTree(folder + "/tree");
  checkCommand({"mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", folder + "/tree",
                folder + "/root.ext4", "16M"});
  checkCommand({"mkfs.ext4", "-q", "-F", folder + "/writable.ext4", "32M"});
  makeDirectories(folder + "/host");
  return {folder + "/host", folder + "/root.ext4", folder + "/writable.ext4"};
}

void TestMachine::reconnect() {
  control_ = host_->connect(kControlPort);
}

CreateContainer TestMachine::containerOptions() const {
  CreateContainer options;
  options.root_disk = host_->rootDisk();
  options.writable_disk = host_->writableDisk();
  options.hostname = "box";
  options.hosts = "127.0.0.1 localhost\n";
  options.resolv_conf = "nameserver 192.0.2.1\n";
  options.masked_paths = {"/proc/kcore", "/proc/no-such-thing", "/sys/firmware"};
  options.read_only_paths = {"/proc/sys"};
  return options;
}

void TestMachine::fail(const Message& message) {
  const auto* failure = std::get_if<Failure>(&message);
  throw Error(ErrorKind::kInternal, failure ? "failure: " + failure->message
                                            : "message " + std::to_string(message.index()));
}

Frame TestMachine::receive() {
  std::string head(kFrameHeaderBytes, '\0');
  if (readFull(control_.get(), std::as_writable_bytes(std::span(head))) != head.size()) {
    throw Error(ErrorKind::kUnavailable, "control connection closed");
  }
  const auto header = decodeHeader(head);
  if (!header) throw Error(ErrorKind::kCorrupt, "bad header");
  std::string payload(header->payload_bytes, '\0');
  readFull(control_.get(), std::as_writable_bytes(std::span(payload)));
  auto frame = decodePayload(*header, payload);
  if (!frame) throw Error(ErrorKind::kCorrupt, "bad payload");
  if (auto* exited = std::get_if<ProcessExited>(&frame->message)) {
    exits_[exited->process] = *exited;
  }
  return std::move(*frame);
}

uint32_t TestMachine::send(const Message& message, const std::string& container) {
  const uint32_t number = next_request_++;
  writeFull(control_.get(), encode({number, container, message}));
  return number;
}

Message TestMachine::request(const Message& message, const std::string& container) {
  const uint32_t number = send(message, container);
  for (;;) {
    Frame frame = receive();
    if (frame.request == number) return std::move(frame.message);
  }
}

StartProcess TestMachine::shell(const std::string& script, const std::string& process) const {
  StartProcess start;
  start.process = process;
  start.arguments = {"sh", "-c", script};
  start.environment = {"PATH=/bin"};
  start.capabilities = 0xa80425fb;  // Docker's default set
  return start;
}

ProcessExited TestMachine::waitForExit(const std::string& process) {
  while (!exits_.contains(process)) receive();
  const ProcessExited exited = exits_[process];
  exits_.erase(process);
  return exited;
}

Fd TestMachine::open(OpenStream::Kind kind, const std::string& process, uint64_t offset,
                     const std::string& path, Message* reply) {
  Fd socket = host_->connect(kStreamPort);
  writeFull(socket.get(), encode({1, container_, OpenStream{process, kind, offset, path}}));
  std::string head(kFrameHeaderBytes, '\0');
  readFull(socket.get(), std::as_writable_bytes(std::span(head)));
  const auto header = decodeHeader(head);
  std::string payload(header ? header->payload_bytes : 0, '\0');
  readFull(socket.get(), std::as_writable_bytes(std::span(payload)));
  const auto frame = header ? decodePayload(*header, payload) : std::nullopt;
  if (!frame) throw Error(ErrorKind::kCorrupt, "bad reply to OpenStream");
  if (reply) {
    *reply = frame->message;
  } else if (!std::holds_alternative<Ok>(frame->message)) {
    fail(frame->message);
  }
  return socket;
}

TestMachine::Outcome TestMachine::finish(const std::string& process, bool forget) {
  Outcome outcome;
  const Fd out = open(OpenStream::Kind::kStdout, process);
  outcome.out = readToEnd(out.get());
  const Fd err = open(OpenStream::Kind::kStderr, process);
  outcome.err = readToEnd(err.get());
  const ProcessExited exited = waitForExit(process);
  outcome.exit_code = exited.exit_code;
  outcome.out_of_memory = exited.out_of_memory;
  if (forget) ask(ForgetProcess{process});
  return outcome;
}

TestMachine::Outcome TestMachine::run(const StartProcess& start, const std::string& input) {
  ask<ProcessStarted>(start);
  if (start.open_stdin) {
    const Fd in = open(OpenStream::Kind::kStdin, start.process);
    writeFull(in.get(), input);
    shutdown(in.get(), SHUT_WR);
    readToEnd(in.get());
  }
  return finish(start.process);
}

std::string TestMachine::readTree(OpenStream::Kind kind, const std::string& path, uint64_t layer) {
  const Fd socket = open(kind, "", layer, path);
  const std::string stream = readToEnd(socket.get());
  ByteReader in(stream);
  std::string tar;
  for (;;) {
    const std::string_view chunk = in.view(kMaxChunkBytes);
    if (chunk.empty()) break;
    tar += chunk;
  }
  const std::string error = in.string(kMaxChunkBytes);
  if (!in.complete()) throw Error(ErrorKind::kCorrupt, "chunk stream broken");
  if (!error.empty()) throw Error(ErrorKind::kInternal, error);
  return tar;
}

std::string TestMachine::writeTree(OpenStream::Kind kind, const std::string& tar,
                                   const std::string& path) {
  const Fd socket = open(kind, "", 0, path);
  for (size_t at = 0; at < tar.size(); at += kMaxChunkBytes) {
    ByteWriter chunk;
    chunk.string(std::string_view(tar).substr(at, kMaxChunkBytes));
    writeFull(socket.get(), chunk.bytes());
  }
  writeFull(socket.get(), std::string(8, '\0'));
  const std::string end = readToEnd(socket.get());
  ByteReader in(end);
  if (in.u32() != 0) throw Error(ErrorKind::kCorrupt, "bad end");
  return in.string(kMaxChunkBytes);
}

}  // namespace hull::guest
