// ps, logs, stop, kill, rm and the other verbs on existing containers.

#include <fcntl.h>
#include <fmt/format.h>
#include <time.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "cli/client/filters.h"
#include "cli/client/output_file.h"
#include "cli/client/session.h"
#include "cli/commands/context.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

std::string containerPath(const std::string& name, const std::string& rest = "") {
  return "/containers/" + urlEncode(name) + rest;
}

std::string portsText(const json& container) {
  std::string text;
  for (const auto& port : container.value("Ports", json::array())) {
    if (!text.empty()) text += ", ";
    if (port.contains("PublicPort")) {
      const std::string address = port.value("IP", "0.0.0.0");
      text += fmt::format("{}:{}->",
                          address.find(':') == std::string::npos ? address : "[" + address + "]",
                          port["PublicPort"].get<int>());
    }
    text += fmt::format("{}/{}", port["PrivatePort"].get<int>(), port.value("Type", "tcp"));
  }
  return text;
}

// --- ps ---

struct PsOptions {
  bool all = false, quiet = false, no_trunc = false, size = false, latest = false;
  int last = -1;
  std::string format;
  std::vector<std::string> filters;
};

json psRow(const json& c, bool no_trunc) {
  const std::string id = c["Id"], command = c.value("Command", "");
  std::string names;
  for (const auto& name : c.value("Names", json::array())) {
    names += (names.empty() ? "" : ",") + name.get<std::string>().substr(1);
  }
  std::string labels;
  const json label_map = c.value("Labels", json::object());
  for (const auto& [key, value] : label_map.items()) {
    labels += (labels.empty() ? "" : ",") + key + "=" + value.get<std::string>();
  }
  const int64_t created = c.value("Created", int64_t{0});
  char stamp[64];
  const auto seconds = static_cast<time_t>(created);
  tm local;
  localtime_r(&seconds, &local);
  strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S %z %Z", &local);
  return {{"ID", no_trunc ? id : shortId(id)},
          {"Image", c.value("Image", "")},
          {"Command", "\"" + (no_trunc ? command : ellipsis(command, 20)) + "\""},
          {"CreatedAt", stamp},
          {"RunningFor", ago(created)},
          {"Status", c.value("Status", "")},
          {"State", c.value("State", "")},
          {"Ports", portsText(c)},
          {"Labels", labels},
          {"Size", fmt::format("{} (virtual {})", humanSize(c.value("SizeRw", 0.0)),
                               humanSize(c.value("SizeRootFs", 0.0)))},
          {"Networks", c.contains("HostConfig") ? c["HostConfig"].value("NetworkMode", "") : ""},
          {"Mounts", ""},
          {"LocalVolumes", "0"},
          {"Names", names}};
}

void psCommand(Context& context, const PsOptions& o) {
  const int limit = o.latest ? 1 : o.last;
  const json containers = context.engine().get(
      withQuery("/containers/json", {{"all", o.all || limit > 0 ? "1" : ""},
                                     {"size", o.size ? "1" : ""},
                                     {"limit", limit > 0 ? std::to_string(limit) : ""},
                                     {"filters", filtersQuery(o.filters)}}));
  std::vector<json> rows;
  for (const auto& container : containers) rows.push_back(psRow(container, o.no_trunc));
  if (o.quiet) {
    for (const auto& row : rows) std::cout << row["ID"].get<std::string>() << "\n";
    return;
  }
  std::vector<Column> columns = {
      {"CONTAINER ID", "ID"}, {"IMAGE", "Image"}, {"COMMAND", "Command"}, {"CREATED", "RunningFor"},
      {"STATUS", "Status"},   {"PORTS", "Ports"}, {"NAMES", "Names"}};
  if (o.size) columns.push_back({"SIZE", "Size"});
  std::cout << formatRows(o.format, columns, rows);
}

// --- logs ---

struct LogsOptions {
  bool follow = false, timestamps = false, details = false;
  std::string tail = "all", since, until, name;
};

void logsCommand(Context& context, const LogsOptions& o) {
  const EngineClient& engine = context.engine();
  const bool tty = engine.get(containerPath(o.name, "/json"))["Config"]["Tty"];
  FrameSplitter splitter([](int stream, std::string_view data) {
    (stream == 2 ? std::cerr : std::cout)
        .write(data.data(), static_cast<std::streamsize>(data.size()))
        .flush();
  });
  const std::string target =
      withQuery(containerPath(o.name, "/logs"), {{"stdout", "1"},
                                                 {"stderr", "1"},
                                                 {"follow", o.follow ? "1" : ""},
                                                 {"timestamps", o.timestamps ? "1" : ""},
                                                 {"tail", o.tail},
                                                 {"since", timeQuery(o.since)},
                                                 {"until", timeQuery(o.until)}});
  engine.stream("GET", target, nullptr, {}, [&](std::string_view data) {
    if (tty) {
      std::cout.write(data.data(), static_cast<std::streamsize>(data.size())).flush();
    } else {
      splitter.feed(data);
    }
  });
}

// --- cp ---

struct CopyEnd {
  std::string container;  // empty: a local path
  std::string path;
};

CopyEnd parseCopyEnd(const std::string& text) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos || text[0] == '/' || text[0] == '.') return {"", text};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

// tar(1) reads and writes the local side: both ends of a copy are archives in the API.
class TarReader final : public Source {
 public:
  explicit TarReader(const std::string& path) {
    namespace fs = std::filesystem;
    if (!fs::exists(fs::symlink_status(path)))
      throw Exit{1, "lstat " + path + ": no such file or directory"};
    FdPair pipe = makePipe();
    SubprocessOptions options;
    const fs::path absolute = fs::absolute(path).lexically_normal();
    const bool contents = path.ends_with("/.") || path == ".";
    const fs::path folder = contents ? absolute : absolute.parent_path();
    const std::string name = contents ? "." : absolute.filename().string();
    options.arguments = {"tar", "-C", folder.string(), "-c", "--", name};
    options.descriptors = {{pipe.second.get(), 1}, {2, 2}};
    child_.emplace(options);
    output_ = std::move(pipe.first);
  }
  size_t read(std::span<std::byte> into) override {
    const size_t got = readSome(output_.get(), into);
    if (got == 0 && child_->wait() != 0) throw Exit{1, "tar could not read all files"};
    return got;
  }

 private:
  std::optional<Subprocess> child_;
  Fd output_;
};

void copyOut(Context& context, const CopyEnd& from, const std::string& to) {
  namespace fs = std::filesystem;
  const bool into_folder = fs::is_directory(to);
  if (!into_folder && to.ends_with('/')) throw Exit{1, "open " + to + ": no such directory"};
  const fs::path target = fs::absolute(to).lexically_normal();
  const std::string base = fs::path(from.path).filename().string();
  FdPair pipe = makePipe();
  SubprocessOptions options;
  // Names in the archive start with the source's base name; a copy to a new name replaces it.
  const fs::path folder = into_folder ? target : target.parent_path();
  options.arguments = {"tar", "-C", folder.string(), "-x", "--no-same-owner"};
  if (!into_folder && !base.empty()) {
    options.arguments.push_back("--strip-components=0");
    options.arguments.push_back("--transform=s,^" + base + "," + target.filename().string() + ",");
  }
  options.descriptors = {{pipe.first.get(), 0}, {2, 2}};
  Subprocess tar(options);
  pipe.first.reset();
  context.engine().stream(
      "GET", withQuery(containerPath(from.container, "/archive"), {{"path", from.path}}), nullptr,
      {}, [&](std::string_view data) { writeFull(pipe.second.get(), data); });
  pipe.second.reset();
  if (tar.wait() != 0) throw Exit{1, "tar could not write all files"};
}

void copyIn(Context& context, const std::string& from, const CopyEnd& to) {
  if (from == "-") {
    FdSource input(0);
    context.engine().stream("PUT",
                            withQuery(containerPath(to.container, "/archive"), {{"path", to.path}}),
                            &input, {{"Content-Type", "application/x-tar"}}, {});
    return;
  }
  // Into the folder `to`, or as `to` when that is no folder: the archive's one name says which.
  std::string folder = to.path;
  bool is_folder = to.path.ends_with('/');
  try {
    context.engine().call(
        "HEAD", withQuery(containerPath(to.container, "/archive"), {{"path", to.path + "/."}}));
    is_folder = true;
  } catch (const ApiError&) {
    // Not there, or a file: its parent must be there, which PUT will say.
  }
  if (is_folder) {
    TarReader tar(from);
    context.engine().stream("PUT",
                            withQuery(containerPath(to.container, "/archive"), {{"path", folder}}),
                            &tar, {{"Content-Type", "application/x-tar"}}, {});
    return;
  }
  const std::filesystem::path target(to.path);
  const TemporaryDirectory staging("hull-cp");
  const std::string staged = staging.path() + "/" + target.filename().string();
  // A copy under the new name, made with cp(1) so that modes and links stay.
  checkCommand({"cp", "-a", "--", from, staged});
  TarReader tar(staged);
  const std::string parent = target.parent_path().empty() ? "/" : target.parent_path().string();
  context.engine().stream("PUT",
                          withQuery(containerPath(to.container, "/archive"), {{"path", parent}}),
                          &tar, {{"Content-Type", "application/x-tar"}}, {});
}

void copyCommand(Context& context, const std::string& from_text, const std::string& to_text) {
  const CopyEnd from = parseCopyEnd(from_text), to = parseCopyEnd(to_text);
  if (from.container.empty() == to.container.empty()) {
    throw Exit{1, from.container.empty() ? "must specify at least one container source"
                                         : "copying between containers is not supported"};
  }
  if (from.container.empty()) {
    copyIn(context, from.path, to);
  } else if (to.path == "-") {
    context.engine().stream(
        "GET", withQuery(containerPath(from.container, "/archive"), {{"path", from.path}}), nullptr,
        {}, [](std::string_view data) { writeFull(1, data); });
  } else {
    copyOut(context, from, to.path);
  }
}

// --- registration of the simple verbs ---

// VERB [options] CONTAINER…: one POST each, printing the name back.
CLI::App* addVerb(
    CLI::App& app, Context& context, const std::string& verb, const std::string& description,
    std::function<std::string()> query = [] { return std::string(); }) {
  auto names = std::make_shared<std::vector<std::string>>();
  auto* command = app.add_subcommand(verb, description);
  command->add_option("CONTAINER", *names)->required();
  command->callback([&context, names, verb, query] {
    forEachName(context, *names, [&](const std::string& name) {
      context.engine().call("POST", containerPath(name, "/" + verb) + query());
      std::cout << name << "\n";
    });
  });
  return command;
}

void addStopCommands(CLI::App& app, Context& context) {
  for (const std::string verb : {"stop", "restart"}) {
    auto seconds = std::make_shared<int>(-1);
    auto signal = std::make_shared<std::string>();
    auto* command = addVerb(
        app, context, verb, verb == "stop" ? "Stop running containers" : "Restart containers",
        [seconds, signal] {
          return withQuery(
              "", {{"t", *seconds >= 0 ? std::to_string(*seconds) : ""}, {"signal", *signal}});
        });
    command->add_option("-t,--time,--timeout", *seconds, "Seconds to wait before it is killed");
    command->add_option("-s,--signal", *signal, "Signal to send");
  }
  auto signal = std::make_shared<std::string>("KILL");
  addVerb(app, context, "kill", "Kill running containers", [signal] {
    return withQuery("", {{"signal", *signal}});
  })->add_option("-s,--signal", *signal, "Signal to send");
  addVerb(app, context, "pause", "Pause containers");
  addVerb(app, context, "unpause", "Resume paused containers");
}

void addRemove(CLI::App& app, Context& context) {
  struct Options {
    bool force = false, volumes = false;
    std::vector<std::string> names;
  };
  auto o = std::make_shared<Options>();
  auto* command = app.add_subcommand("rm", "Remove containers");
  command->add_flag("-f,--force", o->force, "Kill it first when it runs");
  command->add_flag("-v,--volumes", o->volumes, "Remove its anonymous volumes too");
  command->add_option("CONTAINER", o->names)->required();
  command->callback([&context, o] {
    forEachName(context, o->names, [&](const std::string& name) {
      try {
        context.engine().call(
            "DELETE", withQuery(containerPath(name),
                                {{"force", o->force ? "1" : ""}, {"v", o->volumes ? "1" : ""}}));
      } catch (const ApiError& error) {
        if (!(o->force && error.status() == 404)) throw;  // rm -f of nothing is done already
        std::cerr << error.what() << "\n";
        return;
      }
      std::cout << name << "\n";
    });
  });
}

void addPsAndLogs(CLI::App& app, Context& context) {
  auto ps_options = std::make_shared<PsOptions>();
  auto* ps = app.add_subcommand("ps", "List containers");
  ps->add_flag("-a,--all", ps_options->all, "Stopped ones too");
  ps->add_flag("-q,--quiet", ps_options->quiet, "Only ids");
  ps->add_flag("--no-trunc", ps_options->no_trunc, "Whole ids and commands");
  ps->add_flag("-s,--size", ps_options->size, "Sizes too");
  ps->add_flag("-l,--latest", ps_options->latest, "The newest only");
  ps->add_option("-n,--last", ps_options->last, "The newest N");
  ps->add_option("--format", ps_options->format, "json, table …, or a template");
  addList(ps, "-f,--filter", ps_options->filters, "Filter, like status=exited or label=key");
  ps->callback([&context, ps_options] { psCommand(context, *ps_options); });

  auto logs_options = std::make_shared<LogsOptions>();
  auto* logs = app.add_subcommand("logs", "Show the output of a container");
  logs->add_flag("-f,--follow", logs_options->follow, "Go on until it ends");
  logs->add_flag("-t,--timestamps", logs_options->timestamps, "With times");
  logs->add_option("-n,--tail", logs_options->tail, "The last N lines");
  logs->add_option("--since", logs_options->since, "From this time on, or this long ago (10m)");
  logs->add_option("--until", logs_options->until, "Up to this time");
  logs->add_flag("--details", logs_options->details, "Accepted for compatibility");
  logs->add_option("CONTAINER", logs_options->name)->required();
  logs->callback([&context, logs_options] { logsCommand(context, *logs_options); });
}

void addSmallVerbs(CLI::App& app, Context& context) {
  auto names = std::make_shared<std::vector<std::string>>();
  auto* wait =
      app.add_subcommand("wait", "Wait until containers stop, then print their exit codes");
  wait->add_option("CONTAINER", *names)->required();
  wait->callback([&context, names] {
    forEachName(context, *names, [&](const std::string& name) {
      std::cout
          << context.engine().post(containerPath(name, "/wait"), json())["StatusCode"].get<int>()
          << std::endl;
    });
  });

  auto pair = std::make_shared<std::pair<std::string, std::string>>();
  auto* rename = app.add_subcommand("rename", "Rename a container");
  rename->add_option("CONTAINER", pair->first)->required();
  rename->add_option("NEW_NAME", pair->second)->required();
  rename->callback([&context, pair] {
    context.engine().call(
        "POST", withQuery(containerPath(pair->first, "/rename"), {{"name", pair->second}}));
  });

  auto ends = std::make_shared<std::pair<std::string, std::string>>();
  auto* cp = app.add_subcommand("cp", "Copy files between a container and this machine");
  cp->add_option("SOURCE", ends->first, "path, CONTAINER:path or -")->required();
  cp->add_option("DESTINATION", ends->second, "path, CONTAINER:path or -")->required();
  cp->callback([&context, ends] { copyCommand(context, ends->first, ends->second); });

  auto top_name = std::make_shared<std::string>();
  auto ps_options = std::make_shared<std::vector<std::string>>();
  auto* top = app.add_subcommand("top", "Show the processes of a container");
  top->add_option("CONTAINER", *top_name)->required();
  top->add_option("PS_OPTIONS", *ps_options, "Accepted for compatibility");
  top->callback([&context, top_name] {
    const json answer = context.engine().get(containerPath(*top_name, "/top"));
    Table table(answer["Titles"].get<std::vector<std::string>>());
    for (const auto& row : answer["Processes"]) table.add(row.get<std::vector<std::string>>());
    std::cout << table.text();
  });

  auto port_name = std::make_shared<std::string>();
  auto private_port = std::make_shared<std::string>();
  auto* port = app.add_subcommand("port", "Show the published ports of a container");
  port->add_option("CONTAINER", *port_name)->required();
  port->add_option("PORT", *private_port, "Only this one, like 80 or 53/udp");
  port->callback([&context, port_name, private_port] {
    std::string only = *private_port;
    if (!only.empty() && only.find('/') == std::string::npos) only += "/tcp";
    bool any = false;
    const json info = context.engine().get(containerPath(*port_name, "/json"));
    const json ports = info["NetworkSettings"].value("Ports", json::object());
    for (const auto& [key, bindings] : ports.items()) {
      if (!bindings.is_array() || (!only.empty() && key != only)) continue;
      any = true;
      for (const auto& binding : bindings) {
        if (only.empty()) std::cout << key << " -> ";
        const std::string address = binding.value("HostIp", "");
        std::cout << (address.find(':') == std::string::npos ? address : "[" + address + "]") << ":"
                  << binding.value("HostPort", "") << "\n";
      }
    }
    if (!only.empty() && !any) {
      throw Exit{1, "no public port '" + only + "' published for " + *port_name};
    }
  });

  auto export_options = std::make_shared<std::pair<std::string, std::string>>();
  auto* exporter = app.add_subcommand("export", "Write a container's file system as a tar");
  exporter->add_option("-o,--output", export_options->first, "Write to a file");
  exporter->add_option("CONTAINER", export_options->second)->required();
  exporter->callback([&context, export_options] {
    OutputFile file(export_options->first);
    context.engine().stream("GET", containerPath(export_options->second, "/export"), nullptr, {},
                            [&](std::string_view data) { writeFull(file.fd(), data); });
    file.finish();
  });
}

}  // namespace

void addContainerCommands(CLI::App& app, Context& context) {
  addPsAndLogs(app, context);
  addStopCommands(app, context);
  addRemove(app, context);
  addSmallVerbs(app, context);
  addStatsCommand(app, context);
  addChangeCommands(app, context);
}

}  // namespace hull::cli
