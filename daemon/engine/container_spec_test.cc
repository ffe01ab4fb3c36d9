#include "daemon/engine/container_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "daemon/engine/container_state.h"
#include "daemon/engine/containers.h"
#include "daemon/engine/execs.h"
#include "daemon/engine/image_change.h"
#include "daemon/engine/names.h"

namespace hull::engine {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

image::RuntimeConfig imageConfig() {
  image::RuntimeConfig config;
  config.env = {"PATH=/bin", "A=image"};
  config.entrypoint = {"/entry"};
  config.cmd = {"image-cmd"};
  config.labels = {{"from", "image"}, {"l", "image"}};
  config.exposed_ports = {"80/tcp"};
  config.working_dir = "/srv";
  config.user = "app";
  config.stop_signal = "SIGQUIT";
  return config;
}

ContainerSpec specFor(const std::string& body, const image::RuntimeConfig& image = imageConfig()) {
  return specOf(completeDocuments(body, image));
}

std::string refusal(const std::string& body, ErrorKind kind = ErrorKind::kInvalidArgument) {
  try {
    specFor(body);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return "accepted";
}

TEST(ContainerSpecTest, ImageDefaultsAreTakenAsDockerDoes) {
  EXPECT_THAT(specFor("{}").arguments, ElementsAre("/entry", "image-cmd"));
  EXPECT_THAT(specFor(R"({"Cmd":["x","y"]})").arguments, ElementsAre("/entry", "x", "y"));
  EXPECT_THAT(specFor(R"({"Cmd":"x"})").arguments, ElementsAre("/entry", "x"));
  EXPECT_THAT(specFor(R"({"Entrypoint":["/e"]})").arguments, ElementsAre("/e"));
  EXPECT_THAT(specFor(R"({"Entrypoint":[""],"Cmd":["x"]})").arguments, ElementsAre("x"));
  EXPECT_THAT(specFor(R"({"Entrypoint":[],"Cmd":["x"]})").arguments, ElementsAre("x"));
  const ContainerSpec spec = specFor(R"({"Env":["A=mine","B"],"Labels":{"l":"mine"}})");
  EXPECT_THAT(spec.env, ElementsAre("A=mine", "B", "PATH=/bin"));
  EXPECT_EQ(spec.labels.at("l"), "mine");
  EXPECT_EQ(spec.labels.at("from"), "image");
  EXPECT_EQ(spec.user, "app");
  EXPECT_EQ(spec.working_dir, "/srv");
  EXPECT_EQ(spec.stop_signal, "SIGQUIT");
  try {
    specFor("{}", {});
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "no command specified");
  }
}

TEST(ContainerSpecTest, HostConfigIsRead) {
  const ContainerSpec spec = specFor(R"({"Tty":true,"OpenStdin":true,"HostConfig":{
    "Memory":134217728,"NanoCpus":1500000000,"NetworkMode":"none","ReadonlyRootfs":true,
    "Tmpfs":{"/t":"size=1m"},"CapDrop":["ALL"],"CapAdd":["NET_ADMIN"],
    "SecurityOpt":["no-new-privileges"],"PidsLimit":10,"ShmSize":1048576,
    "Ulimits":[{"Name":"nofile","Soft":10,"Hard":-1}],
    "RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},
    "PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"},{"HostPort":""}]}}})");
  EXPECT_EQ(spec.memory_bytes, 134217728u);
  EXPECT_EQ(spec.vcpus, 2u);
  EXPECT_FALSE(spec.network);
  EXPECT_TRUE(spec.read_only_root && spec.no_new_privileges && spec.tty);
  EXPECT_EQ(spec.mounts.tmpfs.at("/t"), "size=1m");
  EXPECT_EQ(spec.capabilities, uint64_t{1} << 12);
  EXPECT_EQ(spec.rlimits.at(0).hard, ~uint64_t{0});
  EXPECT_EQ(spec.restart, RestartPolicy::kOnFailure);
  EXPECT_THAT(spec.ports, ElementsAre(PortBinding{80, "tcp", "127.0.0.1", 8080},
                                      PortBinding{80, "tcp", "0.0.0.0", 0}));
  EXPECT_THAT(
      specFor(R"({"HostConfig":{"PortBindings":{"53/udp":[{"HostPort":"5300-5310"}]}}})").ports,
      ElementsAre(PortBinding{53, "udp", "0.0.0.0", 5300, 5310}));
  EXPECT_EQ(specFor("{}").capabilities, 0xa80425fbu);
  EXPECT_EQ(specFor(R"({"HostConfig":{"CpuQuota":250000,"CpuPeriod":100000}})").vcpus, 3u);
  EXPECT_EQ(specFor(R"({"HostConfig":{"PublishAllPorts":true}})").ports.size(), 1u);
}

TEST(ContainerSpecTest, RefusesWhatItCannotDoWithAWordOnWhy) {
  const auto kNot = ErrorKind::kNotSupported;
  EXPECT_THAT(refusal(R"({"HostConfig":{"NetworkMode":"host"}})", kNot), HasSubstr("-p instead"));
  EXPECT_THAT(refusal(R"({"HostConfig":{"Binds":["/a:/b:shared"]}})", kNot), HasSubstr("rslave"));
  EXPECT_THAT(refusal(R"({"HostConfig":{"PidMode":"host"}})", kNot), HasSubstr("namespace"));
  EXPECT_THAT(refusal(R"({"HostConfig":{"Devices":[{}]}})", kNot),
              HasSubstr("no device of the host"));
  EXPECT_THAT(refusal(R"({"HostConfig":{"LogConfig":{"Type":"syslog"}}})", kNot),
              HasSubstr("json-file"));
  EXPECT_THAT(refusal(R"({"HostConfig":{"Mounts":[{"Type":"image"}]}})", kNot), HasSubstr("image"));
  EXPECT_THAT(refusal(R"({"HostConfig":{"PortBindings":{"53/sctp":[{}]}}})", kNot),
              HasSubstr("TCP"));
  EXPECT_THAT(refusal(R"({"HostConfig":{"PortBindings":{"53/udp":[{"HostPort":"9-8"}]}}})"),
              HasSubstr("range"));
  EXPECT_THAT(refusal(R"({"HostConfig":{"Memory":1}})"), HasSubstr("6MB"));
  EXPECT_THAT(refusal(R"({"HostConfig":{"NanoCpus":-1}})"), HasSubstr("CPUs"));
  EXPECT_THAT(refusal(R"({"HostConfig":{"CapAdd":["NONSENSE"]}})"), HasSubstr("CAP_NONSENSE"));
  EXPECT_THAT(refusal(R"({"HostConfig":{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}})"),
              HasSubstr("AutoRemove"));
  EXPECT_THAT(refusal(R"({"WorkingDir":"relative"})"), HasSubstr("absolute"));
  EXPECT_THAT(refusal(R"({"Env":["=x"]})"), HasSubstr("invalid environment"));
  EXPECT_THAT(refusal(R"({"Env":[1]})"), HasSubstr("Env"));
  EXPECT_THAT(refusal(R"({"HostConfig":[]})"), HasSubstr("HostConfig"));
  EXPECT_THAT(refusal(R"({"ExposedPorts":{"99999/tcp":{}}})"), HasSubstr("port"));
  EXPECT_THAT(refusal(R"({"StopSignal":"NOPE"})"), HasSubstr("invalid signal"));
  EXPECT_THAT(refusal("[]"), HasSubstr("invalid JSON"));
  EXPECT_THAT(refusal(std::string(1000, '[')), HasSubstr("invalid JSON"));
}

TEST(ContainerSpecTest, DocumentsRoundTrip) {
  const ContainerDocuments documents =
      completeDocuments(R"({"Image":"x","Extra":{"kept":1}})", imageConfig());
  const auto config = nlohmann::json::parse(documents.config);
  EXPECT_EQ(config["Extra"]["kept"], 1);
  EXPECT_FALSE(config.contains("HostConfig"));
  const auto host = nlohmann::json::parse(documents.host_config);
  EXPECT_EQ(host["LogConfig"]["Type"], "json-file");
  EXPECT_EQ(host["NetworkMode"], "bridge");
}

TEST(ProcessEnvironmentTest, DefaultsOverridesAndRemovals) {
  EXPECT_THAT(processEnvironment({"A=1", "PATH=/x"}, true, "h"),
              ElementsAre("PATH=/x", "HOSTNAME=h", "TERM=xterm", "A=1"));
  EXPECT_THAT(processEnvironment({"A=1", "A", "PATH"}, false, ""), ElementsAre());
}

TEST(SignalsTest, NamesAndNumbers) {
  EXPECT_EQ(signalNumber("SIGTERM"), 15u);
  EXPECT_EQ(signalNumber("term"), 15u);
  EXPECT_EQ(signalNumber("9"), 9u);
  EXPECT_EQ(signalNumber("RTMIN+3"), 37u);
  EXPECT_EQ(signalNumber("SIGRTMAX-1"), 63u);
  for (const char* bad : {"", "0", "65", "-1", "FOO", "RTMIN+99", "RTMIN-1", "KILL+1"}) {
    EXPECT_THROW(signalNumber(bad), Error) << bad;
  }
}

TEST(GuestFilesTest, HostsAndResolver) {
  ContainerSpec spec;
  spec.domainname = "example.org";
  const auto message = [&](const char* address, const char* gateway) {
    return createMessage(spec, "box", address, gateway, false);
  };
  EXPECT_THAT(message("172.17.0.2", "172.17.0.1").hosts,
              HasSubstr("172.17.0.2\tbox.example.org box\n"));
  spec.dns_search = {"a.org"};
  EXPECT_EQ(message("172.17.0.2", "172.17.0.1").resolv_conf,
            "nameserver 172.17.0.1\nsearch a.org\n");
  EXPECT_EQ(message("", "").resolv_conf, "");
  spec.dns = {"9.9.9.9"};
  EXPECT_EQ(message("172.17.0.2", "172.17.0.1").resolv_conf, "nameserver 9.9.9.9\nsearch a.org\n");
}

TEST(NamesTest, DockerRules) {
  EXPECT_EQ(checkedName("/web-1"), "web-1");
  EXPECT_EQ(checkedName(randomName()).empty(), false);
  EXPECT_EQ(newId().size(), 64u);
  for (const char* bad : {"", "a", "-web", "a b", "ä1", "a/b"})
    EXPECT_THROW(checkedName(bad), Error);
}

TEST(ContainerStateTest, StepsThatMayNotFollow) {
  const auto refused = [](Step step, Status status) {
    try {
      checkStep(step, status, "c");
      return false;
    } catch (const Error& error) {
      return error.kind() == ErrorKind::kConflict;
    }
  };
  EXPECT_FALSE(refused(Step::kStart, Status::kCreated));
  EXPECT_FALSE(refused(Step::kStart, Status::kExited));
  EXPECT_TRUE(refused(Step::kStart, Status::kPaused));
  EXPECT_TRUE(refused(Step::kStart, Status::kRemoving));
  EXPECT_TRUE(refused(Step::kPause, Status::kExited));
  EXPECT_TRUE(refused(Step::kPause, Status::kPaused));
  EXPECT_TRUE(refused(Step::kUnpause, Status::kRunning));
  EXPECT_TRUE(refused(Step::kKill, Status::kExited));
  EXPECT_TRUE(refused(Step::kExec, Status::kPaused));
  EXPECT_TRUE(refused(Step::kRemove, Status::kRunning));
  EXPECT_FALSE(refused(Step::kRemove, Status::kExited));
  EXPECT_TRUE(refused(Step::kRemove, Status::kRestarting));
}

TEST(ContainerStateTest, RoundTrips) {
  ContainerState state;
  state.status = Status::kRunning;
  state.exit_code = 3;
  state.ports = {{"0.0.0.0", 8080, 80}};
  state.started_ns = 5;
  const ContainerState again = parseState(toJson(state));
  EXPECT_EQ(again.status, Status::kRunning);
  EXPECT_EQ(again.exit_code, 3);
  EXPECT_EQ(again.ports.at(0).host_port, 8080);
  EXPECT_THROW(parseState("{}"), Error);
  EXPECT_THROW(parseState("nonsense"), Error);
}

TEST(StartFailureTest, WordsThatClientsDeriveExitCodesFrom) {
  EXPECT_EQ(startFailure(Error(ErrorKind::kNotFound, "gone"), "x").exit_code, 127);
  EXPECT_THAT(startFailure(Error(ErrorKind::kNotFound, "gone"), "x").message,
              HasSubstr("executable file not found"));
  EXPECT_THAT(startFailure(Error(ErrorKind::kForbidden, "no"), "x").message,
              HasSubstr("permission denied"));
  EXPECT_EQ(startFailure(Error(ErrorKind::kForbidden, "no"), "x").exit_code, 126);
  EXPECT_EQ(startFailure(Error(ErrorKind::kTimeout, "slow"), "x").exit_code, 128);
  EXPECT_EQ(vmMemoryMib(0, uint64_t{512} << 20), 512u);
  EXPECT_GT(vmMemoryMib(uint64_t{128} << 20, 0), 128u);
}

TEST(ExecSpecTest, Parses) {
  const ExecSpec spec = parseExecSpec(R"({"Cmd":["a"],"Tty":true,"ConsoleSize":[24,80]})");
  EXPECT_EQ(spec.rows, 24);
  EXPECT_EQ(spec.columns, 80);
  EXPECT_THROW(parseExecSpec("{}"), Error);
  EXPECT_THROW(parseExecSpec(R"({"Cmd":{}})"), Error);
  EXPECT_THROW(parseExecSpec(R"({"Cmd":["a"],"WorkingDir":"b"})"), Error);
}

TEST(ImageChangeTest, InstructionsOfImportAndCommit) {
  image::RuntimeConfig config;
  for (const char* change :
       {"CMD [\"a\",\"b\"]", "ENTRYPOINT run it", "ENV A=1 B=\"2 3\"", "ENV A=4", "LABEL x=y",
        "EXPOSE 80 53/udp", "USER u", "WORKDIR /w", "VOLUME /v"}) {
    applyChange(change, config);
  }
  EXPECT_THAT(*config.cmd, ElementsAre("a", "b"));
  EXPECT_THAT(*config.entrypoint, ElementsAre("/bin/sh", "-c", "run it"));
  EXPECT_THAT(config.env, ElementsAre("A=4", "B=2 3"));
  EXPECT_EQ(config.labels.at("x"), "y");
  EXPECT_THAT(config.exposed_ports, ElementsAre("53/udp", "80/tcp"));
  EXPECT_EQ(config.user + config.working_dir, "u/w");
  EXPECT_THAT(config.volumes, Contains("/v"));
  EXPECT_THROW(applyChange("RUN x", config), Error);
  EXPECT_THROW(applyChange("", config), Error);
}

// In Docker's words (moby: runconfig/errors.go).
TEST(ContainerSpecTest, JoiningANetworkLeavesNothingOfItToTheJoiner) {
  const auto joining = [](const std::string& more, const std::string& host = "") {
    return R"({"Image":"i","Cmd":["x"],"HostConfig":{"NetworkMode":"container:web")" + host + "}" +
           more + "}";
  };
  const ContainerSpec spec = specFor(joining(""));
  EXPECT_EQ(spec.joins, "web");
  EXPECT_FALSE(spec.network);
  EXPECT_TRUE(specFor(R"({"Image":"i","Cmd":["x"]})").joins.empty());
  const auto conflict = [](const std::string& what) { return "conflicting options: " + what; };
  EXPECT_EQ(refusal(joining(R"(,"Hostname":"h")")), conflict("hostname and the network mode"));
  EXPECT_EQ(refusal(joining(R"(,"MacAddress":"02:00:00:00:00:01")")),
            conflict("mac-address and the network mode"));
  EXPECT_EQ(refusal(joining(R"(,"ExposedPorts":{"80/tcp":{}})")),
            conflict("port exposing and the container type network mode"));
  EXPECT_EQ(refusal(joining("", R"(,"PortBindings":{"80/tcp":[{"HostPort":"80"}]})")),
            conflict("port publishing and the container type network mode"));
  EXPECT_EQ(refusal(joining("", R"(,"PublishAllPorts":true)")),
            conflict("port publishing and the container type network mode"));
  EXPECT_EQ(refusal(joining("", R"(,"Dns":["1.1.1.1"])")), conflict("dns and the network mode"));
  EXPECT_EQ(refusal(joining("", R"(,"ExtraHosts":["a:1.2.3.4"])")),
            conflict("custom host-to-IP mapping and the network mode"));
  EXPECT_EQ(refusal(joining("", R"(,"Links":["db"])")),
            conflict("container type network can't be used with links. This would result in "
                     "undefined behavior"));
  const auto endpoint = [&](const std::string& config) {
    return refusal(
        joining(R"(,"NetworkingConfig":{"EndpointsConfig":{"container:web":)" + config + "}}"));
  };
  EXPECT_EQ(endpoint("{}"), "accepted");
  EXPECT_EQ(endpoint(R"({"Aliases":["a"]})"),
            "network-scoped alias is supported only for containers in user defined networks");
  EXPECT_EQ(endpoint(R"({"IPAMConfig":{"IPv4Address":"10.0.0.1"}})"),
            "user specified IP address is supported on user defined networks only");
  for (const char* mode : {"container", "container:"}) {
    EXPECT_EQ(refusal(std::string(R"({"Image":"i","Cmd":["x"],"HostConfig":{"NetworkMode":")") +
                      mode + "\"}}"),
              "invalid network mode: invalid container format container:<name|id>");
  }
  // What the image exposes is no wish of the request.
  image::RuntimeConfig image = imageConfig();
  image.exposed_ports = {"80/tcp"};
  EXPECT_EQ(specFor(joining(""), image).joins, "web");
}

}  // namespace
}  // namespace hull::engine
