// From instructions to stages: which there are, which the target needs, and the names between them.
// Pure values.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "image/build/dockerfile.h"
#include "image/build/words.h"
#include "image/types/manifest.h"

namespace hull::build {

struct Stage {
  std::string name;              // "AS name", lower case; may be empty
  std::string base;  // expanded: an image, "scratch", or an earlier stage's name; may be empty
  bool base_is_context = false;  // a named context of that name
  int base_stage = -1;           // index of that stage
  std::string platform;          // --platform
  Instruction from;
  std::vector<Instruction> steps;
  std::vector<int> needs;  // stages of COPY --from and RUN --mount=from
  std::string label() const { return name.empty() ? "stage-" + std::to_string(index) : name; }
  int index = 0;  // in the Dockerfile
};

struct StagePlan {
  std::vector<Stage> stages;
  std::map<std::string, std::string> global_args;  // ARG before FROM, with build args applied
  std::map<std::string, std::string> platform_args;
  std::vector<int> order;  // what the target needs, in order; target last
};

// Of stages with one name the last is meant (lint.h warns). Throws Dockerfile::error: no FROM
// first, bad names (of a base: that is for who needs it), unknown target, forward references.
// `build_args` give the values of ARGs before
// FROM; `contexts` are named contexts, which hide stages and images of their names (lower case).
// `platform` is what the image is built for.
StagePlan planStages(const Dockerfile& file, const std::map<std::string, std::string>& build_args,
                     const std::string& target, const std::set<std::string>& contexts = {},
                     const image::Platform& platform = {});

// The index of a stage by name or number before `limit`; -1 when there is none.
int findStage(const std::vector<Stage>& stages, const std::string& name, int limit);

// TARGETPLATFORM and so on of `target`, BUILDOS and so on of this host.
std::map<std::string, std::string> platformArgs(const image::Platform& target = {});

// Without the variant that goes without saying, with the one that "linux/arm" means.
image::Platform parsePlatform(std::string_view text);

std::string lowerCase(std::string_view text);

}  // namespace hull::build
