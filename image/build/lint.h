// Build checks: what is allowed in a Dockerfile and mostly a mistake. The rules and their words are
// those of https://docs.docker.com/reference/build-checks/. Pure functions.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "image/build/dockerfile.h"
#include "image/build/dockerignore.h"
#include "image/build/stages.h"

namespace hull::build {

struct LintContext {
  // The names of the variables of a base image; nullopt when it is not here: then nothing is said
  // about variables that it may define.
  std::function<std::optional<std::vector<std::string>>(const std::string& image)> variables;
  const IgnoreRules* ignored = nullptr;  // of the context
  const std::map<std::string, std::string>* build_args = nullptr;
};

// All of the file's warnings, those of the parser included, by line; without what "# check=skip="
// names.
std::vector<Warning> lint(const Dockerfile& file, const StagePlan& plan,
                          const LintContext& context);

// "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/"
std::string ruleAddress(const std::string& rule);

// The error of "# check=error=true".
std::string lintFailure(const std::vector<Warning>& warnings);

}  // namespace hull::build
