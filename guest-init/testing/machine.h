// A "machine" for tests: the whole of hull-init over two ext4 images made from busybox, wherever
// host.h finds a place for it. The same tests run natively and in a virtual machine. One thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/file.h"
#include "guest-init/protocol/protocol.h"
#include "guest-init/testing/host.h"

namespace hull::guest {

class TestMachine {
 public:
  static std::string whyNot();  // empty: it can run

  TestMachine();

  // Whose everything without a container is from now on; "c" at first.
  void use(const std::string& container) { container_ = container; }
  uint32_t send(const Message& message, const std::string& container);  // its number
  template <typename Reply>
  Reply receiveReply() {  // to the first request that is not answered yet
    return expect<Reply>(receive().message);
  }
  Message request(const Message& message, const std::string& container);
  Message request(const Message& message) { return request(message, container_); }
  // request() that must succeed.
  template <typename Reply = Ok>
  Reply ask(const Message& message, const std::string& container) {
    return expect<Reply>(request(message, container));
  }
  template <typename Reply = Ok>
  Reply ask(const Message& message) {
    return ask<Reply>(message, container_);
  }
  CreateContainer containerOptions() const;  // of the two disks
  void create() { ask(containerOptions()); }
  const TestDisks& disks() const { return disks_; }  // the images themselves

  // A process whose output is collected to its end.
  struct Outcome {
    int exit_code = -1;
    bool out_of_memory = false;
    std::string out;
    std::string err;
  };
  StartProcess shell(const std::string& script, const std::string& process = "main") const;
  Outcome finish(const std::string& process, bool forget = true);
  Outcome run(const StartProcess& start, const std::string& input = {});
  Outcome run(const std::string& script) { return run(shell(script)); }

  ProcessExited waitForExit(const std::string& process);
  Fd open(OpenStream::Kind kind, const std::string& process, uint64_t offset = 0,
          const std::string& path = {}, Message* reply = nullptr);
  std::string readTree(OpenStream::Kind kind, const std::string& path = {}, uint64_t layer = 0);
  std::string writeTree(OpenStream::Kind kind, const std::string& tar,
                        const std::string& path = {});  // the error, empty after success
  void reconnect();
  std::string waitForPowerOff() { return host_->waitForPowerOff(); }

 private:
  template <typename Reply>
  static Reply expect(Message message) {
    if (auto* reply = std::get_if<Reply>(&message)) return std::move(*reply);
    fail(message);
  }
  [[noreturn]] static void fail(const Message& message);
  Frame receive();
  TestDisks makeDisks();

  TemporaryDirectory folder_{"hull-init-test"};
  TestDisks disks_;
  std::string container_ = "c";
  std::unique_ptr<TestHost> host_;
  Fd control_;
  uint32_t next_request_ = 1;
  std::map<std::string, ProcessExited> exits_;
};

std::string readToEnd(int fd);

}  // namespace hull::guest
