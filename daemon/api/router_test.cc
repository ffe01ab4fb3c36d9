#include "daemon/api/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "daemon/api/filters.h"
#include "daemon/api/time_query.h"

namespace hull::engine::api {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FakeExchange final : public Exchange {
 public:
  FakeExchange(const std::string& method, const std::string& path) {
    request_.method = method;
    request_.path = path;
  }
  Source& body() override { return empty_; }
  void reply(int status, std::string_view, std::string_view body, const Headers&) override {
    status_ = status;
    text_ = body;
  }
  Sink& stream(int status, std::string_view, const Headers&) override {
    status_ = status;
    return sink_;
  }
  RawConnection hijack(std::string_view) override { return {}; }
  bool answered() const override { return status_ != 0; }
  std::shared_ptr<void> onDisconnect(std::function<void()>) override { return nullptr; }
  bool disconnected() const override { return false; }

  int status_ = 0;
  std::string text_;
  StringSource empty_{""};
  StringSink sink_;
};

class RouterTest : public ::testing::Test {
 protected:
  RouterTest() {
    add("GET", "/_ping");
    add("GET", "/images/json");
    add("GET", "/images/{name*}/json");
    add("DELETE", "/images/{name*}");
    add("GET", "/containers/{id}/json");
    router_.add("GET", "/fail/{what}", [](Exchange& e) {
      throw Error(e.parameter(0) == "conflict" ? ErrorKind::kConflict : ErrorKind::kInternal, "no");
    });
  }
  void add(const std::string& method, const std::string& pattern) {
    router_.add(method, pattern, [pattern](Exchange& e) {
      std::string text = pattern;
      for (const auto& parameter : e.request().path_parameters) text += "|" + parameter;
      e.json(200, text);
    });
  }
  std::string ask(const std::string& method, const std::string& path) {
    FakeExchange exchange(method, path);
    router_.dispatch(exchange);
    minor_ = exchange.request().api_minor;
    return std::to_string(exchange.status_) + " " + exchange.text_;
  }
  Router router_;
  unsigned minor_ = 0;
};

TEST_F(RouterTest, FindsPathsWithAndWithoutVersion) {
  EXPECT_EQ(ask("GET", "/_ping"), "200 /_ping");
  EXPECT_EQ(minor_, kMaxApiMinor);
  EXPECT_EQ(ask("GET", "/v1.41/_ping"), "200 /_ping");
  EXPECT_EQ(minor_, 41u);
  EXPECT_EQ(ask("HEAD", "/_ping"), "200 /_ping");
}

TEST_F(RouterTest, ImageNamesMayHaveSlashes) {
  EXPECT_EQ(ask("GET", "/images/json"), "200 /images/json");
  EXPECT_EQ(ask("GET", "/images/debian/json"), "200 /images/{name*}/json|debian");
  EXPECT_EQ(ask("GET", "/v1.51/images/docker.io/library/a:b/json"),
            "200 /images/{name*}/json|docker.io/library/a:b");
  EXPECT_EQ(ask("GET", "/images/localhost%3A5000%2Fx/json"),
            "200 /images/{name*}/json|localhost:5000/x");
  EXPECT_EQ(ask("DELETE", "/images/json"), "200 /images/{name*}|json");
}

TEST_F(RouterTest, RefusesWhatIsNotThere) {
  EXPECT_THAT(ask("POST", "/_ping"), HasSubstr("404 {\"message\":\"page not found\"}"));
  EXPECT_THAT(ask("GET", "/containers//json"), HasSubstr("404"));
  EXPECT_THAT(ask("GET", "/containers/a/b/json"), HasSubstr("404"));
  EXPECT_THAT(ask("GET", "*"), HasSubstr("404"));
  EXPECT_THAT(ask("GET", ""), HasSubstr("404"));
  EXPECT_THAT(ask("GET", "/v1.52/_ping"),
              HasSubstr("400 {\"message\":\"client version 1.52 is too new"));
  EXPECT_THAT(ask("GET", "/v1.12/_ping"), HasSubstr("too old"));
  EXPECT_THAT(ask("GET", "/v1.99999999999/_ping"), HasSubstr("404"));
  EXPECT_THAT(ask("GET", "/containers/%zz/json"), HasSubstr("400"));
}

TEST_F(RouterTest, ErrorsBecomeAnswers) {
  EXPECT_THAT(ask("GET", "/fail/conflict"), HasSubstr("409 {\"message\":\"no\"}"));
  EXPECT_THAT(ask("GET", "/fail/x"), HasSubstr("500"));
  EXPECT_EQ(httpStatusOf(ErrorKind::kNotFound), 404);
  EXPECT_EQ(httpStatusOf(ErrorKind::kNotSupported), 501);
  EXPECT_EQ(httpStatusOf(ErrorKind::kUnavailable), 503);
  EXPECT_EQ(httpStatusOf(ErrorKind::kNoSpace), 500);
}

TEST(QueryTest, DecodesAndKnowsBooleans) {
  const Query query("a=1&b=True&c=false&d&e=x%20y+z&t=1&t=2&=n&f=0&g=none");
  EXPECT_TRUE(query.flag("a"));
  EXPECT_TRUE(query.flag("b"));
  EXPECT_FALSE(query.flag("c"));
  EXPECT_FALSE(query.flag("d"));
  EXPECT_FALSE(query.flag("f"));
  EXPECT_FALSE(query.flag("g"));
  EXPECT_TRUE(query.flag("missing", true));
  EXPECT_EQ(query.get("e"), "x y z");
  EXPECT_THAT(query.all("t"), ElementsAre("1", "2"));
  EXPECT_EQ(query.number("a"), 1);
  EXPECT_THROW(query.number("b"), Error);
  EXPECT_THROW(Query("a=%4"), Error);
  EXPECT_THROW(Query("%=1"), Error);
}

TEST(FiltersTest, TakesBothFormsAndRefusesUnknownKeys) {
  const Filters list(R"({"label":["a=b","c"],"status":["running"]})", {"label", "status"});
  EXPECT_TRUE(list.labelsFit({{"a", "b"}, {"c", "anything"}}));
  EXPECT_FALSE(list.labelsFit({{"a", "b"}}));
  EXPECT_FALSE(list.labelsFit({{"a", "other"}, {"c", ""}}));
  EXPECT_TRUE(list.allows("status", "running"));
  EXPECT_FALSE(list.allows("status", "exited"));
  const Filters map(R"({"label":{"a=b":true,"z":false},"dangling":{"true":true}})",
                    {"label", "dangling"});
  EXPECT_TRUE(map.labelsFit({{"a", "b"}}));
  EXPECT_TRUE(map.flag("dangling", false));
  EXPECT_TRUE(Filters("", {}).allows("x", "y"));
  EXPECT_THROW(Filters(R"({"nonsense":["x"]})", {"label"}), Error);
  EXPECT_THROW(Filters(R"({"label":[1]})", {"label"}), Error);
  EXPECT_THROW(Filters(R"({"label":{"a":"b"}})", {"label"}), Error);
  EXPECT_THROW(Filters("[]", {"label"}), Error);
  EXPECT_THROW(Filters("{", {"label"}), Error);
  EXPECT_THROW(Filters(std::string(100'000, '['), {"label"}), Error);
}

TEST(TimeQueryTest, SecondsFractionsAndRfc3339) {
  EXPECT_EQ(timeQuery(""), std::nullopt);
  EXPECT_EQ(timeQuery("0"), std::nullopt);
  EXPECT_EQ(timeQuery("-1"), std::nullopt);
  EXPECT_EQ(timeQuery("12.5"), 12'500'000'000);
  EXPECT_EQ(timeQuery("1.000000001"), 1'000'000'001);
  EXPECT_EQ(timeQuery("1970-01-01T00:00:01.5Z"), 1'500'000'000);
  EXPECT_EQ(timeQuery("1970-01-01T01:00:01+01:00"), 1'000'000'000);
  for (const char* bad : {"x", "1x", "1.x", "T", "99999999999999999999", "9999999999999"}) {
    EXPECT_THROW(timeQuery(bad), Error) << bad;
  }
}

}  // namespace
}  // namespace hull::engine::api
