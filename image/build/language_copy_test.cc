// The Dockerfile language, rule by rule: COPY and ADD (see language_test.cc).
#include "image/build/testing/build_fixture.h"
#include "image/build/testing/file_server.h"

namespace hull::build {
namespace {

using ::testing::HasSubstr;
using Language = testing::BuilderTest;

TEST_F(Language, Line20CopiesBelongToRootWhateverTheUser) {
  const auto image = build(
      "FROM scratch\nCOPY etc /etc\nUSER 9\nCOPY f /f\nCOPY --chown=bob f /bob\nCOPY --chown=bob:g "
      "f /bobg\nCOPY --chown=42 f /n\n",
      {{"etc/", ""},
       {"etc/passwd", "bob:x:100:200::/:/bin/sh\n"},
       {"etc/group", "g:x:300:\n"},
       {"f", "F"}});
  const auto owner = [&](const char* path) {
    return std::pair(inodeOf(image, path).uid, inodeOf(image, path).gid);
  };
  EXPECT_EQ(owner("f"), std::pair(0u, 0u));
  EXPECT_EQ(owner("bob"), std::pair(100u, 100u));
  EXPECT_EQ(owner("bobg"), std::pair(100u, 300u));
  EXPECT_EQ(owner("n"), std::pair(42u, 42u));
  EXPECT_THAT(failure("FROM scratch\nCOPY --chown=nobody f /f\n", {{"f", ""}}),
              HasSubstr("no user 'nobody'"));
}

TEST_F(Language, Line20SymbolicModesChangeThoseOfTheSource) {
  const testing::FileServer server({{"/f", {"data", "", 200}}});
  const auto image = build(
      "FROM scratch\nENV M=u+rwX,go=rX\nCOPY --chmod=$M d /d\nCOPY --chmod=+x f /f\nCOPY "
      "--chmod=g+w <<EOF /h\nEOF\nADD --chmod=go+r " +
          server.url("/f") + " /got\nCOPY --chmod=go-rwx l /l/\n",
      {{"d/", ""}, {"d/in", ""}, {"f", ""}, {"l", "-> f"}});
  EXPECT_EQ(inodeOf(image, "d").mode, 0755);
  EXPECT_EQ(inodeOf(image, "d/in").mode, 0644);
  EXPECT_EQ(inodeOf(image, "f").mode, 0755);
  EXPECT_EQ(inodeOf(image, "h").mode, 0664);
  EXPECT_EQ(inodeOf(image, "got").mode, 0644);
  EXPECT_EQ(inodeOf(image, "l/l").mode, 0600);
  EXPECT_THAT(failure("FROM scratch\nCOPY --chmod=u+q f /f\n", {{"f", ""}}),
              HasSubstr("invalid --chmod=u+q"));
}

TEST_F(Language, Line21WhatACopyMeansByItsSourceAndDestination) {
  const auto image = build("FROM scratch\nCOPY d /d\nCOPY ../../d/x /x\nCOPY d/x d/y /two/\n",
                           {{"d/", ""}, {"d/x", "X"}, {"d/y", "Y"}});
  EXPECT_TRUE(has(image, "d/x"));
  EXPECT_FALSE(has(image, "d/d"));
  EXPECT_EQ(fileOf(image, "/x"), "X");
  EXPECT_EQ(fileOf(image, "/two/y"), "Y");
  const std::vector<std::pair<std::string, std::string>> files = {
      {"d/", ""}, {"d/x", ""}, {"f", ""}};
  EXPECT_THAT(failure("FROM scratch\nCOPY d f /nowhere\n", files), HasSubstr("end with a /"));
  EXPECT_THAT(failure("FROM scratch\nCOPY f /f\nCOPY d /f\n", files), HasSubstr("over the file"));
}

TEST_F(Language, Line22AWildcardMayMatchNothingAndANameMayNot) {
  EXPECT_EQ(failure("FROM scratch\nCOPY no*thing /x/\n"), "");
  EXPECT_THAT(failure("FROM scratch\nCOPY nothing /x/\n"), HasSubstr("\"/nothing\": not found"));
}

TEST_F(Language, Line23LinkMakesRealFoldersAndItsLayerFitsAnyBase) {
  const std::vector<std::pair<std::string, std::string>> files = {
      {"base/", ""}, {"base/real/", ""}, {"base/l", "-> real"}, {"f", "F"}};
  const auto image = build("FROM scratch\nCOPY base /\nCOPY --link f /l/f\n", files);
  EXPECT_EQ(inodeOf(image, "l").type, image::EntryType::kDirectory);
  EXPECT_EQ(fileOf(image, "/l/f"), "F");
  EXPECT_FALSE(has(image, "real/f"));
  const auto other = build("FROM scratch\nCOPY f /other\nCOPY --link f /l/f\n", files);
  EXPECT_EQ(cachedSteps(), 1);  // though what is below it is another
  EXPECT_EQ(image.config.diff_ids.back(), other.config.diff_ids.back());
}

TEST_F(Language, Line23LinkLeavesTheAttributesOfFoldersBelowAlone) {
  const auto image = build("FROM scratch\nCOPY --chmod=1777 d /tmp\nCOPY --link f /tmp/f\n",
                           {{"d/", ""}, {"f", "F"}});
  EXPECT_EQ(inodeOf(image, "tmp").mode, 01777);
}

TEST_F(Language, Line23ParentsKeepFoldersFromThePivotOn) {
  const auto image = build(
      "FROM scratch\nCOPY --parents a/b/x.t /one/\nCOPY --parents a/./b/x.t /two/\nCOPY --parents "
      "./**/*.t /three/\nCOPY --parents a/./**/*.t /four/\n",
      {{"a/", ""}, {"a/b/", ""}, {"a/b/x.t", "X"}, {"a/y.t", "Y"}, {"z.t", "Z"}, {"z.u", "U"}});
  EXPECT_EQ(fileOf(image, "/one/a/b/x.t"), "X");
  EXPECT_EQ(fileOf(image, "/two/b/x.t"), "X");
  EXPECT_EQ(
      fileOf(image, "/three/a/b/x.t") + fileOf(image, "/three/a/y.t") + fileOf(image, "/three/z.t"),
      "XYZ");
  EXPECT_FALSE(has(image, "three/z.u"));
  EXPECT_EQ(fileOf(image, "/four/b/x.t") + fileOf(image, "/four/y.t"), "XY");
  EXPECT_EQ(inodeOf(image, "one/a").mode, 0700);  // as in the source
}

TEST_F(Language, Line23ExcludeLeavesOut) {
  const auto image = build(
      "FROM scratch\nCOPY --exclude=*.log --exclude=**/tmp --exclude=!keep.log . /d/\nCOPY "
      "--exclude=b* *.txt /t/\n",
      {{"a.log", ""},
       {"keep.log", ""},
       {"s/", ""},
       {"s/tmp/", ""},
       {"s/tmp/x", ""},
       {"s/y", ""},
       {"a.txt", ""},
       {"b.txt", ""}});
  EXPECT_FALSE(has(image, "d/a.log"));
  EXPECT_TRUE(has(image, "d/keep.log"));
  EXPECT_FALSE(has(image, "d/s/tmp"));
  EXPECT_TRUE(has(image, "d/s/y"));
  EXPECT_TRUE(has(image, "t/a.txt"));
  EXPECT_FALSE(has(image, "t/b.txt"));
}

TEST_F(Language, Line24LocalArchivesUnpackByContentAndDownloadsDoNot) {
  const std::string tar = contextTar({{"in", "I"}});
  const testing::FileServer server(
      {{"/files/a.tar", {tar, "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 200}},
       {"/", {"index", "", 200}}});
  const auto image =
      build("FROM scratch\nADD plain /d/\nADD fake.tar.gz /d/\nADD " + server.url("/files/a.tar") +
                " /u/\nADD --unpack " + server.url("/files/a.tar") + " /up/\nADD " +
                server.url("/files/a.tar") + " /named\n",
            {{"plain", tar}, {"fake.tar.gz", "\x1f\x8b no"}});
  EXPECT_EQ(fileOf(image, "/d/in"), "I");
  EXPECT_TRUE(has(image, "d/fake.tar.gz"));
  EXPECT_EQ(inodeOf(image, "u/a.tar").mode, 0600);
  EXPECT_EQ(inodeOf(image, "u/a.tar").size, tar.size());
  EXPECT_EQ(inodeOf(image, "u/a.tar").mtime_seconds, 784111777);
  EXPECT_EQ(fileOf(image, "/up/in"), "I");
  EXPECT_EQ(inodeOf(image, "named").size, tar.size());
  EXPECT_THAT(failure("FROM scratch\nADD " + server.url("/none") + " /x\n"), HasSubstr("404"));
  EXPECT_THAT(failure("FROM scratch\nADD " + server.url("/") + " /d/\n"),
              HasSubstr("names no file"));
  EXPECT_EQ(failure("FROM scratch\nADD " + server.url("/") + " /index\n"), "");
}

TEST_F(Language, Line25DownloadsAreHeldAgainstTheirChecksum) {
  const testing::FileServer server({{"/f", {"data", "", 200}}});
  const std::string right =
      "sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7";
  const std::string file =
      "FROM scratch\nADD --checksum=" + right + " " + server.url("/f") + " /f\n";
  EXPECT_EQ(fileOf(build(file), "/f"), "data");
  EXPECT_EQ(server.requests(), 1);
  build(file);
  EXPECT_EQ(server.requests(), 1);  // its name was enough
  std::string wrong = right;
  wrong.back() = '0';
  EXPECT_THAT(failure("FROM scratch\nADD --checksum=" + wrong + " " + server.url("/f") + " /f\n"),
              HasSubstr("digest mismatch"));
  EXPECT_THAT(failure("FROM scratch\nADD --checksum=" + right + " local /f\n", {{"local", ""}}),
              HasSubstr("for sources from HTTP(S) and git"));
}

TEST_F(Language, IgnoreRulesOfTheDockerfileBeatThoseOfTheContext) {
  const std::vector<std::pair<std::string, std::string>> files = {
      {".dockerignore", "*\n"}, {"Dockerfile.dockerignore", ""}, {"f", "F"}};
  EXPECT_EQ(fileOf(build("FROM scratch\nCOPY f /f\n", files), "/f"), "F");
}

}  // namespace
}  // namespace hull::build
