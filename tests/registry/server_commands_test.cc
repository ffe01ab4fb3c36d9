// hull-registry as a program: its options, its commands beside a running server, its signals.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "registry/client/client.h"
#include "registry/client/transfer.h"
#include "registry/server/acceptor.h"
#include "registry/server/repositories.h"
#include "registry/server/server.h"

namespace hull::registry {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// A server of its own process, and what it logs.
class Program {
 public:
  explicit Program(std::vector<std::string> arguments) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0) throw sysError("create pipe");
    log_ = Fd(ends[0]);
    const Fd into(ends[1]);
    arguments.insert(arguments.begin(), HULL_REGISTRY);
    SubprocessOptions options;
    options.arguments = std::move(arguments);
    options.descriptors = {{into.get(), 2}};
    process_ = std::make_unique<Subprocess>(options);
  }

  // The next line with this text; "" when it ended without one.
  std::string waitFor(const std::string& text) {
    std::string line;
    for (char c; ::read(log_.get(), &c, 1) == 1;) {
      if (c != '\n') {
        line += c;
        continue;
      }
      if (line.find(text) != std::string::npos) return line;
      line.clear();
    }
    return "";
  }
  void signal(int number) { process_->kill(number); }
  int stop() {
    process_->kill(SIGTERM);
    return process_->wait();
  }

 private:
  Fd log_;
  std::unique_ptr<Subprocess> process_;
};

class ServerCommands : public ::testing::Test {
 protected:
  std::string file(const std::string& name) const { return folder_.path() + "/" + name; }

  static std::string urlOf(Program& program) {
    const std::string said = program.waitFor("listening on http://");
    if (said.empty()) return "";
    const size_t from = said.find("http://");
    return said.substr(from, said.find(',', from) - from);
  }

  std::unique_ptr<Transfer> ask(const std::string& url) const {
    TransferRequest request;
    request.url = Url::parse(url);
    return std::make_unique<Transfer>(request, options_);
  }

  TemporaryDirectory folder_{"hull-registry-commands"};
  ClientOptions options_;
};

TEST_F(ServerCommands, Version) {
  const CommandResult result = runCommand({HULL_REGISTRY, "--version"});
  EXPECT_EQ(result.status, 0) << result.errors;
  EXPECT_EQ(result.output, std::string("hull-registry ") + HULL_VERSION + "\n");
}

TEST_F(ServerCommands, GcSaysThatAGraceIsNoTime) {
  const std::vector<std::string> gc = {HULL_REGISTRY, "gc", "--root", file("r"), "--grace"};
  const auto with = [&](const std::string& grace) {
    std::vector<std::string> arguments = gc;
    arguments.push_back(grace);
    return runCommand(arguments);
  };
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.root = file("r");
  const auto check = [&](const std::string& when) {
    const CommandResult refused = with("banana");
    EXPECT_EQ(refused.status, 2) << when;
    EXPECT_THAT(refused.errors, AllOf(HasSubstr("--grace: \"banana\" is no time (as in 45s"),
                                      Not(HasSubstr("running server"))))
        << when;
    const CommandResult done = with("1h");
    EXPECT_EQ(done.status, 0) << when << ": " << done.errors;
    EXPECT_THAT(done.output, HasSubstr("removed 0 tags")) << when;
  };
  {
    const Server server(options);
    check("beside a server");
    const Fd control = connectToPath(file("r"), kControlSocket);
    writeFull(control.get(),
              "POST /gc?grace=banana HTTP/1.1\r\nHost: local\r\nConnection: close\r\n"
              "Content-Length: 0\r\n\r\n");
    FdSource source(control.get());
    EXPECT_THAT(readAll(source, 10000, "answer"),
                AllOf(HasSubstr("HTTP/1.1 400"), HasSubstr("\"banana\" is no time")));
  }
  check("alone");
}

TEST_F(ServerCommands, GcLeavesImmutableTagsAlone) {
  writeFileAtomic(file("r.json"), R"({"immutable_tags": ["a:v*"], "collection": {
      "retention": [{"repository": "**", "keep_newest": 1}]}})");
  {
    RepositoryStore store(file("r"));
    for (const char* tag : {"v1", "v2", "x1", "x2"}) {
      NewManifest manifest;
      manifest.bytes = R"({"schemaVersion":2,"layers":[]})";
      manifest.digest = image::Digest::of(manifest.bytes);
      manifest.media_type = "application/vnd.oci.image.manifest.v1+json";
      manifest.tag = tag;
      ASSERT_FALSE(store.putManifest("a", manifest));
    }
  }
  const auto check = [&](const std::string& when) {
    const CommandResult would = runCommand(
        {HULL_REGISTRY, "gc", "--root", file("r"), "--config", file("r.json"), "--dry-run"});
    EXPECT_EQ(would.status, 0) << when << ": " << would.errors;
    EXPECT_THAT(would.output, AllOf(HasSubstr("tag a:x1\n"), Not(HasSubstr("tag a:v")))) << when;
  };
  check("alone");
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.root = file("r");
  const Server server(options, file("r.json"));
  check("beside a server");
}

TEST_F(ServerCommands, SighupOpensTheAccessLogAnew) {
  Program program({"--root", file("r"), "--listen", "127.0.0.1:0", "--access-log", file("log")});
  const std::string url = urlOf(program);
  ASSERT_NE(url, "");
  EXPECT_EQ(ask(url + "/v2/before/manifests/x")->head().status, 404);
  for (int i = 0; i < 600 && readFile(file("log")).empty(); ++i) {  // logged after the answer
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  std::filesystem::rename(file("log"), file("log.1"));
  program.signal(SIGHUP);
  ASSERT_NE(program.waitFor("read the configuration again"), "");
  EXPECT_EQ(ask(url + "/v2/after/manifests/x")->head().status, 404);
  EXPECT_EQ(program.stop(), 0);
  EXPECT_THAT(readFile(file("log")),
              AllOf(HasSubstr("GET /v2/after/manifests/x"), Not(HasSubstr("/v2/before/"))));
  EXPECT_THAT(readFile(file("log.1")),
              AllOf(HasSubstr("GET /v2/before/manifests/x"), Not(HasSubstr("/v2/after/"))));
}

TEST_F(ServerCommands, WhoAsksTooOftenIsToldWhenToComeBack) {
  writeFileAtomic(file("r.json"), R"({"limits": {"requests_per_second": 1}})");
  Program program({"--root", file("r"), "--listen", "127.0.0.1:0", "--config", file("r.json")});
  const std::string url = urlOf(program);
  ASSERT_NE(url, "");
  std::unique_ptr<Transfer> answer;
  int admitted = 0;
  for (; admitted < 1000; ++admitted) {  // each takes far less than a second
    answer = ask(url + "/v2/");
    if (answer->head().status != 200) break;
  }
  EXPECT_GE(admitted, 10) << "the burst";
  EXPECT_EQ(answer->head().status, 429);
  EXPECT_EQ(answer->head().header("retry-after"), "1");
  EXPECT_THAT(answer->text(1000, "error"), HasSubstr("TOOMANYREQUESTS"));
}

}  // namespace
}  // namespace hull::registry
