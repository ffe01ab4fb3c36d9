// The RUN instruction.
#include "image/build/stage_builder.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "image/build/step_text.h"

namespace hull::build {

using image::KeepBlob;

namespace {

constexpr const char* kDefaultPath =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr auto kCancelPoll = std::chrono::milliseconds(200);

// Calls cancel() when `cancelled` turns true, for as long as it lives.
class CancelWatch {
 public:
  CancelWatch(const std::function<bool()>& cancelled, StageSession& session) {
    if (!cancelled) return;
    thread_ = std::thread([this, &cancelled, &session] {
      std::unique_lock lock(mutex_);
      while (!done_.wait_for(lock, kCancelPoll, [this] { return finished_; })) {
        if (cancelled()) return session.cancel();
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
  bool path = false;
  for (const auto& item : config_.env) {
    const std::string name = item.substr(0, item.find('='));
    path |= name == "PATH";
    if (!extra.contains(name)) environment.push_back(item);
  }
  for (const auto& [name, value] : extra) {
    path |= name == "PATH";
    environment.push_back(name + "=" + value);
  }
  if (!path) environment.push_back(kDefaultPath);
  return environment;
}

void StageBuilder::runCommand(const Instruction& at) {
  for (const auto& flag : at.flags) {
    if (flag.name == "network" && flag.value == "default") continue;
    throw build_.file.error(at.line, flag.column, "RUN --" + flag.name + " is not supported yet");
  }
  RunStep step;
  step.environment = runEnvironment();
  step.working_directory = config_.working_dir.empty() ? "/" : config_.working_dir;
  step.user = config_.user;
  if (at.exec) {
    step.arguments = *at.exec;
  } else if (at.heredocs.empty()) {
    step.arguments = shellForm(at.rest);
  } else if (at.rest.starts_with("<<") && at.heredocs.size() == 1 &&
             at.rest.find(' ') == std::string::npos) {
    const std::string& body = at.heredocs[0].content;
    if (body.starts_with("#!")) {
      step.arguments = {
          "/bin/sh", "-c",
          "f=$(mktemp) && cat >\"$f\" && chmod 700 \"$f\" && \"$f\"; s=$?; rm -f \"$f\"; exit $s"};
      step.stdin_text = body;
    } else {
      step.arguments = shellForm(body);
    }
  } else {
    std::string script = at.rest + "\n";
    for (const auto& heredoc : at.heredocs) script += heredoc.content + heredoc.name + "\n";
    step.arguments = shellForm(script);
  }
  if (step.arguments.empty()) throw Error(ErrorKind::kInvalidArgument, "RUN needs a command");

  std::vector<std::string> chain;
  for (const auto& layer : root_->layers()) chain.push_back(layer.text());
  std::vector<std::string> keyed_environment;
  for (const auto& item : step.environment) {
    const std::string name = item.substr(0, item.find('='));
    if (!proxyArgs().contains(name) || args_.contains(name)) keyed_environment.push_back(item);
  }
  const std::string key = hashOf({"run", key_, hashOf(chain), hashOf(step.arguments),
                                  hashOf(keyed_environment), step.working_directory, step.user,
                                  step.stdin_text, build_.request.network ? "net" : "none"});
  std::string history = "RUN ";
  if (!args_.empty()) {
    history += "|" + std::to_string(args_.size());
    for (const auto& [name, value] : args_) history += " " + name + "=" + value;
    history += " ";
  }
  history += joinWords(step.arguments) + " # buildkit";
  layerStep(
      key, history,
      {[&] {
         StageSession& vm = session();
         StepResult result;
         {
           const CancelWatch watch(build_.hooks.cancelled, vm);
           result = vm.run(step, [this](OutputStream stream, std::string_view text) {
             if (build_.hooks.report)
               build_.hooks.report({BuildEvent::Kind::kOutput, std::string(text), stream, {}});
           });
         }
         build_.checkCancelled();
         if (result.exit_code != 0) {
           throw Error(ErrorKind::kInvalidArgument,
                       "The command '" + joinWords(step.arguments) +
                           "' returned a non-zero code: " + std::to_string(result.exit_code) +
                           (result.out_of_memory
                                ? " (it ran out of memory: give the build more with --memory)"
                                : ""));
         }
         return ingestTar(build_.store.layers(), KeepBlob::kCompress,
                          [&](Sink& tar) { vm.readLayer(tar); });
       },
       true});
}

}  // namespace hull::build
