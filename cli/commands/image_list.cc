// images (also as a tree), history, image prune.

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/client/filters.h"
#include "cli/commands/context.h"
#include "cli/commands/image.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

constexpr const char* kNone = "<none>";

// As Docker writes times in listings: "2024-05-06 07:08:09 +0000 UTC".
std::string localTime(int64_t unix_seconds, const char* form) {
  const auto seconds = static_cast<time_t>(unix_seconds);
  tm parts{};
  localtime_r(&seconds, &parts);
  char text[64];
  strftime(text, sizeof text, form, &parts);
  return text;
}

struct ImagesOptions {
  bool all = false, quiet = false, no_trunc = false, digests = false, tree = false;
  std::string format, name;
  std::vector<std::string> filters;
};

// "name:tag" or "name@digest" → the name, and what comes behind the mark.
std::pair<std::string, std::string> split(const std::string& text, char mark) {
  const size_t at = text.rfind(mark);
  return {text.substr(0, at), text.substr(at + 1)};
}

// One row for each name, as Docker shows them: with its digest where the repository has one; a
// repository of which only the digest is known has <none> for the tag, and an image without any
// name <none> for both.
void addImageRows(std::vector<json>& rows, const json& image, const ImagesOptions& options) {
  const std::string id = image["Id"];
  const int64_t created = image.value("Created", int64_t{0});
  json row = {{"ID", options.no_trunc ? id : shortId(id)},
              {"CreatedSince", created > 0 ? ago(created) : "N/A"},
              {"CreatedAt", localTime(created, "%Y-%m-%d %H:%M:%S %z %Z")},
              {"Size", humanSize(image.value("Size", 0.0))},
              {"VirtualSize", humanSize(image.value("Size", 0.0))},
              {"SharedSize", "N/A"},
              {"UniqueSize", "N/A"},
              {"Containers", "N/A"},
              {"Digest", kNone}};
  std::map<std::string, std::string> digests;  // by repository
  for (const auto& text : image.value("RepoDigests", json::array()))
    digests.insert(split(text.get<std::string>(), '@'));
  const auto add = [&](const std::string& repository, const std::string& tag) {
    const auto digest = digests.find(repository);
    row["Repository"] = repository;
    row["Tag"] = tag;
    row["Digest"] = digest == digests.end() ? kNone : digest->second;
    rows.push_back(row);
  };
  std::vector<std::string> tagged;
  for (const auto& text : image.value("RepoTags", json::array())) {
    const auto [repository, tag] = split(text.get<std::string>(), ':');
    add(repository, tag);
    tagged.push_back(repository);
  }
  size_t shown = tagged.size();
  for (const auto& [repository, digest] : digests) {
    if (std::find(tagged.begin(), tagged.end(), repository) != tagged.end()) continue;
    add(repository, kNone);
    ++shown;
  }
  if (shown == 0) add(kNone, kNone);
}

void printTable(const std::vector<json>& rows, const ImagesOptions& options) {
  const std::vector<Column> columns = {{"REPOSITORY", "Repository"},
                                       {"TAG", "Tag"},
                                       {"DIGEST", "Digest"},
                                       {"IMAGE ID", "ID"},
                                       {"CREATED", "CreatedSince"},
                                       {"CREATED AT", "CreatedAt"},
                                       {"SIZE", "Size"},
                                       {"SHARED SIZE", "SharedSize"},
                                       {"UNIQUE SIZE", "UniqueSize"},
                                       {"VIRTUAL SIZE", "VirtualSize"},
                                       {"CONTAINERS", "Containers"}};
  std::string format = options.format;
  if (format.empty() || format == "table") {
    format = std::string("table {{.Repository}}\t{{.Tag}}\t") +
             (options.digests ? "{{.Digest}}\t" : "") + "{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
  }
  std::cout << formatRows(format, columns, rows);
}

// An image with its names, and below it the platforms that are here.
void printTree(const json& images) {
  Table table({"IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"});
  for (const auto& image : images) {
    const json manifests = image.value("Manifests", json::array());
    double content = 0;
    bool used = false;
    for (const auto& manifest : manifests) {
      content += manifest["Size"].value("Content", 0.0);
      used = used || !manifest["ImageData"].value("Containers", json::array()).empty();
    }
    std::vector<std::string> names = image.value("RepoTags", std::vector<std::string>{});
    if (names.empty()) names = image.value("RepoDigests", std::vector<std::string>{});
    if (names.empty()) names.push_back("<untagged>");
    for (size_t i = 0; i + 1 < names.size(); ++i) table.add({names[i]});
    table.add({names.back(), shortId(image["Id"].get<std::string>()),
               humanSize(image.value("Size", 0.0) + content), humanSize(content), used ? "U" : ""});
    for (size_t i = 0; i < manifests.size(); ++i) {
      const json& manifest = manifests[i];
      const json platform = manifest["ImageData"].value("Platform", json::object());
      std::string name =
          platform.value("os", std::string()) + "/" + platform.value("architecture", std::string());
      if (const std::string variant = platform.value("variant", ""); !variant.empty())
        name += "/" + variant;
      table.add({(i + 1 < manifests.size() ? "├─ " : "└─ ") + name,
                 shortId(manifest["ID"].get<std::string>()),
                 humanSize(manifest["Size"].value("Total", 0.0)),
                 humanSize(manifest["Size"].value("Content", 0.0)), ""});
    }
  }
  std::cout << table.text();
}

void imagesCommand(Context& context, const ImagesOptions& o) {
  if (o.tree && (o.quiet || o.no_trunc || o.digests || !o.format.empty()))
    throw Exit{1, "--tree shows its own columns: leave out -q, --no-trunc, --digests and --format"};
  std::vector<std::string> filters = o.filters;
  if (!o.name.empty()) filters.push_back("reference=" + o.name);
  const json images =
      context.engine().get(withQuery("/images/json", {{"all", o.all ? "1" : ""},
                                                      {"manifests", o.tree ? "1" : ""},
                                                      {"filters", filtersQuery(filters)}}));
  if (o.tree) return printTree(images);
  std::vector<json> rows;
  for (const auto& image : images) addImageRows(rows, image, o);
  if (!o.quiet) return printTable(rows, o);
  for (const auto& row : rows) std::cout << row["ID"].get<std::string>() << "\n";
}

struct HistoryOptions {
  bool no_trunc = false, quiet = false, human = true;
  std::string format, name;
};

void historyCommand(Context& context, const HistoryOptions& o) {
  std::vector<json> rows;
  for (const auto& step : context.engine().get(imagePath(o.name, "/history"))) {
    std::string by = step.value("CreatedBy", "");
    std::replace(by.begin(), by.end(), '\t', ' ');
    const std::string id = step.value("Id", "<missing>");
    const int64_t created = step.value("Created", int64_t{0});
    const double size = step.value("Size", 0.0);
    rows.push_back({{"ID", id == "<missing>" || o.no_trunc ? id : shortId(id)},
                    {"CreatedSince", created > 0 ? ago(created) : "N/A"},
                    {"CreatedAt", localTime(created, "%Y-%m-%dT%H:%M:%S%z")},
                    {"CreatedBy", o.no_trunc ? by : ellipsis(by, 45)},
                    {"Size", o.human ? humanSize(size) : fmt::format("{:.0f}", size)},
                    {"Comment", step.value("Comment", "")}});
  }
  if (o.quiet) {
    for (const auto& row : rows) std::cout << row["ID"].get<std::string>() << "\n";
    return;
  }
  std::string format = o.format;
  if (format.empty() || format == "table") {
    format = fmt::format(
        "table {{{{.ID}}}}\t{{{{.{}}}}}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t"
        "{{{{.Comment}}}}",
        o.human ? "CreatedSince" : "CreatedAt");
  }
  std::cout << formatRows(format,
                          {{"IMAGE", "ID"},
                           {"CREATED", "CreatedSince"},
                           {"CREATED AT", "CreatedAt"},
                           {"CREATED BY", "CreatedBy"},
                           {"SIZE", "Size"},
                           {"COMMENT", "Comment"}},
                          rows);
}

}  // namespace

void addImageList(CLI::App& app, Context& context, const std::string& verb) {
  auto o = std::make_shared<ImagesOptions>();
  auto* command = app.add_subcommand(verb, "List images");
  command->add_flag("-a,--all", o->all, "Intermediate ones too");
  command->add_flag("-q,--quiet", o->quiet, "Only ids");
  command->add_flag("--no-trunc", o->no_trunc, "Whole ids");
  command->add_flag("--digests", o->digests, "Digests too");
  command->add_flag("--tree", o->tree, "Images with their platforms below them");
  command->add_option("--format", o->format, "json, table …, or a template");
  addList(command, "-f,--filter", o->filters,
          "Filter: before=, since=IMAGE; until=TIME; dangling=true; label=KEY[=VALUE]; "
          "reference=PATTERN");
  command->add_option("NAME", o->name, "Only this repository[:tag]");
  command->callback([&context, o] { imagesCommand(context, *o); });
}

void addImageHistory(CLI::App& app, Context& context) {
  auto o = std::make_shared<HistoryOptions>();
  auto* command = app.add_subcommand("history", "Show the steps an image was made by");
  command->add_flag("--no-trunc", o->no_trunc, "Whole commands");
  command->add_flag("-q,--quiet", o->quiet, "Only ids");
  command->add_flag("-H,--human", o->human, "Sizes and dates for people (default)");
  command->add_option("--format", o->format, "json, table …, or a template");
  command->add_option("IMAGE", o->name)->required();
  command->callback([&context, o] { historyCommand(context, *o); });
}

void addImagePrune(CLI::App& app, Context& context) {
  struct Options {
    bool all = false, force = false;
    std::vector<std::string> filters;
  };
  auto o = std::make_shared<Options>();
  auto* command = app.add_subcommand("prune", "Remove unused images");
  command->add_flag("-a,--all", o->all, "Images with names too, when no container uses them");
  command->add_flag("-f,--force", o->force, "Do not ask");
  addList(command, "--filter", o->filters, "Filter: until=TIME; label=, label!=KEY[=VALUE]");
  command->callback([&context, o] {
    if (!confirmed(std::string("This will remove all ") +
                       (o->all ? "images without at least one container associated to them."
                               : "dangling images."),
                   o->force)) {
      return;
    }
    std::vector<std::string> filters = o->filters;
    filters.push_back(o->all ? "dangling=false" : "dangling=true");
    const json result = context.engine().post(
        withQuery("/images/prune", {{"filters", filtersQuery(filters)}}), json());
    const json deleted = result.value("ImagesDeleted", json());
    if (deleted.is_array() && !deleted.empty()) {
      std::cout << "Deleted Images:\n";
      for (const auto& item : deleted) {
        for (const auto& [what, which] : item.items())
          std::cout << (what == "Deleted" ? "deleted: " : "untagged: ") << which.get<std::string>()
                    << "\n";
      }
      std::cout << "\n";
    }
    std::cout << "Total reclaimed space: " << humanSize(result.value("SpaceReclaimed", 0.0))
              << "\n";
  });
}

}  // namespace hull::cli
