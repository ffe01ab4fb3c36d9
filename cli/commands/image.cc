// rmi, tag, inspect, and the image and container groups.

#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/client/filters.h"
#include "cli/commands/context.h"
#include "cli/commands/image.h"
#include "cli/commands/inspect.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

std::string imagePath(const std::string& name, const std::string& rest) {
  // Slashes stay: the engine's route takes everything up to the last part.
  std::string path = "/images/";
  for (const char c : name)
    path += c == '/' || c == ':' ? std::string(1, c) : urlEncode(std::string_view(&c, 1));
  return path + rest;
}

namespace {

// A container or an image of that name, in this order, as Docker looks them up.
void inspectCommand(Context& context, const std::string& type, const std::string& format,
                    const std::vector<std::string>& names) {
  std::vector<json> found;
  for (const auto& name : names) {
    bool done = false;
    for (const std::string kind : {"container", "image"}) {
      if (done || (!type.empty() && type != kind)) continue;
      try {
        found.push_back(context.engine().get(kind == "container"
                                                 ? "/containers/" + urlEncode(name) + "/json"
                                                 : imagePath(name, "/json")));
        done = true;
      } catch (const ApiError& error) {
        if (error.status() != 404 && error.status() != 400) throw;
      }
    }
    if (!done) {
      std::cerr << fmt::format("Error: No such {}: {}\n", type.empty() ? "object" : type, name);
      context.exit_code = 1;
    }
  }
  printInspected(format, found);
}

void addInspect(CLI::App& app, Context& context, const std::string& type) {
  struct Options {
    std::string format, type;
    std::vector<std::string> names;
  };
  auto o = std::make_shared<Options>();
  o->type = type;
  auto* command =
      app.add_subcommand("inspect", type.empty() ? "Show everything about containers or images"
                                                 : "Show everything about " + type + "s");
  command->add_option("-f,--format", o->format, "json or a template");
  if (type.empty())
    command->add_option("--type", o->type, "container or image")
        ->check(CLI::IsMember({"container", "image"}));
  command->add_option("NAME", o->names)->required();
  command->callback([&context, o] { inspectCommand(context, o->type, o->format, o->names); });
}

void addRemoveImage(CLI::App& app, Context& context, const std::string& verb) {
  struct Options {
    bool force = false, no_prune = false;
    std::vector<std::string> names;
  };
  auto o = std::make_shared<Options>();
  auto* command = app.add_subcommand(verb, "Remove images");
  command->add_flag("-f,--force", o->force, "Even when a stopped container uses it");
  command->add_flag("--no-prune", o->no_prune, "Accepted for compatibility");
  command->add_option("IMAGE", o->names)->required();
  command->callback([&context, o] {
    for (const auto& name : o->names) {
      try {
        const Response response = context.engine().call(
            "DELETE", withQuery(imagePath(name), {{"force", o->force ? "1" : ""}}));
        const json removed = json::parse(response.body);
        for (const auto& item : removed) {
          for (const auto& [what, which] : item.items())
            std::cout << what << ": " << which.get<std::string>() << "\n";
        }
      } catch (const ApiError& error) {
        std::cerr << "Error response from engine: " << error.what() << "\n";
        context.exit_code = 1;
      }
    }
  });
}

void addTag(CLI::App& app, Context& context) {
  auto names = std::make_shared<std::pair<std::string, std::string>>();
  auto* command = app.add_subcommand("tag", "Give an image another name");
  command->add_option("SOURCE", names->first)->required();
  command->add_option("TARGET", names->second)->required();
  command->callback([&context, names] {
    const std::string& target = names->second;
    const size_t slash = target.rfind('/'), colon = target.rfind(':');
    const bool tagged = colon != std::string::npos && (slash == std::string::npos || colon > slash);
    context.engine().call("POST",
                          withQuery(imagePath(names->first, "/tag"),
                                    {{"repo", tagged ? target.substr(0, colon) : target},
                                     {"tag", tagged ? target.substr(colon + 1) : "latest"}}));
  });
}

void addContainerPrune(CLI::App& app, Context& context) {
  struct Options {
    bool force = false;
    std::vector<std::string> filters;
  };
  auto o = std::make_shared<Options>();
  auto* command = app.add_subcommand("prune", "Remove stopped containers");
  command->add_flag("-f,--force", o->force, "Do not ask");
  addList(command, "--filter", o->filters, "Filter, like until=24h or label=key");
  command->callback([&context, o] {
    if (!confirmed("This will remove all stopped containers.", o->force)) return;
    const json result = context.engine().post(
        withQuery("/containers/prune", {{"filters", filtersQuery(o->filters)}}), json());
    const json deleted = result.value("ContainersDeleted", json());
    if (deleted.is_array() && !deleted.empty()) {
      std::cout << "Deleted Containers:\n";
      for (const json& id : deleted) std::cout << id.get<std::string>() << "\n";
      std::cout << "\n";
    }
    std::cout << "Total reclaimed space: " << humanSize(result.value("SpaceReclaimed", 0.0))
              << "\n";
  });
}

}  // namespace

void addImageCommands(CLI::App& app, Context& context) {
  addImageList(app, context, "images");
  addRemoveImage(app, context, "rmi");
  addTag(app, context);
  addImageHistory(app, context);
  addInspect(app, context, "");

  auto* image = app.add_subcommand("image", "Manage images");
  image->require_subcommand(1);
  addImageList(*image, context, "ls");
  image->get_subcommand("ls")->alias("list");
  addRemoveImage(*image, context, "rm");
  image->get_subcommand("rm")->alias("remove");
  addTag(*image, context);
  addImageHistory(*image, context);
  addInspect(*image, context, "image");
  addImagePrune(*image, context);
  addTransferCommands(*image, context);

  auto* container = app.add_subcommand("container", "Manage containers");
  container->require_subcommand(1);
  addInspect(*container, context, "container");
  addContainerPrune(*container, context);
  addRunCommands(*container, context);
  addContainerCommands(*container, context);
}

}  // namespace hull::cli
