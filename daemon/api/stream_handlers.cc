// attach, logs, wait, exec start: connections that live as long as a process.
#include <sys/socket.h>

#include "base/log.h"
#include "daemon/api/handlers.h"
#include "daemon/api/raw_stream.h"
#include "daemon/api/shapes.h"
#include "daemon/api/time_query.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine::api {

namespace {

using ContainerPtr = std::shared_ptr<Container>;

struct Wanted {
  bool out = false;
  bool err = false;
  bool fits(OutputKind kind) const { return kind == OutputKind::kStdout ? out : err; }
};

// Checked now, so that nonsense is refused before anything happens.
std::string detachKeysOf(const std::string& asked) {
  const std::string keys = asked.empty() ? std::string(kDefaultDetachKeys) : asked;
  (void)DetachKeys(keys);
  return keys;
}

guest::OpenStream stdinOf(const std::string& process) {
  guest::OpenStream open;
  open.process = process;
  open.kind = guest::OpenStream::Kind::kStdin;
  return open;
}

void sendLog(LogReader& reader, const Wanted& wanted, bool frame, bool timestamps, Sink& out) {
  while (const auto entry = reader.next()) {
    if (!wanted.fits(entry->stream)) continue;
    const std::string text =
        timestamps ? formatLogTime(entry->time_ns, true) + " " + entry->text : entry->text;
    out.write(framed(entry->stream, text, frame));
  }
}

void sendOutput(OutputSubscription& subscription, const Wanted& wanted, bool frame, Sink& out) {
  while (const auto chunk = subscription.next()) {
    if (wanted.fits(chunk->stream)) out.write(framed(chunk->stream, chunk->bytes, frame));
  }
}

// --- attach ---

// The stream of a container's input, once it runs.
InputPump::OpenFunction mainInput(const ContainerPtr& container,
                                  const std::shared_ptr<std::atomic<bool>>& over) {
  return [container, over]() -> Fd {
    const auto run = container->awaitRun([over] { return over->load(); });
    return run ? run->openStream(stdinOf(guest::kMainProcess)) : Fd();
  };
}

void attach(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  const ContainerPtr container = engine.containers().get(exchange.parameter(0));
  if (container->state().status == Status::kPaused) {
    throw Error(ErrorKind::kConflict,
                "container " + container->id() + " is paused, unpause the container before attach");
  }
  const ContainerSpec& spec = container->spec();
  const bool frame = !spec.tty;
  const bool logs = query.flag("logs"), stream = query.flag("stream");
  const Wanted wanted{query.flag("stdout"), query.flag("stderr")};
  const std::string detach_keys = detachKeysOf(query.get("detachKeys"));
  const auto output = container->output();
  const auto subscription = output->subscribe(OutputSubscription::WhenSlow::kWait, logs);
  LogQuery log_query;
  log_query.end_bytes = subscription->logBytes();
  LogReader history(container->logPath(), log_query, nullptr);

  const RawConnection connection =
      exchange.hijack(rawStreamType(exchange.request(), spec.tty, true));
  const auto over = std::make_shared<std::atomic<bool>>(false);
  const auto watch = exchange.onDisconnect([&, over] {
    over->store(true);
    container->wake();
    subscription->cancel();
  });
  RawSink out(connection.fd);
  std::unique_ptr<InputPump> input;
  if (stream && query.flag("stdin") && spec.open_stdin) {
    InputPump::Options options;
    options.end_input = spec.stdin_once && !spec.tty;
    if (spec.tty) options.detach_keys = detach_keys;
    options.detached = [&] {
      engine.containers().publish(*container, "detach");
      subscription->cancel();
    };
    input = std::make_unique<InputPump>(connection, options, mainInput(container, over));
  }
  settle(connection.fd);
  try {
    if (logs) sendLog(history, wanted, frame, false, out);
    if (stream) sendOutput(*subscription, wanted, frame, out);
  } catch (const Error& error) {
    log::debug(std::string("attach: ") + error.what());
  }
  subscription->cancel();
  over->store(true);
  container->wake();
  input.reset();
}

// --- logs ---

void logs(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  const ContainerPtr container = engine.containers().get(exchange.parameter(0));
  if (container->spec().log.driver == LogDriver::kNone) {
    throw Error(ErrorKind::kNotSupported,
                "configured logging driver does not support reading (the container was created "
                "with --log-driver none)");
  }
  LogQuery log_query;
  const Wanted wanted{query.flag("stdout"), query.flag("stderr")};
  if (!wanted.out && !wanted.err) {
    throw Error(ErrorKind::kInvalidArgument, "Bad parameters: you must choose at least one stream");
  }
  log_query.want_stdout = wanted.out;
  log_query.want_stderr = wanted.err;
  log_query.since_ns = timeQuery(query.get("since"));
  log_query.until_ns = timeQuery(query.get("until"));
  const std::string tail = query.get("tail", "all");
  if (!tail.empty() && tail != "all") {
    const int64_t lines = query.number("tail").value_or(-1);
    if (lines >= 0) log_query.tail = static_cast<uint64_t>(lines);  // negative: all
  }
  const auto live = container->liveOutput();
  log_query.follow = query.flag("follow") && live;
  const auto reader = std::make_unique<LogReader>(container->logPath(), log_query, live);
  const auto watch = exchange.onDisconnect([&] { reader->cancel(); });
  const bool tty = container->spec().tty;
  Sink& out = exchange.stream(200, rawStreamType(exchange.request(), tty, false), {});
  sendLog(*reader, wanted, !tty, query.flag("timestamps"), out);
}

// --- wait ---

void wait(Exchange& exchange, Engine& engine) {
  const ContainerPtr container = engine.containers().get(exchange.parameter(0));
  const std::string text = exchange.request().query.get("condition", "not-running");
  Container::WaitCondition condition = Container::WaitCondition::kNotRunning;
  if (text == "next-exit") {
    condition = Container::WaitCondition::kNextExit;
  } else if (text == "removed") {
    condition = Container::WaitCondition::kRemoved;
  } else if (text != "not-running" && !text.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "invalid condition: \"" + text + "\"");
  }
  const auto registered = container->wait(condition);
  const auto watch = exchange.onDisconnect([&] { registered->cancel(); });
  Sink& out = exchange.stream(200, "application/json", {});  // the header goes out now
  const auto result = registered->get();
  if (!result) return;
  Json json{{"StatusCode", result->exit_code}};
  if (!result->error.empty()) json["Error"] = {{"Message", result->error}};
  out.write(dump(json));
}

// --- exec ---

void publishExecStart(Engine& engine, const Exec& exec) {
  std::string command;
  for (const std::string& argument : exec.spec().arguments) command += " " + argument;
  engine.containers().publish(*exec.container(), "exec_start:" + command, {{"execID", exec.id()}});
}

void runExec(Exchange& exchange, Engine& engine, const std::shared_ptr<Exec>& exec) {
  const ExecSpec& spec = exec->spec();
  checkStep(Step::kExec, exec->container()->state().status, exec->container()->id());
  if (exec->state().started) {
    throw Error(ErrorKind::kConflict, "exec " + exec->id() + " has already run");
  }
  const RawConnection connection =
      exchange.hijack(rawStreamType(exchange.request(), spec.tty, true));
  RawSink out(connection.fd);
  std::unique_ptr<OutputSubscription> subscription;
  try {
    engine.execs().start(exec, [&](ProcessOutput& output) { subscription = output.subscribe(); });
  } catch (const Error& error) {
    // As Docker does it: the reason is output, and the client asks for the exit code (126, 127).
    settle(connection.fd);
    return out.write(framed(OutputKind::kStdout, std::string(error.what()) + "\r\n", !spec.tty));
  }
  publishExecStart(engine, *exec);
  const auto over = std::make_shared<std::atomic<bool>>(false);
  const auto watch = exchange.onDisconnect([&, over] {
    over->store(true);
    exec->wake();
    subscription->cancel();
  });
  std::unique_ptr<InputPump> input;
  if (spec.attach_stdin) {
    InputPump::Options options;
    options.end_input = true;
    if (spec.tty) options.detach_keys = detachKeysOf(spec.detach_keys);
    options.detached = [&, over] {
      engine.containers().publish(*exec->container(), "exec_detach", {{"execID", exec->id()}});
      over->store(true);
      exec->wake();
      subscription->cancel();
    };
    input = std::make_unique<InputPump>(connection, options, [exec]() -> Fd {
      const auto run = exec->run();
      return run ? run->openStream(stdinOf(exec->id())) : Fd();
    });
  }
  settle(connection.fd);
  try {
    sendOutput(*subscription, {spec.attach_stdout, spec.attach_stderr}, !spec.tty, out);
  } catch (const Error& error) {
    log::debug(std::string("exec: ") + error.what());
    over->store(true);
  }
  subscription->cancel();
  // Clients ask for the exit code as soon as the stream ends: it ends when the code is known.
  exec->awaitExit([over] { return over->load(); });
  input.reset();
}

void startExec(Exchange& exchange, Engine& engine) {
  const auto exec = engine.execs().get(exchange.parameter(0));
  const Json body = fields::parseObject(exchange.text(), "the exec start configuration");
  if (!fields::boolean(body, "Detach")) return runExec(exchange, engine, exec);
  engine.execs().start(exec);
  publishExecStart(engine, *exec);
  exchange.empty(200);
}

}  // namespace

void addStreamRoutes(Router& router, Engine& engine) {
  router.add("POST", "/containers/{name}/attach", [&](Exchange& e) { attach(e, engine); });
  router.add("GET", "/containers/{name}/logs", [&](Exchange& e) { logs(e, engine); });
  router.add("POST", "/containers/{name}/wait", [&](Exchange& e) { wait(e, engine); });
  router.add("POST", "/exec/{id}/start", [&](Exchange& e) { startExec(e, engine); });
}

}  // namespace hull::engine::api
