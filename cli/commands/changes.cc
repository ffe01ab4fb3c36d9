// diff, commit: what became of a container.
#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands/context.h"
#include "image/types/reference.h"

namespace hull::cli {

using nlohmann::json;

namespace {

void addDiff(CLI::App& app, Context& context) {
  auto name = std::make_shared<std::string>();
  auto* command =
      app.add_subcommand("diff", "Show what a container added (A), changed (C) and deleted (D)");
  command->add_option("CONTAINER", *name)->required();
  command->callback([&context, name] {
    const json changes = context.engine().get("/containers/" + urlEncode(*name) + "/changes");
    if (!changes.is_array()) return;
    for (const json& change : changes) {
      const int kind = change.value("Kind", 0);
      std::cout << (kind == 1   ? 'A'
                    : kind == 2 ? 'D'
                                : 'C')
                << ' ' << change.value("Path", "") << '\n';
    }
  });
}

void addCommit(CLI::App& app, Context& context) {
  struct Options {
    std::string author, message, container, name;
    std::vector<std::string> changes;
    bool pause = true;
  };
  auto o = std::make_shared<Options>();
  auto* command = app.add_subcommand("commit", "Make an image of a container's files");
  command->add_option("-a,--author", o->author, "Author, like \"Ada <ada@example.com>\"");
  command->add_option("-m,--message", o->message, "Commit message");
  addList(command, "-c,--change", o->changes,
          "Apply a Dockerfile instruction, like 'CMD [\"sh\"]'");
  command->add_flag("-p,--pause,!--no-pause", o->pause, "Pause the container meanwhile");
  command->add_option("CONTAINER", o->container)->required();
  command->add_option("NAME", o->name, "Name of the image");
  command->callback([&context, o] {
    std::vector<std::pair<std::string, std::string>> query = {{"container", o->container},
                                                              {"author", o->author},
                                                              {"comment", o->message},
                                                              {"pause", o->pause ? "1" : "0"}};
    if (!o->name.empty()) {
      const image::Reference name = image::Reference::parse(o->name);
      query.emplace_back("repo", name.name());
      query.emplace_back("tag", name.tag);
    }
    for (const auto& change : o->changes) query.emplace_back("changes", change);
    std::cout << context.engine().post(withQuery("/commit", query), json())["Id"].get<std::string>()
              << "\n";
  });
}

}  // namespace

void addChangeCommands(CLI::App& app, Context& context) {
  addDiff(app, context);
  addCommit(app, context);
}

}  // namespace hull::cli
