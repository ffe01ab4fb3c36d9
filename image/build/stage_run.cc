// The RUN instruction.
#include "image/build/stage_builder.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "image/build/step_text.h"

namespace hull::build {

using image::IngestedLayer;

namespace {

constexpr auto kCancelPoll = std::chrono::milliseconds(200);

// Calls cancel() when `cancelled` turns true, for as long as it lives.
class CancelWatch {
 public:
  CancelWatch(const BuildState& build, StageSession& session) {
    thread_ = std::thread([this, &build, &session] {
      std::unique_lock lock(mutex_);
      while (!done_.wait_for(lock, kCancelPoll, [this] { return finished_; })) {
        if (build.cancelled()) return session.cancel();
      }
    });
  }
  ~CancelWatch() {
    {
      const std::lock_guard lock(mutex_);
      finished_ = true;
    }
    done_.notify_all();
    if (thread_.joinable()) thread_.join();
  }
  CancelWatch(const CancelWatch&) = delete;
  CancelWatch& operator=(const CancelWatch&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  bool finished_ = false;
  std::thread thread_;
};

// The end of what a step said, for the error when it fails.
class LastOutput {
 public:
  void add(std::string_view text) {
    text_ += text;
    if (text_.size() > 2 * kMaxBytes) text_.erase(0, text_.size() - kMaxBytes);
  }
  // At most kMaxLines lines, indented; empty when there was none.
  std::string shown() const {
    std::string_view rest = text_;
    while (rest.ends_with('\n')) rest.remove_suffix(1);
    if (rest.empty()) return {};
    size_t start = rest.size();
    for (size_t lines = 0; lines < kMaxLines && start != std::string_view::npos && start > 0;
         ++lines) {
      start = rest.rfind('\n', start - 1);
    }
    if (start != std::string_view::npos && start < rest.size()) rest.remove_prefix(start + 1);
    if (rest.size() > kMaxBytes) rest.remove_prefix(rest.size() - kMaxBytes);
    std::string text = "\nlast output:\n  ";
    for (const char c : rest) {
      text += c;
      if (c == '\n') text += "  ";
    }
    return text;
  }

 private:
  static constexpr size_t kMaxLines = 10;
  static constexpr size_t kMaxBytes = 4096;
  std::string text_;
};

}  // namespace

std::vector<std::string> StageBuilder::shellForm(const std::string& command) const {
  std::vector<std::string> arguments =
      config_.shell.empty() ? std::vector<std::string>{"/bin/sh", "-c"} : config_.shell;
  arguments.push_back(command);
  return arguments;
}

std::vector<std::string> StageBuilder::runEnvironment() const {
  std::map<std::string, std::string> extra = args_;
  for (const auto& name : proxyArgs()) {
    const auto given = build_.request.build_args.find(name);
    if (given != build_.request.build_args.end()) extra.emplace(name, given->second);
  }
  std::vector<std::string> environment;
  for (const auto& item : config_.env) {
    if (!extra.contains(item.substr(0, item.find('=')))) environment.push_back(item);
  }
  for (const auto& [name, value] : extra) environment.push_back(name + "=" + value);
  return environment;
}

RunStep StageBuilder::runStep(const Instruction& at) const {
  RunStep step;
  step.environment = runEnvironment();
  step.working_directory = config_.working_dir.empty() ? "/" : config_.working_dir;
  step.user = config_.user;
  if (at.exec) {
    step.arguments = *at.exec;
  } else if (at.heredocs.empty()) {
    step.arguments = shellForm(at.rest);
  } else if (at.rest.starts_with("<<") && at.heredocs.size() == 1 &&
             at.rest.find_first_of(" \t") == std::string::npos) {
    const std::string& body = at.heredocs[0].content;
    if (body.starts_with("#!")) {  // a program of its own
      RunMount script;
      script.kind = RunMount::Kind::kFile;
      script.target = "/dev/pipes/" + cleanPath(at.heredocs[0].name);
      script.content = body;
      step.arguments = {script.target};
      step.mounts.push_back(std::move(script));
    } else {
      step.arguments = shellForm(body);
    }
  } else {
    std::string script = at.rest + "\n";
    for (const auto& heredoc : at.heredocs) script += heredoc.content + heredoc.name + "\n";
    step.arguments = shellForm(script);
  }
  if (step.arguments.empty()) throw Error(ErrorKind::kInvalidArgument, "RUN needs a command");
  return step;
}

std::string StageBuilder::runHistory(const Instruction& at, const RunStep& step) const {
  std::string history = "RUN ";
  if (!args_.empty()) {
    history += "|" + std::to_string(args_.size());
    for (const auto& [name, value] : args_) history += " " + name + "=" + value;
    history += " ";
  }
  const bool script = step.arguments.front().starts_with("/dev/pipes/") && !at.heredocs.empty();
  return history + joinWords(script ? shellForm(at.heredocs[0].content) : step.arguments) +
         " # buildkit";
}

bool StageBuilder::runFlags(const Instruction& at, RunStep& step) const {
  bool network = build_.request.network;
  for (const auto& flag : at.flags) {
    if (flag.name == "network") {
      if (flag.value != "default" && flag.value != "none") {
        throw build_.file.error(
            flag, flag.value == "host"
                      ? "RUN --network=host is not supported: a step runs in a "
                        "machine with a network of its own"
                      : "unsupported network \"" + flag.value + "\" (default or none)");
      }
      network = network && flag.value != "none";
    } else if (flag.name == "security") {
      if (flag.value != "sandbox" && flag.value != "insecure") {
        throw build_.file.error(
            flag, "unsupported security mode \"" + flag.value + "\" (sandbox or insecure)");
      }
      step.all_capabilities = flag.value == "insecure";
    }
  }
  return network;
}

void StageBuilder::runCommand(const Instruction& at) {
  const image::Platform host;
  if (!isFor(host)) {
    throw Error(ErrorKind::kNotSupported,
                "RUN in a stage for " + platform_.text() + ": steps run in a virtual machine for " +
                    host.text() +
                    ", which emulates no other (run it in a stage FROM --platform=$BUILDPLATFORM "
                    "and COPY --from that)");
  }
  RunStep step = runStep(at);
  const bool network = runFlags(at, step);
  std::vector<std::string> keyed_environment;
  for (const auto& item : step.environment) {
    const std::string name = item.substr(0, item.find('='));
    if (!proxyArgs().contains(name) || args_.contains(name)) keyed_environment.push_back(item);
  }
  std::string scripts;
  for (const auto& script : step.mounts) scripts += script.content;
  const std::string history = runHistory(at, step);
  CopyWork work;
  const std::vector<std::string> mounts = addMounts(at, step, work);
  const std::string key =
      hashOf({"run", key_, chainKey(), hashOf(step.arguments), hashOf(keyed_environment),
              step.working_directory, step.user, scripts, network ? "net" : "none", hashOf(mounts),
              step.all_capabilities ? "insecure" : "", platform_.text()});
  Step made{key, history, [&] { return executeRun(at, step, network); }, true};
  made.told = at.flags.empty();  // the history has no flags
  layerStep(made);
}

IngestedLayer StageBuilder::executeRun(const Instruction& at, const RunStep& step, bool network) {
  StageSession& vm = session(network, step.mounts);
  StepResult result;
  LastOutput last;
  {
    const CancelWatch watch(build_, vm);
    result = vm.run(step, [&](OutputStream stream, std::string_view text) {
      last.add(text);
      report(BuildEvent::Kind::kOutput, std::string(text), {}, stream);
    });
  }
  build_.checkCancelled();
  if (result.exit_code != 0) {
    const Error located = build_.file.error(
        at, "The command '" + joinWords(step.arguments) +
                "' returned a non-zero code: " + std::to_string(result.exit_code) + " " + place_ +
                (result.out_of_memory ? " (it ran out of memory: give the build more with --memory)"
                                      : ""));
    throw Error(ErrorKind::kInvalidArgument, located.what() + last.shown());
  }
  IngestedLayer layer = makeLayer([&](Sink& tar) { vm.readLayer(tar); });
  if (vm.contended()) release_session_ = true;
  return layer;
}

}  // namespace hull::build
