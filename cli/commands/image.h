// What the files of the image commands share: image.cc (rmi, tag, inspect and the groups)
// and image_list.cc (images, history, prune). Main thread.
#pragma once

#include <CLI/App.hpp>
#include <string>

#include "cli/commands/context.h"

namespace hull::cli {

// The path of the API for an image of any name or id, followed by `rest`.
std::string imagePath(const std::string& name, const std::string& rest = "");

void addImageList(CLI::App& app, Context& context, const std::string& verb);  // images, image ls
void addImageHistory(CLI::App& app, Context& context);
void addImagePrune(CLI::App& app, Context& context);

}  // namespace hull::cli
