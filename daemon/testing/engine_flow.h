// The fixture of the engine's flow tests: a whole engine over machines of local processes, which
// can be stopped and started again while the machines run on.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "base/file.h"
#include "base/testing/refusal.h"
#include "daemon/engine/engine.h"
#include "daemon/testing/local_machine.h"
#include "daemon/vm/output_log.h"

namespace hull::engine::testing {

class EngineFlow : public ::testing::Test {
 protected:
  void SetUp() override { boot(); }

  void boot() {
    options_.root = root_.path();
    EngineLock lock(options_.root);
    EngineParts parts;
    host_.usedBy(parts);
    parts.network = makeLocalNetwork();
    parts.images = std::make_shared<image::ImageStore>(options_.root);
    if (parts.images->list().empty()) addTestImages(*parts.images);
    engine_ = std::make_unique<Engine>(std::move(lock), std::move(parts), options_);
  }
  void reboot() {
    engine_.reset();
    boot();
  }

  std::shared_ptr<Container> create(const std::string& script, const std::string& more = "",
                                    const std::string& name = "box") {
    const std::string body =
        R"({"Image":"debian","Cmd":["sh","-c",")" + script + "\"]" + more + "}";
    return containers().get(containers().create(body, name, "").id);
  }
  Containers& containers() { return engine_->containers(); }
  std::shared_ptr<Container> box() { return containers().get("box"); }

  int exitOf(const std::shared_ptr<Container>& container) {
    const auto wait = container->wait(Container::WaitCondition::kNotRunning);
    const auto result = wait->getFor(std::chrono::minutes(1));
    EXPECT_TRUE(result) << "it did not end";
    return result ? result->exit_code : -1;
  }
  std::string logOf(const Container& container) {
    LogReader reader(container.logPath(), {}, nullptr);
    std::string text;
    while (const auto entry = reader.next()) text += entry->text;
    return text;
  }

  TemporaryDirectory root_{"hull-engine"};
  LocalHost host_;
  EngineOptions options_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace hull::engine::testing
