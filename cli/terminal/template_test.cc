#include "cli/terminal/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace hull::cli {
namespace {

using nlohmann::json;

const json kValue = json::parse(R"({
  "Name": "/ship", "State": {"ExitCode": 3, "Running": true}, "Args": ["a", "b"], "Map": {"k.x": "v", "z": "w"},
  "Empty": [], "Size": 1.5, "Nothing": null,
  "NetworkSettings": {"Networks": {"back": {"IPAddress": "10.0.0.3"}, "bridge": {"IPAddress": "172.17.0.2"}},
                      "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": null}},
  "Mounts": [{"Type": "bind", "Destination": "/b"}, {"Type": "volume", "Destination": "/v"}]
})");

std::string expand(std::string_view text) {
  return expandTemplate(text, kValue);
}

std::string failure(std::string_view text) {
  try {
    return "expanded to " + expand(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    return error.what();
  }
}

TEST(Template, FieldsAndText) {
  EXPECT_EQ(expand(""), "");
  EXPECT_EQ(expand(R"(a\tb\n{{.State.ExitCode}}\x)"), "a\tb\n3\\x");
  EXPECT_EQ(expand("{{.Args}} {{.Map}} {{.Nothing}} {{.Size}} {{ .State.Running }}"),
            "[a b] map[k.x:v z:w] <no value> 1.5 true");
  EXPECT_EQ(expand("{{$.Name}}{{/* nothing */}}{{`raw}}`}}{{\"}}\\t\\u00e9\"}}"),
            "/shipraw}}}}\té");
  EXPECT_EQ(expand("x  {{- .State.ExitCode -}}  y {{- 4}}"), "x3y4");
}

TEST(Template, WhatDockersUsersAskFor) {
  EXPECT_EQ(expand("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"),
            "10.0.0.3 172.17.0.2 ");
  EXPECT_EQ(
      expand(
          "{{range $name, $net := .NetworkSettings.Networks}}{{$name}}={{$net.IPAddress}};{{end}}"),
      "back=10.0.0.3;bridge=172.17.0.2;");
  EXPECT_EQ(expand("{{range $p, $conf := .NetworkSettings.Ports}} {{$p}} -> {{with $conf}}{{(index "
                   ". 0).HostPort}}{{else}}-{{end}}{{end}}"),
            " 80/tcp -> 8080 81/tcp -> -");
  EXPECT_EQ(expand(R"({{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}})"), "8080");
  EXPECT_EQ(expand("{{range .Mounts}}{{if eq .Type \"volume\"}}{{.Destination}}{{end}}{{end}}"),
            "/v");
  EXPECT_EQ(expand("{{if .State.Health}}{{.State.Health.Status}}{{else if "
                   ".State.Running}}up{{else}}down{{end}}"),
            "up");
  EXPECT_EQ(
      expand("{{json .Args}} {{.Args | json}} {{join .Args \",\"}} {{.Name | printf \"%-7s|\"}}"),
      R"(["a","b"] ["a","b"] a,b /ship  |)");
  EXPECT_EQ(expand(R"({{index (split .Name "/") 1 | title}})"), "Ship");
}

TEST(Template, Functions) {
  EXPECT_EQ(
      expand(
          R"({{len .Args}} {{len .Name}} {{len .Map}} {{index .Args 1}} {{index .Args 7}} {{index .Map "z"}})"),
      "2 5 2 b <no value> w");
  EXPECT_EQ(
      expand(
          R"({{upper .Name}} {{lower "ABC"}} {{upper .Map}} {{truncate .Name 2}} {{pad "x" 1 2}}|)"),
      "/SHIP abc MAP[K.X:V Z:W] /s  x  |");
  EXPECT_EQ(
      expand(
          R"({{print "a" 1 2 "b"}} {{println 1 "x"}}{{printf "%5d|%-4d|%05.1f|%q|%t|%x|%v|%.2s|%%" 7 8 1.25 "a\"b" true 255 .Args "abc"}})"),
      "a1 2b 1 x\n    7|8   |001.2|\"a\\\"b\"|true|ff|[a b]|ab|%");
  EXPECT_EQ(
      expand(
          R"({{eq 1 2 1}} {{ne 1 2}} {{lt 1 2.5}} {{le "b" "a"}} {{gt 2 1}} {{ge 1 1}} {{not .Empty}})"),
      "true true true false true true true");
  EXPECT_EQ(expand(R"({{and .Name .Empty}} {{or .Empty .Name}} {{and 1 0 2}} {{or nil ""}}|)"),
            "[] /ship 0 |");
}

TEST(Template, VariablesEndWithTheirBlock) {
  EXPECT_EQ(expand("{{$a := 1}}{{if true}}{{$a := 2}}{{$a}}{{end}}{{$a}}{{with $b := "
                   ".Name}}{{$b}}{{.}}{{end}}"),
            "21/ship/ship");
  EXPECT_EQ(expand("{{$last := 0}}{{range $i, $e := .Args}}{{$last = $i}}{{end}}{{$last}}"), "1");
  EXPECT_EQ(expand("{{range .Empty}}x{{else}}none{{end}}{{range .Args}}{{$.Name}}{{end}}"),
            "none/ship/ship");
  EXPECT_THAT(failure("{{if true}}{{$a := 2}}{{end}}{{$a}}"),
              testing::HasSubstr("there is no variable $a"));
}

TEST(Template, WhatIsWrongIsNamed) {
  for (const auto& [text, cause] : std::vector<std::pair<std::string, std::string>>{
           {"{{.B}}", "{{.B}}: there is no field \"B\""},
           {"{{.Name.X}}", "there is no field \"X\""},
           {"{{.Nothing.X}}", "there is no field \"X\""},
           {"{{.A", "the braces are not closed"},
           {"{{\"a}}", "the braces are not closed"},
           {"{{range .Name}}{{end}}", "range goes over lists and maps"},
           {"{{if .Name}}", "without its {{end}}"},
           {"{{if .Name}}{{else}}", "without its {{end}}"},
           {"{{if .Name}}{{else range .Args}}{{end}}", "only if or with follows else"},
           {"{{end}}", "without a beginning"},
           {"{{}}", "a value is missing"},
           {"{{json}}", "json takes another number of arguments"},
           {"{{.Name .Args}}", "only a function takes arguments"},
           {"{{(.Name}}", "a parenthesis is not closed"},
           {"{{.Name)}}", "something is left over"},
           {"{{.Name | .Args}}", "only functions follow"},
           {"{{nonsense .Name}}", "there is no function \"nonsense\""},
           {"{{printf \"%d\" .Name}}", "printf takes another value for %d"},
           {"{{printf \"%999999d\" 1}}", "widths up to"},
           {"{{printf \"%s\"}}", "a value for each %"},
           {"{{join .Name \"\"}}", "join takes a list"},
           {"{{truncate .Name -1}}", "a number up to"},
           {"{{lt 1 .Name}}", "two numbers or two texts"},
           {"{{1x}}", "1x is no number"},
           {"{{.Name ; }}", "unexpected ';'"}}) {
    EXPECT_THAT(failure(text), testing::HasSubstr(cause)) << text;
  }
}

TEST(Template, DepthIsBounded) {
  std::string parentheses, blocks;
  for (int i = 0; i < 100'000; ++i) {
    parentheses += '(';
    blocks += "{{if 1}}";
  }
  EXPECT_THAT(failure("{{" + parentheses + "}}"), testing::HasSubstr("too many parentheses"));
  EXPECT_THAT(failure(blocks), testing::HasSubstr("too many blocks"));
}

}  // namespace
}  // namespace hull::cli
