// What the builder's tests share: a store in a folder of its own, a stand-in for the virtual
// machines, contexts made of pairs. For tests only.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "image/build/builder.h"
#include "image/build/copy.h"
#include "image/build/rootfs.h"

namespace hull::build::testing {

using image::Entry;
using image::EntryType;

// Plays a VM: every RUN adds one file named after its command, holding the environment it got.
class FakeRunner final : public StepRunner {
 public:
  struct Ran {
    RunStep step;
    size_t layers;  // of the stack the session was opened on
  };
  std::unique_ptr<StageSession> open(const std::vector<image::Digest>& diff_ids,
                                     const SessionOptions& wanted) override {
    const std::lock_guard lock(mutex);
    ++sessions;
    options.push_back(wanted);
    return std::make_unique<Session>(*this, diff_ids.size());
  }
  // Guards what follows: stages run in parallel.
  std::mutex mutex;
  std::vector<Ran> ran;
  std::function<void(const RunStep&)> on_run;  // called outside the lock
  std::vector<SessionOptions> options;
  int sessions = 0;
  int applied = 0;
  int exit_code = 0;

 private:
  class Session final : public StageSession {
   public:
    Session(FakeRunner& owner, size_t layers) : owner_(owner), layers_(layers) {}
    StepResult run(const RunStep& step, const OutputFunction& output) override {
      std::function<void(const RunStep&)> on_run;
      {
        const std::lock_guard lock(owner_.mutex);
        owner_.ran.push_back({step, layers_});
        number_ = owner_.ran.size();
        environment_ = step.environment;
        on_run = owner_.on_run;
      }
      if (on_run) on_run(step);
      output(OutputStream::kStdout, "ran\n");
      return {owner_.exit_code, false};
    }
    void readLayer(Sink& sink) override {
      image::LayerTarWriter tar(sink);
      const Fd content = makeMemfd("content");
      std::string text;
      for (const auto& item : environment_) text += item + "\n";
      writeFull(content.get(), text);
      Entry entry;
      entry.path = "ran-" + std::to_string(number_);
      entry.mode = 0644;
      entry.size = text.size();
      tar.add(entry, content.get());
      tar.finish();
    }
    void applyLayer(Source& tar) override {
      NullSink sink;
      copy(tar, sink);
      const std::lock_guard lock(owner_.mutex);
      ++owner_.applied;
    }
    void cancel() override {}

   private:
    FakeRunner& owner_;
    size_t layers_;
    size_t number_ = 0;
    std::vector<std::string> environment_;
  };
};

class BuilderTest : public ::testing::Test {
 protected:
  // name → contents; a name ending in '/' is a folder, contents starting with "-> " a link.
  std::string contextTar(const std::vector<std::pair<std::string, std::string>>& files) {
    StringSink out;
    image::LayerTarWriter tar(out);
    for (const auto& [name, text] : files) {
      Entry entry;
      entry.path = name;
      entry.mode = 0644;
      entry.uid = 1234;  // the sender's; must not show
      entry.mtime_seconds = ++clock_;
      const Fd content = makeMemfd("content");
      if (name.ends_with('/')) {
        entry.path.pop_back();
        entry.type = EntryType::kDirectory;
        entry.mode = 0700;
      } else if (text.starts_with("-> ")) {
        entry.type = EntryType::kSymlink;
        entry.link = text.substr(3);
      } else {
        writeFull(content.get(), text);
        entry.size = text.size();
      }
      tar.add(entry, content.get());
    }
    tar.finish();
    return out.text;
  }

  image::Image build(const std::string& dockerfile,
                     std::vector<std::pair<std::string, std::string>> files = {}) {
    files.emplace_back("Dockerfile", dockerfile);
    const std::string tar = contextTar(files);
    StringSource context(tar);
    events_.clear();
    BuildHooks hooks;
    hooks.report = [this](const BuildEvent& event) { events_.push_back(event); };
    hooks.pull_image = [this](const image::Reference& name,
                              const image::Platform& platform) -> image::Image {
      pulled_.push_back(platform.text());
      throw Error(ErrorKind::kNotFound, "pull " + name.text() + ": not in this test");
    };
    return buildImage(store_, runner_, context, request_, hooks);
  }

  std::string failure(const std::string& dockerfile,
                      std::vector<std::pair<std::string, std::string>> files = {}) {
    try {
      build(dockerfile, std::move(files));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  std::string fileOf(const image::Image& image, const std::string& path) {
    RootFs root(store_.layers(), image.config.diff_ids);
    return root.readFile(path, 1 << 20);
  }
  const image::Inode inodeOf(const image::Image& image, const std::string& path) {
    const RootFs root(store_.layers(), image.config.diff_ids);
    const auto number = root.tree().find(path);
    EXPECT_NE(number, image::kNoInode) << path;
    return number == image::kNoInode ? image::Inode{} : root.tree().at(number);
  }
  bool has(const image::Image& image, const std::string& path) {
    return RootFs(store_.layers(), image.config.diff_ids).tree().find(path) != image::kNoInode;
  }
  int cachedSteps() const {
    return static_cast<int>(std::count_if(events_.begin(), events_.end(), [](const BuildEvent& e) {
      return e.kind == BuildEvent::Kind::kStepCached;
    }));
  }

  TemporaryDirectory folder_{"hull-build-test"};
  image::ImageStore store_{folder_.path()};
  FakeRunner runner_;
  BuildRequest request_;
  std::vector<BuildEvent> events_;
  std::vector<std::string> pulled_;  // the platforms asked for
  int64_t clock_ = 1'700'000'000;
};

}  // namespace hull::build::testing
