// images, rmi, tag, inspect, history, and the image and container groups.

#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands/context.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

std::string imagePath(const std::string& name, const std::string& rest = "") {
  // Slashes stay: the engine's route takes everything up to the last part.
  std::string path = "/images/";
  for (const char c : name)
    path += c == '/' || c == ':' ? std::string(1, c) : urlEncode(std::string_view(&c, 1));
  return path + rest;
}

struct ImagesOptions {
  bool all = false, quiet = false, no_trunc = false, digests = false;
  std::string format, name;
  std::vector<std::string> filters;
};

// One row per name, as Docker shows them; nameless images have <none>.
void addImageRows(std::vector<json>& rows, const json& image, bool no_trunc) {
  const std::string id = image["Id"];
  json row = {{"ID", no_trunc ? id : shortId(id)},
              {"CreatedSince", ago(image.value("Created", int64_t{0}))},
              {"CreatedAt", image.value("Created", int64_t{0})},
              {"Size", humanSize(image.value("Size", 0.0))},
              {"Digest", "<none>"}};
  const json tags = image.value("RepoTags", json::array());
  const json digests = image.value("RepoDigests", json::array());
  if (!digests.empty()) {
    const std::string digest = digests[0];
    row["Digest"] = digest.substr(digest.find('@') + 1);
  }
  bool named = false;
  for (const auto& tag : tags) {
    const std::string text = tag;
    const size_t colon = text.rfind(':');
    row["Repository"] = text.substr(0, colon);
    row["Tag"] = text.substr(colon + 1);
    rows.push_back(row);
    named = true;
  }
  if (named) return;
  row["Repository"] = digests.empty() ? "<none>"
                                      : digests[0].get<std::string>().substr(
                                            0, digests[0].get<std::string>().find('@'));
  row["Tag"] = "<none>";
  rows.push_back(row);
}

void imagesCommand(Context& context, const ImagesOptions& o) {
  json filters = json::object();
  if (!o.name.empty()) filters["reference"].push_back(o.name);
  for (const auto& item : o.filters) {
    const size_t equals = item.find('=');
    if (equals == std::string::npos)
      throw Exit{1, fmt::format("invalid filter \"{}\" (expected name=value)", item)};
    filters[item.substr(0, equals)].push_back(item.substr(equals + 1));
  }
  const json images = context.engine().get(
      withQuery("/images/json",
                {{"all", o.all ? "1" : ""}, {"filters", filters.empty() ? "" : filters.dump()}}));
  std::vector<json> rows;
  for (const auto& image : images) addImageRows(rows, image, o.no_trunc);
  if (o.quiet) {
    std::string last;
    for (const auto& row : rows) {
      const std::string id = row["ID"];
      if (id != last) std::cout << id << "\n";
      last = id;
    }
    return;
  }
  std::vector<Column> columns = {{"REPOSITORY", "Repository"},
                                 {"TAG", "Tag"},
                                 {"IMAGE ID", "ID"},
                                 {"CREATED", "CreatedSince"},
                                 {"SIZE", "Size"}};
  if (o.digests) columns.insert(columns.begin() + 2, {"DIGEST", "Digest"});
  std::cout << formatRows(o.format, columns, rows);
}

void printInspected(const std::string& format, const std::vector<json>& found) {
  if (!format.empty() && format != "json") {
    for (const auto& object : found) std::cout << expandTemplate(format, object) << "\n";
  } else {
    std::cout << json(found).dump(format == "json" ? -1 : 4) << "\n";
  }
}

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

void addList(CLI::App& app, Context& context, const std::string& verb) {
  auto o = std::make_shared<ImagesOptions>();
  auto* command = app.add_subcommand(verb, "List images");
  command->add_flag("-a,--all", o->all, "Intermediate ones too");
  command->add_flag("-q,--quiet", o->quiet, "Only ids");
  command->add_flag("--no-trunc", o->no_trunc, "Whole ids");
  command->add_flag("--digests", o->digests, "Digests too");
  command->add_option("--format", o->format, "json, table …, or a template");
  cli::addList(command, "-f,--filter", o->filters, "Filter, like label=key or dangling=true");
  command->add_option("NAME", o->name, "Only this repository[:tag]");
  command->callback([&context, o] { imagesCommand(context, *o); });
}

void addHistory(CLI::App& app, Context& context) {
  struct Options {
    bool no_trunc = false, quiet = false;
    std::string format, name;
  };
  auto o = std::make_shared<Options>();
  auto* command = app.add_subcommand("history", "Show the steps an image was made by");
  command->add_flag("--no-trunc", o->no_trunc, "Whole commands");
  command->add_flag("-q,--quiet", o->quiet, "Only ids");
  command->add_option("--format", o->format, "json or a template");
  command->add_option("IMAGE", o->name)->required();
  command->callback([&context, o] {
    std::vector<json> rows;
    for (const auto& step : context.engine().get(imagePath(o->name, "/history"))) {
      const std::string by = step.value("CreatedBy", ""), id = step.value("Id", "<missing>");
      rows.push_back({{"ID", id == "<missing>" || o->no_trunc ? id : shortId(id)},
                      {"CreatedSince", ago(step.value("Created", int64_t{0}))},
                      {"CreatedBy", o->no_trunc ? by : ellipsis(by, 45)},
                      {"Size", humanSize(step.value("Size", 0.0))},
                      {"Comment", step.value("Comment", "")}});
    }
    if (o->quiet) {
      for (const auto& row : rows) std::cout << row["ID"].get<std::string>() << "\n";
      return;
    }
    std::cout << formatRows(o->format,
                            {{"IMAGE", "ID"},
                             {"CREATED", "CreatedSince"},
                             {"CREATED BY", "CreatedBy"},
                             {"SIZE", "Size"},
                             {"COMMENT", "Comment"}},
                            rows);
  });
}

void addPrune(CLI::App& app, Context& context, const std::string& group) {
  auto all = std::make_shared<bool>(false);
  auto force = std::make_shared<bool>(false);
  auto* command = app.add_subcommand("prune", "Remove unused " + group);
  command->add_flag("-f,--force", *force, "Do not ask");
  if (group == "images")
    command->add_flag("-a,--all", *all, "Images with names too, when no container uses them");
  command->callback([&context, all, force, group] {
    if (!*force) {
      std::cerr << "WARNING! This will remove all "
                << (group == "images"
                        ? (*all ? "images without a container" : "images without a name")
                        : "stopped containers")
                << ".\nAre you sure you want to continue? [y/N] ";
      std::string answer;
      std::getline(std::cin, answer);
      if (answer != "y" && answer != "Y") return;
    }
    const std::string filters =
        group == "images" ? json{{"dangling", {*all ? "false" : "true"}}}.dump() : "";
    const json result =
        context.engine().post(withQuery("/" + group + "/prune", {{"filters", filters}}), json());
    std::cout << "Total reclaimed space: " << humanSize(result.value("SpaceReclaimed", 0.0))
              << "\n";
  });
}

}  // namespace

void addImageCommands(CLI::App& app, Context& context) {
  addList(app, context, "images");
  addRemoveImage(app, context, "rmi");
  addTag(app, context);
  addHistory(app, context);
  addInspect(app, context, "");

  auto* image = app.add_subcommand("image", "Manage images");
  image->require_subcommand(1);
  addList(*image, context, "ls");
  addRemoveImage(*image, context, "rm");
  addTag(*image, context);
  addHistory(*image, context);
  addInspect(*image, context, "image");
  addPrune(*image, context, "images");
  addTransferCommands(*image, context);

  auto* container = app.add_subcommand("container", "Manage containers");
  container->require_subcommand(1);
  addInspect(*container, context, "container");
  addPrune(*container, context, "containers");
  addRunCommands(*container, context);
  addContainerCommands(*container, context);
}

}  // namespace hull::cli
