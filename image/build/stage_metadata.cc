// ENV, ARG, LABEL, WORKDIR and the instructions that only change the configuration.
#include "image/build/stage_builder.h"

#include <signal.h>
#include <string.h>

#include <algorithm>
#include <charconv>
#include <tuple>

#include "base/error.h"
#include "image/build/step_text.h"

namespace hull::build {

using image::KeepBlob;

namespace {

constexpr size_t kMaxPortsPerExpose = 65'536;
constexpr int64_t kMinHealthNs = 1'000'000;

int64_t parseDuration(const std::string& text) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
  double total = 0;
  for (std::string_view rest = text; !rest.empty();) {
    double number = 0;
    const auto [end, failed] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    if (failed != std::errc{})
      throw Error(ErrorKind::kInvalidArgument,
                  "invalid duration \"" + text + "\" (like 30s or 1m30s)");
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    const size_t unit_end = std::min(rest.find_first_of("0123456789."), rest.size());
    const auto unit = std::find_if(std::begin(kUnits), std::end(kUnits), [&](const auto& u) {
      return u.first == rest.substr(0, unit_end);
    });
    if (unit == std::end(kUnits))
      throw Error(ErrorKind::kInvalidArgument,
                  "invalid duration \"" + text + "\" (like 30s or 1m30s)");
    total += number * unit->second;
    rest.remove_prefix(unit_end);
  }
  return static_cast<int64_t>(total);
}

}  // namespace

std::optional<std::string> StageBuilder::lookUp(std::string_view name) {
  const auto arg = args_.find(std::string(name));
  if (arg != args_.end()) return arg->second;
  const std::string prefix = std::string(name) + "=";
  for (const auto& item : config_.env) {
    if (item.starts_with(prefix)) return item.substr(prefix.size());
  }
  return std::nullopt;
}

std::string StageBuilder::expand(const std::string& word) {
  return expandWord(word, build_.file.escape,
                    [this](std::string_view name) { return lookUp(name); });
}

std::vector<std::string> StageBuilder::words(const Instruction& at) {
  std::vector<std::string> result = at.exec ? *at.exec : splitWords(at.rest, build_.file.escape);
  for (auto& word : result) word = expand(word);
  return result;
}

void StageBuilder::setEnv(const std::string& name, const std::string& value) {
  args_.erase(name);  // ENV after ARG wins
  const std::string prefix = name + "=";
  for (auto& item : config_.env) {
    if (item.starts_with(prefix)) {
      item = prefix + value;
      return;
    }
  }
  config_.env.push_back(prefix + value);
}

void StageBuilder::runEnv(const Instruction& at) {
  std::vector<std::pair<std::string, std::string>> pairs =
      splitPairs(at.rest, build_.file.escape, true);
  for (auto& [name, value] : pairs) {  // all see the values from before the instruction
    name = expand(name);
    value = expand(value);
  }
  std::string meaning = "ENV";
  std::vector<std::string> variables;
  for (const auto& [name, value] : pairs) {
    setEnv(name, value);
    meaning += " " + name + "=" + value;
    variables.push_back(name + "=" + value);
  }
  configStep(at, meaning, std::move(variables));
}

void StageBuilder::runArg(const Instruction& at) {
  std::string meaning = "ARG";
  for (const auto& word : splitWords(at.rest, build_.file.escape)) {
    const size_t equals = word.find('=');
    const std::string name = expand(word.substr(0, equals));
    build_.useArg(name);
    std::optional<std::string> value;
    const auto given = build_.request.build_args.find(name);
    const auto global = build_.plan.global_args.find(name);
    const auto platform = build_.plan.platform_args.find(name);
    if (given != build_.request.build_args.end())
      value = given->second;
    else if (equals != std::string::npos)
      value = expand(word.substr(equals + 1));
    else if (global != build_.plan.global_args.end())
      value = global->second;
    else if (platform != build_.plan.platform_args.end())
      value = platform->second;
    if (value) args_[name] = *value;
    meaning += " " + name + (value ? "=" + *value : "");
  }
  configStep(at, meaning);
}

void StageBuilder::runLabel(const Instruction& at) {
  std::string meaning = "LABEL";
  for (const auto& [name, value] : splitPairs(at.rest, build_.file.escape, true)) {
    const std::string key = expand(name), text = expand(value);
    config_.labels[key] = text;
    meaning += " " + key + "=" + text;
  }
  configStep(at, meaning);
}

void StageBuilder::runWorkdir(const Instruction& at) {
  const std::string path = joinPath(config_.working_dir, expand(at.rest));
  config_.working_dir = "/" + path;
  std::vector<image::Entry> missing =
      missingDirectories(*root_, path, root_->lookUpUser(config_.user));
  const std::string meaning = "WORKDIR /" + path;
  if (missing.empty()) return configStep(at, meaning);
  for (auto& entry : missing) {
    if (entry.mtime_seconds == 0) entry.mtime_seconds = build_.now_seconds;
  }
  layerStep({hashOf({"workdir", key_, meaning, config_.user}), meaning, [&] {
               return makeLayer([&](Sink& sink) {
                 image::LayerTarWriter tar(sink);
                 for (const auto& entry : missing) tar.add(entry, -1);
                 tar.finish();
               });
             }});
}

namespace {

// SIGTERM, TERM, 15, SIGRTMIN+3 as Docker takes them.
void checkSignal(const std::string& text) {
  std::string_view name = text;
  if (name.starts_with("SIG")) name.remove_prefix(3);
  int number = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failed == std::errc{} && end == text.data() + text.size() && number > 0 && number < NSIG)
    return;
  for (int signal = 1; signal < NSIG; ++signal) {
    const char* known = sigabbrev_np(signal);
    if (known != nullptr && name == known) return;
  }
  for (const auto& [base, sign, most] :
       {std::tuple{"RTMIN", '+', 15}, std::tuple{"RTMAX", '-', 14}}) {
    const std::string_view prefix(base);
    if (name == prefix) return;
    if (!name.starts_with(prefix) || name.size() < prefix.size() + 2 || name[prefix.size()] != sign)
      continue;
    const std::string_view offset = name.substr(prefix.size() + 1);
    const auto parsed = std::from_chars(offset.data(), offset.data() + offset.size(), number);
    if (parsed.ec == std::errc{} && parsed.ptr == offset.data() + offset.size() && number >= 0 &&
        number <= most)
      return;
  }
  throw Error(ErrorKind::kInvalidArgument,
              "invalid signal: " + text + " (a name like SIGTERM, or a number)");
}

// "80", "80/udp", "8000-8010/tcp" → each port with its protocol.
void addExposed(std::vector<std::string>& ports, const std::string& word) {
  const size_t slash = word.find('/');
  const std::string protocol =
      slash == std::string::npos ? "tcp" : lowerCase(word.substr(slash + 1));
  unsigned first = 0, last = 0;
  const std::string range = word.substr(0, slash);
  const char* end = range.data() + range.size();
  auto [at, failed] = std::from_chars(range.data(), end, first);
  last = first;
  if (failed == std::errc{} && at != end && *at == '-') {
    const auto second = std::from_chars(at + 1, end, last);
    at = second.ptr;
    failed = second.ec;
  }
  const bool known = protocol == "tcp" || protocol == "udp" || protocol == "sctp";
  if (failed != std::errc{} || at != end || first == 0 || last > 65535 || last < first || !known) {
    throw Error(ErrorKind::kInvalidArgument,
                "invalid port: " + word + " (like 80, 53/udp or 8000-8010)");
  }
  for (unsigned port = first; port <= last && ports.size() < kMaxPortsPerExpose; ++port) {
    ports.push_back(std::to_string(port) + "/" + protocol);
  }
  std::sort(ports.begin(), ports.end());
  ports.erase(std::unique(ports.begin(), ports.end()), ports.end());
}

}  // namespace

void StageBuilder::runMetadata(const Instruction& at) {
  const std::string& keyword = at.keyword;
  std::string value;
  if (keyword == "CMD" || keyword == "ENTRYPOINT") {
    value = setCommand(at);
  } else if (keyword == "SHELL") {
    if (!at.exec || at.exec->empty())
      throw build_.file.error(
          at, "SHELL requires the arguments to be in JSON form: [\"/bin/bash\", \"-c\"]");
    config_.shell = *at.exec;
    value = joinWords(config_.shell);
  } else if (keyword == "USER") {
    value = config_.user = expand(at.rest);
  } else if (keyword == "STOPSIGNAL") {
    value = config_.stop_signal = expand(at.rest);
    checkSignal(value);
  } else if (keyword == "EXPOSE" || keyword == "VOLUME") {
    value = addToSet(at);
  } else if (keyword == "MAINTAINER") {
    value = author_ = at.rest;
  } else if (keyword == "ONBUILD") {
    value = addTrigger(at);
  } else {
    throw build_.file.error(at, keyword + " is not expected here");
  }
  configStep(at, keyword + " " + value);
}

std::string StageBuilder::setCommand(const Instruction& at) {
  std::vector<std::string> command = at.exec           ? *at.exec
                                     : at.rest.empty() ? std::vector<std::string>{}
                                                       : shellForm(at.rest);
  const std::string text = joinWords(command);
  if (at.keyword == "CMD") {
    config_.cmd = std::move(command);
    cmd_set_ = true;
  } else {
    config_.entrypoint = std::move(command);
    if (!cmd_set_) config_.cmd.reset();  // an inherited one was meant for another program
  }
  return text;
}

std::string StageBuilder::addToSet(const Instruction& at) {
  std::string text;
  for (const auto& word : words(at)) {
    auto& volumes = config_.volumes;
    if (at.keyword == "EXPOSE")
      addExposed(config_.exposed_ports, word);
    else if (word.empty())
      throw build_.file.error(at, "VOLUME specified can not be an empty string");
    else if (std::find(volumes.begin(), volumes.end(), word) == volumes.end())
      volumes.insert(std::lower_bound(volumes.begin(), volumes.end(), word), word);
    text += (text.empty() ? "" : " ") + word;
  }
  return text;
}

std::string StageBuilder::addTrigger(const Instruction& at) {
  std::string text = at.rest;
  for (const auto& heredoc : at.heredocs) text += "\n" + heredoc.content + heredoc.name;
  const Instruction trigger = parseInstruction(build_.file.name + " (ONBUILD)", text);
  if (trigger.keyword == "FROM" || trigger.keyword == "ONBUILD" ||
      trigger.keyword == "MAINTAINER") {
    throw build_.file.error(at, trigger.keyword + " isn't allowed as an ONBUILD trigger");
  }
  config_.on_build.push_back(text);
  return text;
}

namespace {

int64_t healthDuration(const Flag& flag) {
  const int64_t duration = parseDuration(flag.value);
  if (duration != 0 && duration < kMinHealthNs) {
    throw Error(ErrorKind::kInvalidArgument,
                "--" + flag.name + "=" + flag.value + " must be at least 1ms (or 0: the default)");
  }
  return duration;
}

int64_t healthRetries(const std::string& text) {
  int64_t retries = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), retries);
  if (failed != std::errc{} || end != text.data() + text.size() || retries < 0) {
    throw Error(ErrorKind::kInvalidArgument,
                "--retries=" + text + " must be a number, 0 (the default) or more");
  }
  return retries;
}

}  // namespace

void StageBuilder::runHealthCheck(const Instruction& at) {
  image::HealthCheck check;
  const std::string type = lowerCase(at.rest.substr(0, at.rest.find_first_of(" \t")));
  if (type == "none") {
    if (at.rest.size() != type.size() || !at.flags.empty())
      throw build_.file.error(at, "HEALTHCHECK NONE takes no arguments");
    check.test = {"NONE"};
  } else if (type == "cmd") {
    const Instruction command = parseInstruction(build_.file.name + " (HEALTHCHECK)", at.rest);
    if (command.rest.empty()) throw build_.file.error(at, "missing command after HEALTHCHECK CMD");
    check.test = {command.exec ? "CMD" : "CMD-SHELL"};
    if (command.exec)
      check.test.insert(check.test.end(), command.exec->begin(), command.exec->end());
    else
      check.test.push_back(command.rest);
  } else {
    throw build_.file.error(at, "HEALTHCHECK takes CMD … or NONE, not " + type);
  }
  for (const auto& flag : at.flags) {
    try {
      if (flag.name == "retries") check.retries = healthRetries(flag.value);
      if (flag.name == "interval") check.interval_ns = healthDuration(flag);
      if (flag.name == "timeout") check.timeout_ns = healthDuration(flag);
      if (flag.name == "start-period") check.start_period_ns = healthDuration(flag);
      if (flag.name == "start-interval") check.start_interval_ns = healthDuration(flag);
    } catch (const Error& error) {
      throw build_.file.error(flag, error.what());
    }
  }
  config_.health_check = check;
  configStep(at, at.text);
}

}  // namespace hull::build
