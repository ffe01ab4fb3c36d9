// context, system dial-stdio, completion: which engine, the way to it, and its names for shells.
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/client/locate.h"
#include "cli/commands/context.h"
#include "cli/help/completion.h"
#include "cli/help/man_pages.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

Endpoint& existing(Contexts& contexts, const std::string& name) {
  const auto found = contexts.named.find(name);
  if (found == contexts.named.end()) {
    throw Exit{1, fmt::format("context \"{}\": not found (hull context ls lists them)", name)};
  }
  return found->second;
}

void listContexts(const Context& context, const std::string& format, bool quiet) {
  const Contexts contexts = loadContexts();
  const std::string current = context.context.empty() ? contexts.current : context.context;
  std::vector<json> rows;
  const auto add = [&](const std::string& name, const std::string& host,
                       const std::string& description) {
    rows.push_back({{"Name", name},
                    {"Shown", name == current ? name + " *" : name},
                    {"Current", name == current},
                    {"Description", description},
                    {"Endpoint", host}});
  };
  add(kDefaultContext, "found or started here", "The engine of this machine");
  for (const auto& [name, one] : contexts.named) add(name, one.url, one.description);
  if (quiet) {
    for (const auto& row : rows) std::cout << row["Name"].get<std::string>() << "\n";
    return;
  }
  std::cout << formatRows(
      format, {{"NAME", "Shown"}, {"DESCRIPTION", "Description"}, {"ENDPOINT", "Endpoint"}}, rows);
}

void createContext(const std::string& name, const Endpoint& endpoint) {
  Contexts contexts = loadContexts();
  if (name == kDefaultContext || contexts.named.contains(name)) {
    throw Exit{1, fmt::format("context \"{}\" already exists", name)};
  }
  checkEndpoint(endpoint);
  contexts.named[name] = endpoint;
  saveContexts(contexts);
  std::cout << name << "\n";
}

void useContext(const std::string& name) {
  Contexts contexts = loadContexts();
  if (name != kDefaultContext) existing(contexts, name);
  contexts.current = name;
  saveContexts(contexts);
  std::cout << name << "\n";
}

void removeContext(const std::string& name, bool force) {
  Contexts contexts = loadContexts();
  existing(contexts, name);
  if (contexts.current == name && !force) {
    throw Exit{1, fmt::format("context \"{}\" is in use: use another one first, or --force", name)};
  }
  if (contexts.current == name) contexts.current = kDefaultContext;
  contexts.named.erase(name);
  saveContexts(contexts);
  std::cout << name << "\n";
}

void addContextGroup(CLI::App& app, Context& context) {
  auto* group = app.add_subcommand("context", "Manage contexts: engines with names");
  group->require_subcommand(1);
  auto format = std::make_shared<std::string>();
  auto quiet = std::make_shared<bool>(false);
  auto* ls = group->add_subcommand("ls", "List contexts");
  ls->add_option("--format", *format, "json, table …, or a template");
  ls->add_flag("-q,--quiet", *quiet, "Only names");
  ls->callback([&context, format, quiet] { listContexts(context, *format, *quiet); });

  auto name = std::make_shared<std::string>();
  auto endpoint = std::make_shared<Endpoint>();
  auto* create = group->add_subcommand("create", "Name an engine");
  create->add_option("--host", endpoint->url, "unix:///path, tcp://host:port or ssh://host")
      ->required();
  create->add_option("--tls", endpoint->tls_folder, "Folder of ca.pem, cert.pem and key.pem");
  create->add_option("--description", endpoint->description, "What it is");
  create->add_option("CONTEXT", *name)->required();
  create->callback([name, endpoint] { createContext(*name, *endpoint); });

  auto used = std::make_shared<std::string>();
  auto* use = group->add_subcommand("use", "Talk to this engine from now on");
  use->add_option("CONTEXT", *used)->required();
  use->callback([used] { useContext(*used); });

  auto removed = std::make_shared<std::string>();
  auto force = std::make_shared<bool>(false);
  auto* remove = group->add_subcommand("rm", "Forget a context");
  remove->add_flag("-f,--force", *force, "Also the current one");
  remove->add_option("CONTEXT", *removed)->required();
  remove->callback([removed, force] { removeContext(*removed, *force); });

  group->add_subcommand("show", "Print the current context's name")->callback([&context] {
    std::cout << (context.context.empty() ? loadContexts().current : context.context) << "\n";
  });
}

// Standard input and output, to and from the engine: the far end of ssh://.
void dialStdio(Context& context) {
  const Fd engine = context.engine().connect();
  std::array<char, 65536> buffer;
  bool input_open = true;
  for (;;) {
    std::array<pollfd, 2> waiting{
        {{engine.get(), POLLIN, 0}, {input_open ? STDIN_FILENO : -1, POLLIN, 0}}};
    if (poll(waiting.data(), waiting.size(), -1) < 0) {
      if (errno == EINTR) continue;
      throw sysError("wait for the engine");
    }
    if (waiting[0].revents != 0) {
      const size_t got = readSome(engine.get(), std::as_writable_bytes(std::span(buffer)));
      if (got == 0) return;
      writeFull(STDOUT_FILENO, std::string_view(buffer.data(), got));
    }
    if (waiting[1].revents != 0) {
      const size_t got = readSome(STDIN_FILENO, std::as_writable_bytes(std::span(buffer)));
      if (got == 0) {
        input_open = false;
        shutdown(engine.get(), SHUT_WR);
      } else {
        writeFull(engine.get(), std::string_view(buffer.data(), got));
      }
    }
  }
}

// --- completion ---

std::vector<std::string> namesOf(Context& context, const std::string& kind) {
  std::vector<std::string> names;
  if (kind == "CONTEXT") {
    names.emplace_back(kDefaultContext);
    for (const auto& [name, one] : loadContexts().named) names.push_back(name);
    return names;
  }
  const EngineClient* engine = context.runningEngine();
  if (!engine) return names;
  if (kind == "CONTAINER") {
    for (const json& one : engine->get("/containers/json?all=1")) {
      for (const json& name : one["Names"]) names.push_back(name.get<std::string>().substr(1));
    }
  } else if (kind == "IMAGE") {
    for (const json& one : engine->get("/images/json")) {
      for (const json& tag : one.value("RepoTags", json::array())) names.push_back(tag);
    }
  } else if (kind == "NETWORK") {
    for (const json& one : engine->get("/networks")) names.push_back(one["Name"]);
  } else if (kind == "VOLUME") {
    const json answer = engine->get("/volumes");
    for (const json& one : answer.value("Volumes", json::array())) names.push_back(one["Name"]);
  }
  return names;
}

void addCompletion(CLI::App& app, Context& context) {
  auto shell = std::make_shared<std::string>();
  auto* command = app.add_subcommand("completion", "Print a shell's completion script");
  command->add_option("SHELL", *shell, "bash, zsh or fish")->required();
  command->callback([shell] { std::cout << completionScript(*shell); });

  auto* hidden = app.add_subcommand("__complete", "");
  hidden->group("");
  // Behind "--", where nothing is an option of ours.
  auto typed = std::make_shared<std::vector<std::string>>();
  hidden->add_option("WORD", *typed);
  hidden->callback([&app, &context, typed] {
    try {
      for (const auto& line : completions(
               app, *typed, [&](const std::string& kind) { return namesOf(context, kind); })) {
        std::cout << line << "\n";
      }
    } catch (const std::exception&) {
      // No names then; a completion never complains.
    }
  });

  auto folder = std::make_shared<std::string>();
  auto* pages = app.add_subcommand("__man", "");
  pages->group("");
  pages->add_option("FOLDER", *folder)->required();
  pages->callback([&app, folder] { writeManPages(app, *folder); });
}

}  // namespace

void addEndpointCommands(CLI::App& app, Context& context) {
  addContextGroup(app, context);
  addCompletion(app, context);
}

void addDialStdio(CLI::App& system, Context& context) {
  system.add_subcommand("dial-stdio", "Connect standard input and output to the engine")
      ->callback([&context] { dialStdio(context); });
}

}  // namespace hull::cli
