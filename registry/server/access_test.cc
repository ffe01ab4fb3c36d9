// Who may do what: passwords, tokens, rules; and the small parts they stand on.
#include "registry/server/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "registry/server/access_log.h"
#include "registry/server/pattern.h"
#include "registry/server/rate_limit.h"

namespace hull::registry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

// bcrypt of "secret", cost 4.
const std::string kHash = "$2y$04$u7lQWPQSk2fIFUntYl/E9.qmvcmdyeI0wgkD0r7XgHYeVKYpn0gTS";

std::string basic(const std::string& user, const std::string& password) {
  return "Basic " + base64Encode(user + ":" + password);
}

TEST(Pattern, StarsStopAtSlashesAndDoubleStarsDoNot) {
  EXPECT_TRUE(matchesPattern("**", ""));
  EXPECT_TRUE(matchesPattern("**", "a/b/c"));
  EXPECT_TRUE(matchesPattern("team/*", "team/app"));
  EXPECT_FALSE(matchesPattern("team/*", "team/app/sub"));
  EXPECT_TRUE(matchesPattern("team/**", "team/app/sub"));
  EXPECT_FALSE(matchesPattern("team/**", "team"));
  EXPECT_TRUE(matchesPattern("*-release", "v1-release"));
  EXPECT_TRUE(matchesPattern("a*b*c", "aXbYc"));
  EXPECT_FALSE(matchesPattern("a*b*c", "aXbY"));
  EXPECT_FALSE(matchesPattern("app", "apple"));
  EXPECT_FALSE(matchesPattern("", "a"));
  // No exponential search.
  EXPECT_FALSE(matchesPattern("*a*a*a*a*a*a*a*a*a*a*a*b", std::string(255, 'a')));
}

TEST(Passwords, OnlyTheRightOneIsTaken) {
  const Passwords passwords("# people\nann:" + kHash + "\r\n\nbob:" + kHash + "\n");
  EXPECT_EQ(passwords.user(basic("ann", "secret")), "ann");
  EXPECT_EQ(passwords.user(basic("ann", "secret")), "ann") << "remembered";
  EXPECT_EQ(passwords.user("basic " + base64Encode("bob:secret")), "bob");
  EXPECT_FALSE(passwords.user(basic("ann", "Secret")));
  EXPECT_FALSE(passwords.user(basic("eve", "secret")));
  EXPECT_FALSE(passwords.user(basic("ann", std::string("secret\0x", 8))));
  EXPECT_FALSE(passwords.user(basic("ann", std::string(73, 'x'))));
  EXPECT_FALSE(passwords.user("Basic !!!"));
  EXPECT_FALSE(passwords.user("Basic " + base64Encode("ann")));
  EXPECT_FALSE(passwords.user("Digest " + base64Encode("ann:secret")));
  EXPECT_THAT(passwords.users(), ElementsAre("ann", "bob"));
}

TEST(Passwords, BadLinesAreNamed) {
  const auto error_of = [](const std::string& text) -> std::string {
    try {
      const Passwords passwords(text);
      return "none";
    } catch (const Error& error) {
      return error.what();
    }
  };
  EXPECT_THAT(error_of("ann:" + kHash + "\nbob:{SHA}x\n"), HasSubstr("line 2"));
  EXPECT_THAT(error_of(":" + kHash), HasSubstr("line 1"));
  EXPECT_THAT(error_of("ann"), HasSubstr("line 1"));
  std::string slow = kHash;
  slow.replace(4, 2, "31");
  EXPECT_THAT(error_of("ann:" + slow), HasSubstr("cost up to 14"));
}

TEST(Passwords, UsersAreAddedChangedAndRemoved) {
  std::string text = withUser("# people\nbob:" + kHash, "ann", "first");
  text = withUser(text, "ann", "second");
  EXPECT_TRUE(text.starts_with("# people\nbob:")) << text;
  const Passwords passwords(text);
  EXPECT_THAT(passwords.users(), ElementsAre("ann", "bob"));
  EXPECT_FALSE(passwords.user(basic("ann", "first")));
  EXPECT_TRUE(passwords.user(basic("ann", "second")));
  EXPECT_EQ(withoutUser(text, "an"), std::nullopt);
  EXPECT_THAT(Passwords(*withoutUser(text, "ann")).users(), ElementsAre("bob"));
  EXPECT_THROW(withUser("", "a:b", "x"), Error);
  EXPECT_THROW(withUser("", "ann", ""), Error);
  EXPECT_THROW(withUser("", "ann", std::string(73, 'x')), Error);
}

TEST(RateLimit, RefillsWithTime) {
  RateLimit limit;
  auto now = RateLimit::Clock::now();
  int admitted = 0;
  for (int i = 0; i < 100; ++i) admitted += limit.admits("1.2.3.4:5", 2, now);
  EXPECT_EQ(admitted, 20);  // kBurstSeconds of it
  EXPECT_TRUE(limit.admits("1.2.3.5:5", 2, now)) << "another address";
  now += std::chrono::seconds(1);
  EXPECT_TRUE(limit.admits("1.2.3.4:6", 2, now));
  EXPECT_TRUE(limit.admits("1.2.3.4:7", 2, now));
  EXPECT_FALSE(limit.admits("1.2.3.4:8", 2, now));
  EXPECT_TRUE(limit.admits("1.2.3.4:8", 0, now)) << "no limit";
}

TEST(AccessLog, LinesCannotBeForged) {
  Request request;
  request.method = "GET";
  request.target = "/v2/\"\n127.0.0.1 - root";
  request.peer = "[::1]:4711";
  request.user = "ann b";
  request.headers["user-agent"] = "curl\"\x1b[31m";
  Response response;
  response.status = 404;
  const Exchange exchange{request, response, 0, 17, std::chrono::milliseconds(12), {}};
  EXPECT_EQ(combinedLogLine(exchange, 0),
            "[::1] - ann_b [01/Jan/1970:00:00:00 +0000] \"GET /v2/\\x22\\x0a127.0.0.1 - root "
            "HTTP/1.1\" 404 17 \"-\" \"curl\\x22\\x1b[31m\" 0.012\n");
}

class Access : public ::testing::Test {
 protected:
  Access() { writeFileAtomic(file("htpasswd"), "ann:" + kHash + "\nbob:" + kHash + "\n"); }

  std::string file(const std::string& name) const { return folder_.path() + "/" + name; }

  AccessOptions users(std::vector<AccessRule> rules = {}) const {
    AccessOptions options;
    options.htpasswd = file("htpasswd");
    options.rules = std::move(rules);
    return options;
  }

  static Request with(const std::string& authorization) {
    Request request;
    request.headers["host"] = "reg.example:5000";
    if (!authorization.empty()) request.headers["authorization"] = authorization;
    return request;
  }

  static std::string challengeOf(const ApiError& error) {
    EXPECT_EQ(error.status(), 401);
    return error.headers().at(0).second;
  }

  Json tokenOf(const AccessControl& access, const std::string& query,
               const std::string& authorization) const {
    Request request = with(authorization);
    request.method = "GET";
    request.target = "/token?" + query;
    return Json::parse(access.giveToken(request).body);
  }

  TemporaryDirectory folder_{"hull-access"};
};

TEST_F(Access, WithoutAnythingEverybodyMayEverything) {
  const AccessControl access({}, nullptr);
  const Principal nobody = access.authenticate(with(""));
  EXPECT_TRUE(access.allows(nobody, "a", Action::kDelete));
  EXPECT_TRUE(access.allowsBase(nobody));
  EXPECT_TRUE(access.allowsCatalog(nobody));
}

TEST_F(Access, UsersMayEverythingAndOthersNothing) {
  const AccessControl access(users(), nullptr);
  const Principal nobody = access.authenticate(with(""));
  EXPECT_FALSE(access.allows(nobody, "a", Action::kPull));
  EXPECT_FALSE(access.allowsBase(nobody));
  EXPECT_EQ(challengeOf(access.refusal(with(""), nobody, "a", Action::kPull)),
            "Basic realm=\"hull-registry\"");
  const Principal ann = access.authenticate(with(basic("ann", "secret")));
  EXPECT_EQ(ann.name, "ann");
  EXPECT_TRUE(access.allows(ann, "a", Action::kDelete));
  EXPECT_THROW(access.authenticate(with(basic("ann", "wrong"))), ApiError);
  EXPECT_THROW(access.authenticate(with("Bearer x")), ApiError);
}

TEST_F(Access, RulesDecidePerRepositoryAndAction) {
  const AccessControl access(users({{"public/**", {"anonymous"}, true, false, false},
                                    {"team/*", {"ann"}, true, true, false},
                                    {"**", {"*"}, true, false, false}}),
                             nullptr);
  const Principal nobody;
  const Principal ann{"ann", {}};
  const Principal bob{"bob", {}};
  EXPECT_TRUE(access.allows(nobody, "public/x", Action::kPull));
  EXPECT_FALSE(access.allows(nobody, "public/x", Action::kPush));
  EXPECT_FALSE(access.allows(nobody, "team/app", Action::kPull));
  EXPECT_TRUE(access.allows(ann, "team/app", Action::kPush));
  EXPECT_FALSE(access.allows(ann, "team/app/deep", Action::kPush));
  EXPECT_FALSE(access.allows(ann, "team/app", Action::kDelete));
  EXPECT_TRUE(access.allows(bob, "team/app", Action::kPull));
  EXPECT_FALSE(access.allows(bob, "team/app", Action::kPush));
  EXPECT_EQ(access.refusal(with(""), bob, "team/app", Action::kPush).status(), 403);
  EXPECT_TRUE(access.allowsBase(nobody)) << "some may pull without a name";
}

TEST_F(Access, OwnTokensCarryWhatTheRulesGive) {
  const TokenSigner signer(file("key.pem"));
  AccessOptions options = users(
      {{"team/*", {"ann"}, true, true, false}, {"public/*", {"anonymous"}, true, false, false}});
  options.tokens = true;
  const AccessControl access(options, &signer);
  EXPECT_EQ(challengeOf(access.refusal(with(""), {}, "team/app", Action::kPush)),
            "Bearer realm=\"http://reg.example:5000/token\",service=\"hull-registry\","
            "scope=\"repository:team/app:pull,push\"");
  EXPECT_FALSE(access.allowsBase({}));

  const Json answer = tokenOf(
      access,
      "service=hull-registry&scope=repository:team/app:pull,push,delete&scope=registry:catalog:*",
      basic("ann", "secret"));
  EXPECT_EQ(answer["expires_in"], 300);
  EXPECT_EQ(answer["token"], answer["access_token"]);
  const Principal ann = access.authenticate(with("Bearer " + answer["token"].get<std::string>()));
  EXPECT_EQ(ann.name, "ann");
  EXPECT_TRUE(access.allows(ann, "team/app", Action::kPush));
  EXPECT_FALSE(access.allows(ann, "team/app", Action::kDelete));
  EXPECT_FALSE(access.allows(ann, "team/other", Action::kPull)) << "not asked for";
  EXPECT_TRUE(access.allowsCatalog(ann));
  EXPECT_THAT(challengeOf(access.refusal(with(""), ann, "team/app", Action::kDelete)),
              HasSubstr("error=\"insufficient_scope\""));

  const Json anonymous =
      tokenOf(access, "scope=repository:public/x:pull,push&scope=repository:team/app:pull", "");
  const Principal nobody =
      access.authenticate(with("Bearer " + anonymous["token"].get<std::string>()));
  EXPECT_TRUE(access.allows(nobody, "public/x", Action::kPull));
  EXPECT_FALSE(access.allows(nobody, "public/x", Action::kPush));
  EXPECT_FALSE(access.allows(nobody, "team/app", Action::kPull));
  EXPECT_FALSE(access.allowsCatalog(nobody));
  EXPECT_THROW(tokenOf(access, "", basic("ann", "wrong")), ApiError);

  // The key is kept: tokens of before a restart are good after it.
  const TokenSigner again(file("key.pem"));
  const AccessControl restarted(options, &again);
  EXPECT_EQ(restarted.authenticate(with("Bearer " + answer["token"].get<std::string>())).name,
            "ann");
  const TokenSigner other(file("other.pem"));
  const AccessControl stranger(options, &other);
  EXPECT_THROW(stranger.authenticate(with("Bearer " + answer["token"].get<std::string>())),
               ApiError);
}

TEST_F(Access, PasswordGrantGivesATokenToo) {
  const TokenSigner signer(file("key.pem"));
  AccessOptions options = users();
  options.tokens = true;
  const AccessControl access(options, &signer);
  const auto post = [&](const std::string& form) {
    StringSource body(form);
    Request request = with("");
    request.method = "POST";
    request.target = "/token";
    request.body = &body;
    return access.giveToken(request);
  };
  const Json answer = Json::parse(post("grant_type=password&username=ann&password=secret&scope="
                                       "repository%3Aa%3Apull+repository%3Ab%3Apush")
                                      .body);
  const Principal ann = access.authenticate(with("Bearer " + answer["token"].get<std::string>()));
  EXPECT_TRUE(access.allows(ann, "a", Action::kPull));
  EXPECT_TRUE(access.allows(ann, "b", Action::kPush));
  EXPECT_THROW(post("grant_type=password&username=ann&password=x"), ApiError);
  EXPECT_THROW(post("grant_type=refresh_token&refresh_token=x"), ApiError);
}

// The realm of a challenge is made of the Host header: no more than a host may come of it.
TEST_F(Access, HostHeadersCannotBreakOutOfTheChallenge) {
  const TokenSigner signer(file("key.pem"));
  AccessOptions options = users();
  options.tokens = true;
  const AccessControl access(options, &signer);
  for (const char* host : {"evil\",x=\"", "evil/path", "user@evil", "a b", ""}) {
    Request request;
    request.headers["host"] = host;
    EXPECT_THAT(challengeOf(access.refusal(request, {}, "a", Action::kPull)),
                HasSubstr("realm=\"http://localhost/token\""))
        << host;
  }
}

std::string base64Url(std::string text) {
  text = base64Encode(text, Base64Alphabet::kUrl);
  while (text.ends_with('=')) text.pop_back();
  return text;
}

// Tokens of another server, signed by the openssl program.
class ForeignTokens : public Access {
 protected:
  ForeignTokens() {
    checkCommand({"openssl", "genrsa", "-out", file("rsa.pem"), "2048"});
    checkCommand({"openssl", "rsa", "-in", file("rsa.pem"), "-pubout", "-out", file("rsa.pub")});
  }

  std::string sign(const std::string& header, const Json& claims) const {
    const std::string text = base64Url(header) + "." + base64Url(claims.dump());
    return text + "." +
           base64Url(checkCommand({"openssl", "dgst", "-sha256", "-sign", file("rsa.pem")}, text));
  }

  static Json claims() {
    return {{"iss", "issuer"},
            {"aud", Json::array({"other", "reg"})},
            {"sub", "carl"},
            {"nbf", 1000},
            {"exp", 2000.5},
            {"access", {{{"type", "repository"}, {"name", "a"}, {"actions", {"pull"}}}}}};
  }
};

TEST_F(ForeignTokens, AreCheckedInEveryRespect) {
  const TokenKeys keys(readFile(file("rsa.pub")));
  const std::string rs256 = R"({"alg":"RS256","typ":"JWT"})";
  const auto good = keys.verify(sign(rs256, claims()), "issuer", "reg", 1500);
  ASSERT_TRUE(good);
  EXPECT_EQ(good->subject, "carl");
  EXPECT_EQ(good->grants, (std::vector<Grant>{{"repository", "a", {"pull"}}}));
  const std::string token = sign(rs256, claims());
  EXPECT_FALSE(keys.verify(token, "somebody", "reg", 1500));
  EXPECT_FALSE(keys.verify(token, "issuer", "elsewhere", 1500));
  EXPECT_FALSE(keys.verify(token, "issuer", "reg", 900)) << "not yet";
  EXPECT_TRUE(keys.verify(token, "issuer", "reg", 945)) << "clocks differ";
  EXPECT_FALSE(keys.verify(token, "issuer", "reg", 2100)) << "no more";
  // Whatever is changed breaks the signature; whatever the header claims, the key decides.
  std::string changed = token;
  changed[changed.find('.') + 5] ^= 1;
  EXPECT_FALSE(keys.verify(changed, "issuer", "reg", 1500));
  for (const char* header : {R"({"alg":"none"})", R"({"alg":"HS256"})", R"({"alg":"ES256"})",
                             R"({"alg":7})", R"({"alg":"RS256","crit":["x"]})", "[]", "{"}) {
    EXPECT_FALSE(keys.verify(sign(header, claims()), "issuer", "reg", 1500)) << header;
  }
  for (const char* key : {"aud", "exp"}) {
    Json less = claims();
    less.erase(key);
    EXPECT_FALSE(keys.verify(sign(rs256, less), "issuer", "reg", 1500)) << key;
  }
  Json absurd = claims();
  absurd["exp"] = 1e300;
  EXPECT_FALSE(keys.verify(sign(rs256, absurd), "issuer", "reg", 1500));
  for (const char* text : {"", ".", "..", "a.b.c", "....", "é.é.é"}) {
    EXPECT_FALSE(keys.verify(text, "", "", 0)) << text;
  }
}

TEST_F(ForeignTokens, AreTakenFromTheServerThatIsTrusted) {
  AccessOptions options;
  options.tokens = true;
  options.token_realm = "https://auth.example/token";
  options.token_service = "reg";
  options.token_issuer = "issuer";
  options.token_keys = file("rsa.pub");
  const AccessControl access(options, nullptr);
  EXPECT_FALSE(access.givesTokens());
  EXPECT_THAT(challengeOf(access.refusal(with(""), {}, "a", Action::kPull)),
              HasSubstr("realm=\"https://auth.example/token\",service=\"reg\""));
  Json now = claims();
  now["exp"] = 4000000000;
  const Principal carl = access.authenticate(with("Bearer " + sign(R"({"alg":"RS256"})", now)));
  EXPECT_TRUE(access.allows(carl, "a", Action::kPull));
  EXPECT_FALSE(access.allows(carl, "b", Action::kPull));
}

TEST(TokenKeys, OtherFilesAreRefused) {
  EXPECT_THROW(TokenKeys(""), Error);
  EXPECT_THROW(TokenKeys("-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----\n"),
               Error);
}

TEST(Scope, Parsed) {
  EXPECT_EQ(parseScope("repository:team/app:pull,push"),
            (Grant{"repository", "team/app", {"pull", "push"}}));
  EXPECT_EQ(parseScope("repository(plugin):h:5000/x:pull"),
            (Grant{"repository", "h:5000/x", {"pull"}}));
  EXPECT_EQ(parseScope("registry:catalog:*"), (Grant{"registry", "catalog", {"*"}}));
  EXPECT_FALSE(parseScope("repository"));
  EXPECT_FALSE(parseScope("repository:x"));
  EXPECT_THAT(parseScope("a:b:")->actions, IsEmpty());
}

}  // namespace
}  // namespace hull::registry
