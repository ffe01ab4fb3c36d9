#include "image/build/lint.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <set>

#include "image/build/suggest.h"

namespace hull::build {

namespace {

constexpr std::array<std::string_view, 10> kSecretWords = {
    "apikey",   "auth",  "credential", "credentials", "key",
    "password", "pword", "passwd",     "secret",      "token"};

bool isUpper(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](unsigned char c) { return std::islower(c); });
}
bool isLower(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](unsigned char c) { return std::isupper(c); });
}
bool isNamePart(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
}

// The variables a text uses as $name or ${name}: those with a modifier have an answer for a name
// that is not set.
std::vector<std::string> plainVariables(std::string_view text, char escape) {
  std::vector<std::string> names;
  bool single = false, twofold = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (single) {
      single = c != '\'';
    } else if (c == escape) {
      ++i;
    } else if (c == '"') {
      twofold = !twofold;
    } else if (c == '\'' && !twofold) {
      single = true;
    } else if (c == '$') {
      const bool braced = i + 1 < text.size() && text[i + 1] == '{';
      size_t end = i + (braced ? 2 : 1);
      const size_t start = end;
      while (end < text.size() && isNamePart(text[end])) ++end;
      const bool plain = !braced || (end < text.size() && text[end] == '}');
      if (plain && end > start && !std::isdigit(static_cast<unsigned char>(text[start])))
        names.emplace_back(text.substr(start, end - start));
      i = end > start ? end - 1 : i;
    }
  }
  return names;
}

// "API_TOKEN", "password", but not "PUBLIC_KEY" or "TOKEN_FILE".
bool looksSecret(const std::string& name) {
  std::vector<std::string> words(1);
  for (const char c : lowerCase(name)) {
    if (c == '_' || c == '-')
      words.emplace_back();
    else
      words.back() += c;
  }
  if (std::find(words.begin(), words.end(), "public") != words.end() || words.back() == "file")
    return false;
  return std::any_of(words.begin(), words.end(), [](const std::string& word) {
    return std::find(kSecretWords.begin(), kSecretWords.end(), word) != kSecretWords.end();
  });
}

class Linter {
 public:
  Linter(const Dockerfile& file, const StagePlan& plan, const LintContext& context)
      : file_(file), plan_(plan), context_(context), warnings_(file.warnings) {}

  std::vector<Warning> run() {
    casing();
    globals();
    for (const auto& stage : plan_.stages) checkStage(stage);
    descriptions();
    std::erase_if(warnings_, [this](const Warning& warning) {
      const auto skips = [&](const char* rule) {
        return std::find(file_.check.skip.begin(), file_.check.skip.end(), rule) !=
               file_.check.skip.end();
      };
      return skips("all") || skips(lowerCase(warning.rule).c_str());
    });
    std::stable_sort(warnings_.begin(), warnings_.end(),
                     [](const Warning& a, const Warning& b) { return a.line < b.line; });
    return std::move(warnings_);
  }

 private:
  struct Scope {
    std::set<std::string> variables;
    bool complete = true;  // nothing else can be defined
    bool workdir = false;  // an absolute one is set
    bool shell = false;    // SHELL is set
  };

  void warn(const Instruction& at, const char* rule, const std::string& message) {
    warnings_.push_back({rule, message, at.line});
  }

  void casing() {
    size_t upper = 0, lower = 0;
    for (const auto& at : file_.instructions) {
      upper += isUpper(at.written);
      lower += isLower(at.written);
    }
    const bool wants_lower = lower > upper;
    for (const auto& at : file_.instructions) {
      if (wants_lower ? isLower(at.written) : isUpper(at.written)) continue;
      warn(at, "ConsistentInstructionCasing",
           "Command '" + at.written + "' should match the case of the command majority (" +
               (wants_lower ? "lowercase" : "uppercase") + ")");
    }
  }

  // ARG before the first FROM.
  void globals() {
    for (const auto& at : file_.instructions) {
      if (at.keyword == "FROM") return;
      for (const auto& word : splitWords(at.rest, file_.escape))
        globals_.insert(word.substr(0, word.find('=')));
      secrets(at);
    }
  }

  void checkStage(const Stage& stage) {
    checkFrom(stage);
    Scope scope;
    if (stage.base_stage >= 0) {
      scope = scopes_[static_cast<size_t>(stage.base_stage)];
    } else if (stage.base != "scratch") {
      const auto known = context_.variables && !stage.base_is_context
                             ? context_.variables(stage.base)
                             : std::nullopt;
      scope.complete = known.has_value();
      if (known) scope.variables.insert(known->begin(), known->end());
    }
    scope.variables.insert("PATH");
    std::map<std::string, int> seen;
    for (const auto& at : stage.steps) {
      checkStep(at, scope, seen);
    }
    scopes_.push_back(std::move(scope));
  }

  void checkFrom(const Stage& stage) {
    const Instruction& from = stage.from;
    const auto words = splitWords(from.rest, file_.escape);
    if (words.size() == 3) {
      if (isLower(words[1]) != isLower(from.written) && isUpper(words[1]) != isUpper(from.written))
        warn(from, "FromAsCasing",
             "'" + words[1] + "' and '" + from.written + "' keywords' casing do not match");
      if (!isLower(words[2]))
        warn(from, "StageNameCasing", "Stage name '" + words[2] + "' should be lowercase");
      if (stage.name == "scratch" || stage.name == "context")
        warn(from, "ReservedStageName",
             "Stage name should not use the same name as reserved stage \"" + stage.name + "\"");
      if (findStage(plan_.stages, stage.name, stage.index) >= 0)
        warn(from, "DuplicateStageName",
             "Duplicate stage name '" + stage.name + "', stage names should be unique");
    }
    for (const auto& name : plainVariables(words[0], file_.escape)) checkGlobal(from, name);
    const auto uses = plainVariables(words[0], file_.escape);
    if (!uses.empty() && emptyByDefault(words[0]))
      warn(from, "InvalidDefaultArgInFrom",
           "Default value for ARG " + words[0] + " results in empty or invalid base image name");
    for (const auto& flag : from.flags) checkPlatform(stage, flag);
  }

  void checkGlobal(const Instruction& from, const std::string& name) {
    if (globals_.contains(name) || plan_.platform_args.contains(name)) return;
    std::vector<std::string_view> known(globals_.begin(), globals_.end());
    for (const auto& [argument, value] : plan_.platform_args) known.push_back(argument);
    warn(from, "UndefinedArgInFrom",
         "FROM argument '" + name + "' is not declared" + suggestion(name, known));
  }

  // What the name of a base is without any --build-arg.
  bool emptyByDefault(const std::string& word) const {
    std::map<std::string, std::string> defaults;
    const auto look = [&](std::string_view name) -> std::optional<std::string> {
      const auto found = defaults.find(std::string(name));
      if (found != defaults.end()) return found->second;
      const auto platform = plan_.platform_args.find(std::string(name));
      if (platform != plan_.platform_args.end()) return platform->second;
      return std::nullopt;
    };
    try {
      for (const auto& at : file_.instructions) {
        if (at.keyword == "FROM") break;
        for (const auto& item : splitWords(at.rest, file_.escape)) {
          const size_t equals = item.find('=');
          if (equals != std::string::npos)
            defaults[item.substr(0, equals)] =
                expandWord(item.substr(equals + 1), file_.escape, look);
        }
      }
      const std::string name = expandWord(word, file_.escape, look);
      return name.empty() || name.ends_with(':') || name.starts_with(':') || name.ends_with('/') ||
             name.ends_with('@') || name.find("//") != std::string::npos ||
             name.find(":@") != std::string::npos;
    } catch (const Error&) {
      return false;  // ${x:?needed}: it says so itself
    }
  }

  void checkPlatform(const Stage& stage, const Flag& flag) {
    if (flag.value == "$TARGETPLATFORM" || flag.value == "${TARGETPLATFORM}") {
      warn(stage.from, "RedundantTargetPlatform",
           "Setting platform to predefined " + flag.value +
               " in FROM is redundant as this is the default behavior");
    } else if (flag.value.find('$') == std::string::npos) {
      // A stage may be for one platform when its name says which.
      const size_t slash = flag.value.find('/');
      const std::string os = flag.value.substr(0, slash);
      const std::string arch = slash == std::string::npos ? os : flag.value.substr(slash + 1);
      if (stage.name.find(lowerCase(os)) != std::string::npos ||
          stage.name.find(lowerCase(arch)) != std::string::npos)
        return;
      warn(stage.from, "FromPlatformFlagConstDisallowed",
           "FROM --platform flag should not use constant value \"" + flag.value + "\"");
    }
    for (const auto& name : plainVariables(flag.value, file_.escape)) checkGlobal(stage.from, name);
  }

  void checkStep(const Instruction& at, Scope& scope, std::map<std::string, int>& seen) {
    const std::string& keyword = at.keyword;
    useVariables(at, scope);
    if (keyword == "ENV" || keyword == "LABEL") keyValues(at, scope);
    if (keyword == "ARG") {
      for (const auto& word : splitWords(at.rest, file_.escape))
        scope.variables.insert(word.substr(0, word.find('=')));
    }
    if (keyword == "ARG" || keyword == "ENV") secrets(at);
    if (keyword == "SHELL") scope.shell = true;
    if (keyword == "CMD" || keyword == "ENTRYPOINT" || keyword == "HEALTHCHECK") {
      if (seen[keyword]++ > 0)
        warn(at, "MultipleInstructionsDisallowed",
             "Multiple " + keyword +
                 " instructions should not be used in the same stage because only the last one "
                 "will be used");
      if (keyword != "HEALTHCHECK" && !at.exec && !at.rest.empty() && !scope.shell)
        warn(at, "JSONArgsRequired",
             "JSON arguments recommended for " + keyword +
                 " to prevent unintended behavior related to OS signals");
    }
    if (keyword == "MAINTAINER")
      warn(at, "MaintainerDeprecated",
           "Maintainer instruction is deprecated in favor of using label");
    if (keyword == "WORKDIR") workdir(at, scope);
    if (keyword == "EXPOSE") expose(at);
    if (keyword == "COPY" || keyword == "ADD") ignoredSources(at);
  }

  void useVariables(const Instruction& at, const Scope& scope) {
    static constexpr std::array<std::string_view, 12> kExpanded = {
        "ADD",     "ARG",        "COPY", "ENV",    "EXPOSE",  "LABEL",
        "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR", "RUN"};
    if (!scope.complete || at.keyword == "ONBUILD" ||
        std::find(kExpanded.begin(), kExpanded.end(), at.keyword) == kExpanded.end())
      return;
    std::string text = at.keyword == "RUN" ? "" : at.rest;
    for (const auto& flag : at.flags) text += " " + flag.value;
    for (const auto& name : plainVariables(text, file_.escape)) {
      if (scope.variables.contains(name)) continue;
      const std::vector<std::string_view> known(scope.variables.begin(), scope.variables.end());
      warn(at, "UndefinedVar",
           "Usage of undefined variable '$" + name + "'" + suggestion(name, known, "$"));
    }
  }

  void keyValues(const Instruction& at, Scope& scope) {
    const auto words = splitWords(at.rest, file_.escape);
    if (!words.empty() && words[0].find('=') == std::string::npos)
      warn(at, "LegacyKeyValueFormat",
           "\"" + at.keyword + " key=value\" should be used instead of legacy \"" + at.keyword +
               " key value\" format");
    if (at.keyword != "ENV") return;
    try {
      for (const auto& [name, value] : splitPairs(at.rest, file_.escape, true))
        scope.variables.insert(name);
    } catch (const Error&) {
      // The build says it.
    }
  }

  void secrets(const Instruction& at) {
    try {
      const bool pairs = at.keyword == "ENV";
      std::vector<std::string> names;
      if (pairs) {
        for (const auto& [name, value] : splitPairs(at.rest, file_.escape, true))
          names.push_back(name);
      } else {
        for (const auto& word : splitWords(at.rest, file_.escape))
          names.push_back(word.substr(0, word.find('=')));
      }
      for (const auto& name : names) {
        if (looksSecret(name))
          warn(at, "SecretsUsedInArgOrEnv",
               "Do not use ARG or ENV instructions for sensitive data (" + at.keyword + " \"" +
                   name + "\")");
      }
    } catch (const Error&) {
      // The build says it.
    }
  }

  void workdir(const Instruction& at, Scope& scope) {
    if (at.rest.starts_with('/') || at.rest.starts_with("\"/") || at.rest.starts_with('$')) {
      scope.workdir = true;
    } else if (!scope.workdir) {
      warn(at, "WorkdirRelativePath",
           "Relative workdir \"" + at.rest +
               "\" can have unexpected results if the base image changes");
      scope.workdir = true;
    }
  }

  void expose(const Instruction& at) {
    for (const auto& word : splitWords(at.rest, file_.escape)) {
      const size_t slash = word.find('/');
      if (slash != std::string::npos && !isLower(word.substr(slash + 1)) &&
          word.find('$') == std::string::npos)
        warn(at, "ExposeProtoCasing",
             "Defined protocol '" + word.substr(slash + 1) + "' in EXPOSE instruction should be " +
                 "lowercase");
      if (word.substr(0, slash).find(':') != std::string::npos &&
          word.find('$') == std::string::npos)
        warn(at, "ExposeInvalidFormat",
             "EXPOSE instruction should not define an IP address or host-port mapping, found '" +
                 word + "'");
    }
  }

  void ignoredSources(const Instruction& at) {
    const bool elsewhere = std::any_of(at.flags.begin(), at.flags.end(),
                                       [](const Flag& flag) { return flag.name == "from"; });
    if (!context_.ignored || elsewhere) return;
    std::vector<std::string> words = at.exec ? *at.exec : splitWords(at.rest, file_.escape);
    if (!words.empty()) words.pop_back();
    for (const auto& word : words) {
      if (word.find_first_of("$*?[<:") != std::string::npos) continue;
      if (context_.ignored->excludes(word))
        warn(at, "CopyIgnoredFile",
             "Attempting to " + std::string(at.keyword == "ADD" ? "Add" : "Copy") + " file \"" +
                 word + "\" that is excluded by .dockerignore");
    }
  }

  // A comment right above ARG or FROM that is no description of it. Only when asked for.
  void descriptions() {
    const auto& wanted = file_.check.experimental;
    if (std::find(wanted.begin(), wanted.end(), "invaliddefinitiondescription") == wanted.end() &&
        std::find(wanted.begin(), wanted.end(), "all") == wanted.end())
      return;
    for (const auto& at : file_.instructions) {
      if (at.keyword != "ARG" && at.keyword != "FROM") continue;
      if (at.line < 2) continue;
      const std::string& above = file_.lines[static_cast<size_t>(at.line) - 2];
      const size_t hash = above.find_first_not_of(" \t");
      if (hash == std::string::npos || above[hash] != '#') continue;
      const size_t start = above.find_first_not_of(" \t", hash + 1);
      if (start == std::string::npos) continue;  // an empty comment separates
      const auto words = splitWords(at.rest, file_.escape);
      const std::string name = at.keyword == "ARG" ? words[0].substr(0, words[0].find('='))
                               : words.size() == 3 ? words[2]
                                                   : "";
      if (name.empty() || above.substr(start).starts_with(name + " ")) continue;
      warn(at, "InvalidDefinitionDescription",
           "Comment for build stage or argument should follow the format: `# " + name +
               " <description>`. If this is not intended to be a description comment, add an "
               "empty line or comment between the instruction and the comment.");
    }
  }

  const Dockerfile& file_;
  const StagePlan& plan_;
  const LintContext& context_;
  std::vector<Warning> warnings_;
  std::set<std::string> globals_;
  std::vector<Scope> scopes_;  // by stage
};

}  // namespace

std::vector<Warning> lint(const Dockerfile& file, const StagePlan& plan,
                          const LintContext& context) {
  return Linter(file, plan, context).run();
}

std::string ruleAddress(const std::string& rule) {
  std::string slug;
  for (size_t i = 0; i < rule.size(); ++i) {
    const bool upper = std::isupper(static_cast<unsigned char>(rule[i])) != 0;
    // A new word begins at a capital, and a run of capitals ("JSON") is one word.
    const bool after_lower = i > 0 && std::islower(static_cast<unsigned char>(rule[i - 1]));
    const bool before_lower =
        i > 0 && i + 1 < rule.size() && std::islower(static_cast<unsigned char>(rule[i + 1]));
    if (upper && (after_lower || before_lower)) slug += '-';
    slug += static_cast<char>(std::tolower(static_cast<unsigned char>(rule[i])));
  }
  return "https://docs.docker.com/go/dockerfile/rule/" + slug + "/";
}

std::string lintFailure(const std::vector<Warning>& warnings) {
  std::set<std::string> rules;
  for (const auto& warning : warnings) rules.insert(warning.rule);
  std::string names;
  for (const auto& rule : rules) names += (names.empty() ? "" : ", ") + rule;
  return "lint violation found for rules: " + names;
}

}  // namespace hull::build
