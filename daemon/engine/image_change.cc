#include "daemon/engine/image_change.h"

#include <algorithm>

#include "base/error.h"
#include "image/build/dockerfile.h"
#include "image/build/words.h"

namespace hull::engine {

namespace {

using build::Instruction;

// Outside a build there are no variables: "$X" stays as it is written.
std::string word(const std::string& text) {
  return build::expandWord(text, '\\', [](std::string_view name) {
    return std::optional<std::string>("$" + std::string(name));
  });
}

std::vector<std::string> commandOf(const Instruction& instruction) {
  if (instruction.exec) return *instruction.exec;
  return {"/bin/sh", "-c", instruction.rest};
}

void addSorted(std::vector<std::string>& list, const std::string& item) {
  const auto at = std::lower_bound(list.begin(), list.end(), item);
  if (at == list.end() || *at != item) list.insert(at, item);
}

void setVariable(std::vector<std::string>& env, const std::string& key, const std::string& value) {
  const auto old = std::find_if(env.begin(), env.end(), [&](const std::string& variable) {
    return variable.starts_with(key + "=");
  });
  if (old != env.end()) {
    *old = key + "=" + value;
  } else {
    env.push_back(key + "=" + value);
  }
}

void applyPairs(const Instruction& instruction, image::RuntimeConfig& config) {
  for (const auto& [key, value] : build::splitPairs(instruction.rest, '\\', true)) {
    if (instruction.keyword == "ENV") {
      setVariable(config.env, word(key), word(value));
    } else {
      config.labels[word(key)] = word(value);
    }
  }
}

}  // namespace

void applyChange(const std::string& change, image::RuntimeConfig& config) {
  const Instruction at = build::parseInstruction("--change", change);
  if (at.keyword == "CMD") {
    config.cmd = commandOf(at);
  } else if (at.keyword == "ENTRYPOINT") {
    config.entrypoint = commandOf(at);
  } else if (at.keyword == "ENV" || at.keyword == "LABEL") {
    applyPairs(at, config);
  } else if (at.keyword == "EXPOSE") {
    for (const std::string& port : build::splitWords(at.rest, '\\')) {
      addSorted(config.exposed_ports, port.find('/') == std::string::npos ? port + "/tcp" : port);
    }
  } else if (at.keyword == "VOLUME") {
    const auto paths = at.exec ? *at.exec : build::splitWords(at.rest, '\\');
    for (const std::string& path : paths) addSorted(config.volumes, path);
  } else if (at.keyword == "USER") {
    config.user = word(at.rest);
  } else if (at.keyword == "WORKDIR") {
    config.working_dir = word(at.rest);
  } else if (at.keyword == "STOPSIGNAL") {
    config.stop_signal = word(at.rest);
  } else if (at.keyword == "ONBUILD") {
    config.on_build.push_back(at.rest);
  } else {
    throw Error(ErrorKind::kInvalidArgument, at.keyword + " is not a valid change command");
  }
}

}  // namespace hull::engine
