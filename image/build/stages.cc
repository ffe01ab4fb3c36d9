#include "image/build/stages.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "image/build/mounts.h"

namespace hull::build {

namespace {

bool validStageName(std::string_view name) {
  if (name.empty() || !std::islower(static_cast<unsigned char>(name[0]))) return false;
  return std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::islower(c) || std::isdigit(c) || c == '-' || c == '_' || c == '.';
  });
}

bool isNumber(std::string_view text) {
  return !text.empty() && text.size() < 6 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); });
}

class Planner {
 public:
  Planner(const Dockerfile& file, const std::map<std::string, std::string>& build_args,
          const std::set<std::string>& contexts, const image::Platform& platform)
      : file_(file), build_args_(build_args), contexts_(contexts) {
    plan_.platform_args = platformArgs(platform);
  }

  StagePlan run(const std::string& target) {
    for (const auto& instruction : file_.instructions) {
      if (instruction.keyword == "FROM") {
        addStage(instruction);
      } else if (!plan_.stages.empty()) {
        addStep(instruction);
      } else if (instruction.keyword == "ARG") {
        addGlobal(instruction);
      } else {
        throw file_.error(instruction, "no build stage in current context: " + instruction.keyword +
                                           " comes before the first FROM");
      }
    }
    if (plan_.stages.empty()) throw file_.error(file_.instructions.back(), "there is no FROM");
    for (auto& stage : plan_.stages) {
      for (const auto& step : stage.steps) findNeeds(stage, step);
    }
    order(targetIndex(target));
    return std::move(plan_);
  }

 private:
  std::string expand(const Instruction& at, const std::string& word) const {
    return inContext(file_, at, [&] {
      return expandWord(word, file_.escape,
                        [this](std::string_view name) -> std::optional<std::string> {
                          const auto found = plan_.global_args.find(std::string(name));
                          if (found != plan_.global_args.end()) return found->second;
                          const auto platform = plan_.platform_args.find(std::string(name));
                          if (platform != plan_.platform_args.end()) return platform->second;
                          return std::nullopt;
                        });
    });
  }

  template <typename Work>
  static auto inContext(const Dockerfile& file, const Instruction& at, Work&& work)
      -> decltype(work()) {
    try {
      return work();
    } catch (const Error& error) {
      throw file.error(at, error.what());
    }
  }

  void addGlobal(const Instruction& at) {
    for (const auto& word : splitWords(at.rest, file_.escape)) {
      const size_t equals = word.find('=');
      const std::string name = word.substr(0, equals);
      const auto given = build_args_.find(name);
      if (given != build_args_.end()) {
        plan_.global_args[name] = given->second;
      } else if (equals != std::string::npos) {
        plan_.global_args[name] = expand(at, word.substr(equals + 1));
      }
    }
  }

  void addStage(const Instruction& from) {
    Stage stage;
    stage.from = from;
    stage.index = static_cast<int>(plan_.stages.size());
    const int index = static_cast<int>(plan_.stages.size());
    const std::vector<std::string> words = splitWords(from.rest, file_.escape);
    if (words.size() == 3 && lowerCase(words[1]) == "as") {
      stage.name = lowerCase(words[2]);
      if (!validStageName(stage.name)) {
        throw file_.error(from, "invalid name for build stage: \"" + words[2] +
                                    "\" (a letter, then letters, digits, - _ .)");
      }
    } else if (words.size() != 1) {
      throw file_.error(from, "FROM requires either one or three arguments: FROM image [AS name]");
    }
    for (const auto& flag : from.flags) {
      stage.platform = expand(from, flag.value);
    }
    stage.base = expand(from, words[0]);
    stage.base_is_context = contexts_.contains(lowerCase(stage.base));
    if (!isNumber(stage.base) && !stage.base_is_context)
      stage.base_stage = findStage(plan_.stages, lowerCase(stage.base), index);
    plan_.stages.push_back(std::move(stage));
  }

  void addStep(const Instruction& step) { plan_.stages.back().steps.push_back(step); }

  void findNeeds(Stage& stage, const Instruction& step) const {
    for (const auto& flag : step.flags) {
      if (step.keyword == "COPY" && flag.name == "from") need(stage, flag, flag.value);
      if (step.keyword != "RUN" || flag.name != "mount") continue;
      try {
        const std::string from = mountFrom(flag.value);
        if (!from.empty()) need(stage, flag, from);
      } catch (const Error& error) {
        throw file_.error(flag, error.what());
      }
    }
  }

  void need(Stage& stage, const Flag& flag, const std::string& from) const {
    if (from.find('$') != std::string::npos) {
      throw file_.error(flag,
                        "'from' doesn't support variable expansion, define alias stage instead");
    }
    const std::string name = lowerCase(from);
    if (contexts_.contains(name)) return;
    const int count = static_cast<int>(plan_.stages.size());
    if (const int index = findStage(plan_.stages, name, stage.index); index >= 0) {
      stage.needs.push_back(index);
    } else if (name == stage.name || name == std::to_string(stage.index)) {
      throw file_.error(flag, "from=" + from + ": a stage cannot take from itself");
    } else if (isNumber(name) || findStage(plan_.stages, name, count) >= 0) {
      throw file_.error(flag, "from=" + from + ": no earlier stage of that name");
    }
  }

  int targetIndex(const std::string& target) const {
    const int count = static_cast<int>(plan_.stages.size());
    if (target.empty()) return count - 1;
    const int index = findStage(plan_.stages, lowerCase(target), count);
    if (index >= 0) return index;
    std::string names;
    for (const auto& stage : plan_.stages) {
      if (!stage.name.empty()) names += (names.empty() ? "" : ", ") + stage.name;
    }
    throw Error(ErrorKind::kInvalidArgument,
                "target stage \"" + target + "\" could not be found in " + file_.name +
                    (names.empty() ? "" : " (there are: " + names + ")"));
  }

  void order(int index) {
    if (!ordered_.insert(index).second) return;
    const Stage& stage = plan_.stages[static_cast<size_t>(index)];
    if (stage.base_stage >= 0) order(stage.base_stage);
    for (const int need : stage.needs) order(need);
    plan_.order.push_back(index);
  }

  const Dockerfile& file_;
  const std::map<std::string, std::string>& build_args_;
  const std::set<std::string>& contexts_;
  StagePlan plan_;
  std::set<int> ordered_;
};

}  // namespace

std::string lowerCase(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

std::map<std::string, std::string> platformArgs(const image::Platform& target) {
  const image::Platform host;
  return {{"TARGETPLATFORM", target.text()},   {"TARGETOS", target.os},
          {"TARGETARCH", target.architecture}, {"TARGETVARIANT", target.variant},
          {"BUILDPLATFORM", host.text()},      {"BUILDOS", host.os},
          {"BUILDARCH", host.architecture},    {"BUILDVARIANT", host.variant}};
}

image::Platform parsePlatform(std::string_view text) {
  image::Platform platform = image::Platform::parse(text);
  if (platform.architecture == "arm" && platform.variant.empty()) platform.variant = "v7";
  if ((platform.architecture == "arm64" && platform.variant == "v8") ||
      (platform.architecture == "amd64" && platform.variant == "v1"))
    platform.variant.clear();
  return platform;
}

int findStage(const std::vector<Stage>& stages, const std::string& name, int limit) {
  const int count = std::min(limit, static_cast<int>(stages.size()));
  if (isNumber(name)) return std::stoi(name) < count ? std::stoi(name) : -1;
  for (int i = count - 1; i >= 0; --i) {
    if (!name.empty() && stages[static_cast<size_t>(i)].name == name) return i;
  }
  return -1;
}

StagePlan planStages(const Dockerfile& file, const std::map<std::string, std::string>& build_args,
                     const std::string& target, const std::set<std::string>& contexts,
                     const image::Platform& platform) {
  return Planner(file, build_args, contexts, platform).run(target);
}

}  // namespace hull::build
