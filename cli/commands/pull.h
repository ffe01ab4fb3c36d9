// Fetching an image through the engine, with its progress shown; `run` and `pull` share it.
#pragma once

#include <string>

#include "cli/commands/context.h"

namespace hull::cli {

enum class PullOutput { kStdout, kStderr, kSilent };

void pullImage(Context& context, const std::string& image, const std::string& platform,
               PullOutput output);

// "debian" → "debian:latest"; a tag or digest stays.
std::string withTag(const std::string& image);

}  // namespace hull::cli
