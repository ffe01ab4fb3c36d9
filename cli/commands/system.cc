// version, info, events, system: what the engine says of itself.

#include <fmt/format.h>
#include <time.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/client/filters.h"
#include "cli/commands/context.h"
#include "cli/terminal/format.h"
#include "cli/terminal/template.h"

#ifndef HULL_VERSION
#error "the build defines HULL_VERSION"
#endif

namespace hull::cli {

using nlohmann::json;

namespace {

void versionCommand(Context& context, const std::string& format) {
  json all = {{"Client", {{"Version", HULL_VERSION}, {"Os", "linux"}, {"Arch", "amd64"}}},
              {"Server", nullptr}};
  std::string failure;
  try {
    all["Server"] = context.engine().get("/version");
  } catch (const Error& error) {
    failure = error.what();
  }
  if (!format.empty()) {
    std::cout << (format == "json" ? all.dump() : expandTemplate(format, all)) << "\n";
  } else {
    std::cout << fmt::format(
        "Client: Hull\n Version:           {}\n OS/Arch:           linux/amd64\n", HULL_VERSION);
    if (failure.empty()) {
      const json& server = all["Server"];
      std::cout << fmt::format(
          "\nServer: Hull Engine\n Version:           {}\n API version:       {} (minimum version "
          "{})\n"
          " OS/Arch:           {}/{}\n Kernel:            {}\n Socket:            {}\n",
          server.value("Version", ""), server.value("ApiVersion", ""),
          server.value("MinAPIVersion", ""), server.value("Os", ""), server.value("Arch", ""),
          server.value("KernelVersion", ""), context.engine().where());
    }
  }
  if (!failure.empty()) throw Exit{1, failure};
}

void infoCommand(Context& context, const std::string& format) {
  const json info = context.engine().get("/info");
  if (!format.empty()) {
    std::cout << (format == "json" ? info.dump() : expandTemplate(format, info)) << "\n";
    return;
  }
  const auto text = [&](const char* key) { return info.value(key, std::string("")); };
  const auto number = [&](const char* key) { return info.value(key, int64_t{0}); };
  std::cout << fmt::format(
      "Containers: {}\n Running: {}\n Paused: {}\n Stopped: {}\nImages: {}\nServer Version: "
      "{}\nStorage Driver: {}\n"
      "Kernel Version: {}\nOperating System: {}\nCPUs: {}\nTotal Memory: {}\nName: {}\nRoot Dir: "
      "{}\nSocket: {}\n",
      number("Containers"), number("ContainersRunning"), number("ContainersPaused"),
      number("ContainersStopped"), number("Images"), text("ServerVersion"), text("Driver"),
      text("KernelVersion"), text("OperatingSystem"), number("NCPU"),
      humanSize(static_cast<double>(number("MemTotal"))), text("Name"), text("DockerRootDir"),
      context.engine().where());
}

struct EventsOptions {
  std::string since, until, format;
  std::vector<std::string> filters;
};

void eventsCommand(Context& context, const EventsOptions& o) {
  JsonLines lines([&](const json& event) {
    if (!o.format.empty()) {
      std::cout << (o.format == "json" ? event.dump() : expandTemplate(o.format, event))
                << std::endl;
      return;
    }
    const auto seconds = static_cast<time_t>(event.value("time", int64_t{0}));
    tm local;
    localtime_r(&seconds, &local);
    char stamp[64];
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S%z", &local);
    std::string attributes;
    const json named = event["Actor"].value("Attributes", json::object());
    for (const auto& [key, value] : named.items()) {
      attributes += (attributes.empty() ? "" : ", ") + key + "=" + value.get<std::string>();
    }
    std::cout << fmt::format("{} {} {} {} ({})", stamp, event.value("Type", ""),
                             event.value("Action", ""), event["Actor"].value("ID", ""), attributes)
              << std::endl;
  });
  context.engine().stream("GET",
                          withQuery("/events", {{"since", timeQuery(o.since)},
                                                {"until", timeQuery(o.until)},
                                                {"filters", filtersQuery(o.filters)}}),
                          nullptr, {}, [&](std::string_view data) { lines.feed(data); });
}

}  // namespace

namespace {

void addInfo(CLI::App& app, Context& context) {
  auto info_format = std::make_shared<std::string>();
  auto* info = app.add_subcommand("info", "Show what the engine says of itself");
  info->add_option("-f,--format", *info_format, "json or a template");
  info->callback([&context, info_format] { infoCommand(context, *info_format); });
}

void addEvents(CLI::App& app, Context& context) {
  auto events_options = std::make_shared<EventsOptions>();
  auto* events = app.add_subcommand("events", "Show what happens, as it happens");
  events->add_option("--since", events_options->since, "From this time on, or this long ago (10m)");
  events->add_option("--until", events_options->until, "Up to this time, then end");
  events->add_option("--format", events_options->format, "json or a template");
  addList(events, "-f,--filter", events_options->filters, "Filter, like type=container");
  events->callback([&context, events_options] { eventsCommand(context, *events_options); });
}

}  // namespace

void addSystemCommands(CLI::App& app, Context& context) {
  auto version_format = std::make_shared<std::string>();
  auto* version = app.add_subcommand("version", "Show the versions of client and engine");
  version->add_option("-f,--format", *version_format, "json or a template");
  version->callback([&context, version_format] { versionCommand(context, *version_format); });
  addInfo(app, context);
  addEvents(app, context);

  auto* system = app.add_subcommand("system", "Manage the engine");
  system->require_subcommand(1);
  addInfo(*system, context);
  addEvents(*system, context);
  addDiskCommands(*system, context);
  addDialStdio(*system, context);
}

}  // namespace hull::cli
