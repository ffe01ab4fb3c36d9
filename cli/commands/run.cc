// run, create, start, exec, attach: the commands that put a process in front of the user.

#include <fmt/format.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/error.h"
#include "cli/client/session.h"
#include "cli/commands/context.h"
#include "cli/commands/create_options.h"
#include "cli/commands/pull.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

std::string createContainer(Context& context, const CreateOptions& o) {
  const json body = createBody(o);
  const std::string target =
      withQuery("/containers/create", {{"name", o.name}, {"platform", o.platform}});
  const std::string& image = o.words[0];
  const auto pull = [&] {
    if (!o.quiet) std::cerr << fmt::format("Unable to find image '{}' locally\n", withTag(image));
    pullImage(context, image, o.platform, o.quiet ? PullOutput::kSilent : PullOutput::kStderr);
  };
  if (o.pull == "always") pullImage(context, image, o.platform, PullOutput::kStderr);
  json created;
  try {
    created = context.engine().post(target, body);
  } catch (const ApiError& error) {
    const bool missing =
        error.status() == 404 && std::string_view(error.what()).starts_with("No such image");
    if (!missing || o.pull == "never") throw;
    pull();
    created = context.engine().post(target, body);
  }
  for (const auto& warning : created.value("Warnings", json::array())) {
    std::cerr << "WARNING: " << warning.get<std::string>() << "\n";
  }
  const std::string id = created.at("Id");
  if (!o.cidfile.empty()) {
    std::ofstream file(o.cidfile);
    if (!(file << id))
      throw Exit{kExitEngine, fmt::format("write {}: {}", o.cidfile, strerror(errno))};
  }
  return id;
}

// The exit status Docker gives to a container that could not start.
int startFailureStatus(std::string_view message) {
  if (message.find("executable file not found") != std::string_view::npos ||
      message.find("no such file or directory") != std::string_view::npos) {
    return kExitNotFound;
  }
  if (message.find("permission denied") != std::string_view::npos ||
      message.find("is a directory") != std::string_view::npos) {
    return kExitNotExecutable;
  }
  return kExitEngine;
}

SessionOptions sessionFor(Context& context, const std::string& resize_target,
                          const std::string& kill_target, const CreateOptions& o) {
  const bool tty = o.tty, input = o.interactive;
  SessionOptions options;
  if (!o.detach_keys.empty()) options.detach_keys = o.detach_keys;
  (void)DetachKeys(options.detach_keys);
  options.terminal = tty;
  options.send_input = input;
  if (tty) {
    options.resize = [&context, resize_target](int rows, int columns) {
      try {
        context.engine().call("POST", fmt::format("{}?h={}&w={}", resize_target, rows, columns));
      } catch (const std::exception&) {
        // Not running yet or any more: the size is sent again with the next change.
      }
    };
  }
  if (!tty && o.sig_proxy && !kill_target.empty()) {
    options.forward_signal = [&context, kill_target](int number) {
      try {
        context.engine().call("POST", fmt::format("{}?signal={}", kill_target, number));
      } catch (const std::exception&) {
        // Gone already.
      }
    };
  }
  return options;
}

void requireTerminal(bool tty, bool interactive) {
  if (tty && interactive && !isatty(STDIN_FILENO)) throw Exit{1, "the input device is not a TTY"};
}

// Waits in the background from before the start on, so that no exit is missed.
class ExitWaiter {
 public:
  ExitWaiter(const EngineClient& engine, const std::string& id, bool removed)
      : thread_([this, &engine, id, removed] {
          try {
            const Response response =
                engine.call("POST", fmt::format("/containers/{}/wait?condition={}", id,
                                                removed ? "removed" : "next-exit"));
            status_ = json::parse(response.body).at("StatusCode").get<int>();
          } catch (const std::exception& error) {
            failure_ = error.what();
          }
        }) {}
  ~ExitWaiter() {
    if (thread_.joinable()) thread_.detach();
  }
  ExitWaiter(const ExitWaiter&) = delete;
  ExitWaiter& operator=(const ExitWaiter&) = delete;
  int status() {
    thread_.join();
    if (!failure_.empty()) throw Exit{kExitEngine, failure_};
    return status_;
  }

 private:
  int status_ = 0;
  std::string failure_;
  std::thread thread_;
};

int runAttached(Context& context, const std::string& id, const CreateOptions& o) {
  const EngineClient& engine = context.engine();
  Hijacked connection =
      engine.hijack(fmt::format("/containers/{}/attach?stream=1&stdout=1&stderr=1&stdin={}", id,
                                o.interactive ? 1 : 0),
                    nullptr);
  // On the heap and left behind when the start fails: its thread may still be waiting.
  auto* waiter = new ExitWaiter(engine, id, o.remove);
  engine.call("POST", "/containers/" + id + "/start");
  const std::string base = "/containers/" + id;
  const SessionOptions options = sessionFor(context, base + "/resize", base + "/kill", o);
  if (runSession(std::move(connection), options) == SessionEnd::kDetached) return 0;
  const int status = waiter->status();
  delete waiter;
  return status;
}

int runCommand(Context& context, const CreateOptions& o) {
  if (!o.detach) requireTerminal(o.tty, o.interactive);
  std::string id;
  try {
    id = createContainer(context, o);
    if (!o.detach) return runAttached(context, id, o);
    context.engine().call("POST", "/containers/" + id + "/start");
    std::cout << id << "\n";
    return 0;
  } catch (const ApiError& error) {
    if (!id.empty() && o.remove) {
      try {
        context.engine().call("DELETE", "/containers/" + id + "?force=1&v=1");
      } catch (const std::exception&) {
        // The engine removed it itself.
      }
    }
    throw Exit{startFailureStatus(error.what()), error.what()};
  }
}

// --- exec ---

struct ExecOptions {
  bool interactive = false, tty = false, detach = false, privileged = false;
  std::string workdir, user, detach_keys;
  std::vector<std::string> env, env_files, words;
};

int execCommand(Context& context, const ExecOptions& o) {
  if (!o.detach) requireTerminal(o.tty, o.interactive);
  const EngineClient& engine = context.engine();
  json body = {{"Cmd", std::vector<std::string>(o.words.begin() + 1, o.words.end())},
               {"Tty", o.tty},
               {"AttachStdin", o.interactive && !o.detach},
               {"AttachStdout", !o.detach},
               {"AttachStderr", !o.detach},
               {"Env", environmentOf(o.env_files, o.env)},
               {"Privileged", o.privileged}};
  if (!o.workdir.empty()) body["WorkingDir"] = o.workdir;
  if (!o.user.empty()) body["User"] = o.user;
  try {
    const std::string id =
        engine.post("/containers/" + urlEncode(o.words[0]) + "/exec", body).at("Id");
    const json start = {{"Detach", o.detach}, {"Tty", o.tty}};
    if (o.detach) {
      engine.post("/exec/" + id + "/start", start);
      return 0;
    }
    Hijacked connection = engine.hijack("/exec/" + id + "/start", &start);
    CreateOptions session;
    session.tty = o.tty;
    session.interactive = o.interactive;
    session.detach_keys = o.detach_keys;
    const SessionOptions options = sessionFor(context, "/exec/" + id + "/resize", "", session);
    if (runSession(std::move(connection), options) == SessionEnd::kDetached) return 0;
    return engine.get("/exec/" + id + "/json").at("ExitCode").get<int>();
  } catch (const ApiError& error) {
    const int status = startFailureStatus(error.what());
    throw Exit{status == kExitEngine ? 1 : status, error.what()};
  }
}

// --- start, attach ---

struct AttachOptions {
  bool input = true, sig_proxy = true;
  std::string detach_keys;
};

int attachCommand(Context& context, const std::string& name, const AttachOptions& asked,
                  bool start) {
  const EngineClient& engine = context.engine();
  const json info = engine.get("/containers/" + urlEncode(name) + "/json");
  if (!start && !info["State"]["Running"].get<bool>()) {
    throw Exit{1, "You cannot attach to a stopped container, start it first"};
  }
  CreateOptions o;
  o.tty = info["Config"]["Tty"];
  o.interactive = asked.input && info["Config"]["OpenStdin"].get<bool>();
  o.sig_proxy = asked.sig_proxy;
  o.detach_keys = asked.detach_keys;
  requireTerminal(o.tty, o.interactive);
  const std::string id = info["Id"];
  if (start) {
    o.remove = info["HostConfig"].value("AutoRemove", false);
    return runAttached(context, id, o);
  }
  Hijacked connection =
      engine.hijack(fmt::format("/containers/{}/attach?stream=1&stdout=1&stderr=1&stdin={}", id,
                                o.interactive ? 1 : 0),
                    nullptr);
  const std::string base = "/containers/" + id;
  const SessionOptions options = sessionFor(context, base + "/resize", base + "/kill", o);
  if (runSession(std::move(connection), options) == SessionEnd::kDetached) return 0;
  const Response waited = engine.call("POST", base + "/wait");
  return json::parse(waited.body).at("StatusCode").get<int>();
}

}  // namespace

void addRunCommands(CLI::App& app, Context& context) {
  auto run_options = std::make_shared<CreateOptions>();
  auto* run = addPrefixCommand(app, "run", "Create and run a new container from an image", 1,
                               run_options->words);
  addCreateOptions(run, *run_options);
  run->add_flag("-d,--detach", run_options->detach,
                "Run in the background and print the container's id");
  addList(run, "-a,--attach", run_options->attach,
          "Accepted for compatibility: all streams are attached");
  run->callback([&context, run_options] { context.exit_code = runCommand(context, *run_options); });

  auto create_options = std::make_shared<CreateOptions>();
  auto* create =
      addPrefixCommand(app, "create", "Create a new container", 1, create_options->words);
  addCreateOptions(create, *create_options);
  create->callback([&context, create_options] {
    std::cout << createContainer(context, *create_options) << "\n";
  });

  auto exec_options = std::make_shared<ExecOptions>();
  auto* exec = addPrefixCommand(app, "exec", "Execute a command in a running container", 2,
                                exec_options->words);
  exec->add_flag("-i,--interactive", exec_options->interactive, "Keep standard input open");
  exec->add_flag("-t,--tty", exec_options->tty, "Give the command a terminal");
  exec->add_flag("-d,--detach", exec_options->detach, "Run it in the background");
  exec->add_flag("--privileged", exec_options->privileged, "All capabilities inside the VM");
  exec->add_option("-w,--workdir", exec_options->workdir, "Working directory");
  exec->add_option("-u,--user", exec_options->user, "User: name|uid[:group|gid]");
  addList(exec, "-e,--env", exec_options->env, "Environment variable K=V");
  addList(exec, "--env-file", exec_options->env_files, "Read environment variables from a file");
  exec->add_option("--detach-keys", exec_options->detach_keys,
                   "Keys that detach, ctrl-p,ctrl-q by default");
  exec->callback(
      [&context, exec_options] { context.exit_code = execCommand(context, *exec_options); });

  struct StartOptions {
    bool attach = false, interactive = false;
    std::string detach_keys;
    std::vector<std::string> names;
  };
  auto start_options = std::make_shared<StartOptions>();
  auto* start = app.add_subcommand("start", "Start stopped containers");
  start->add_flag("-a,--attach", start_options->attach, "Attach output and forward signals");
  start->add_flag("-i,--interactive", start_options->interactive, "Attach standard input");
  start->add_option("--detach-keys", start_options->detach_keys,
                    "Keys that detach, ctrl-p,ctrl-q by default");
  start->add_option("CONTAINER", start_options->names)->required();
  start->callback([&context, start_options] {
    if (start_options->attach || start_options->interactive) {
      if (start_options->names.size() > 1)
        throw Exit{1, "you cannot start and attach multiple containers at once"};
      context.exit_code =
          attachCommand(context, start_options->names[0],
                        {start_options->interactive, true, start_options->detach_keys}, true);
      return;
    }
    forEachName(context, start_options->names, [&](const std::string& name) {
      context.engine().call("POST", "/containers/" + urlEncode(name) + "/start");
      std::cout << name << "\n";
    });
  });

  auto attach_name = std::make_shared<std::string>();
  auto attach_options = std::make_shared<AttachOptions>();
  auto* attach = app.add_subcommand("attach", "Attach to a running container");
  attach->add_flag("!--no-stdin", attach_options->input, "Do not attach standard input");
  attach->add_flag("--sig-proxy,!--no-sig-proxy", attach_options->sig_proxy,
                   "Pass signals on to the process");
  attach->add_option("--detach-keys", attach_options->detach_keys,
                     "Keys that detach, ctrl-p,ctrl-q by default");
  attach->add_option("CONTAINER", *attach_name)->required();
  attach->callback([&context, attach_name, attach_options] {
    context.exit_code = attachCommand(context, *attach_name, *attach_options, false);
  });
}

}  // namespace hull::cli
