#include "base/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>

#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/stream.h"
#include "base/subprocess.h"

namespace hull {
namespace {

using ::testing::HasSubstr;

// An authority, and what it has signed; made once by openssl(1).
class TlsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    signal(SIGPIPE, SIG_IGN);  // as every program does: a peer may be gone before the farewell
    folder_ = std::make_unique<TemporaryDirectory>("hull-tls");
    makeAuthority("ca");
    makeAuthority("other-ca");
    makeCertificate("ca", "server", "subjectAltName=DNS:engine.test,IP:127.0.0.1");
    makeCertificate("ca", "client", "extendedKeyUsage=clientAuth");
    makeCertificate("other-ca", "stranger", "extendedKeyUsage=clientAuth");
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string path(const std::string& name) { return folder_->path() + "/" + name; }
  static TlsFiles files(const std::string& authority, const std::string& name) {
    return {path(authority + ".pem"), path(name + ".pem"), path(name + ".key")};
  }
  static void makeAuthority(const std::string& name) {
    checkCommand({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                  "-nodes", "-days", "2", "-subj", "/CN=" + name, "-keyout", path(name + ".key"),
                  "-out", path(name + ".pem")});
  }
  static void makeCertificate(const std::string& authority, const std::string& name,
                              const std::string& extension) {
    writeFileAtomic(path(name + ".ext"), extension + "\n");
    checkCommand({"openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                  "-nodes", "-subj", "/CN=" + name, "-keyout", path(name + ".key"), "-out",
                  path(name + ".csr")});
    checkCommand({"openssl", "x509", "-req", "-days", "2", "-in", path(name + ".csr"), "-CA",
                  path(authority + ".pem"), "-CAkey", path(authority + ".key"), "-CAcreateserial",
                  "-extfile", path(name + ".ext"), "-out", path(name + ".pem")});
  }

  struct Ends {
    Fd client, server;
    std::string client_error, server_error;
  };
  static Ends connect(const TlsFiles& client_files, const std::string& peer_name) {
    const TlsIdentity server(TlsIdentity::Role::kServer, files("ca", "server"));
    const TlsIdentity client(TlsIdentity::Role::kClient, client_files);
    FdPair wire = makeSocketPair(SOCK_STREAM);
    Ends ends;
    std::thread accepting([&] {
      try {
        ends.server = server.tunnel(std::move(wire.first));
      } catch (const Error& error) {
        ends.server_error = error.what();
      }
    });
    try {
      ends.client = client.tunnel(std::move(wire.second), peer_name);
    } catch (const Error& error) {
      ends.client_error = error.what();
    }
    accepting.join();
    return ends;
  }

  static std::unique_ptr<TemporaryDirectory> folder_;
};
std::unique_ptr<TemporaryDirectory> TlsTest::folder_;

TEST_F(TlsTest, CarriesBothDirectionsAndTheirEnds) {
  for (const char* name : {"engine.test", "127.0.0.1"}) {
    Ends ends = connect(files("ca", "client"), name);
    ASSERT_EQ(ends.client_error + ends.server_error, "");
    const std::string much(3'000'000, 'x');
    std::thread echo([&] {
      FdSource source(ends.server.get());
      const std::string got = readAll(source, 8 << 20, "input");
      writeFull(ends.server.get(), got + "!");
      ends.server.reset();
    });
    std::thread send([&] {
      writeFull(ends.client.get(), much);
      shutdown(ends.client.get(), SHUT_WR);
    });
    FdSource source(ends.client.get());
    EXPECT_EQ(readAll(source, 8 << 20, "answer"), much + "!");
    send.join();
    echo.join();
  }
}

TEST_F(TlsTest, AClientOfAnotherAuthorityIsRefused) {
  const Ends ends =
      connect({path("ca.pem"), path("stranger.pem"), path("stranger.key")}, "engine.test");
  EXPECT_THAT(ends.server_error, HasSubstr("TLS handshake"));
}

TEST_F(TlsTest, AServerOfAnotherAuthorityOrNameIsRefused) {
  EXPECT_THAT(connect(files("other-ca", "stranger"), "engine.test").client_error,
              HasSubstr("TLS handshake"));
  EXPECT_THAT(connect(files("ca", "client"), "elsewhere.test").client_error, HasSubstr("mismatch"));
}

TEST_F(TlsTest, UnusableFilesAreNamed) {
  try {
    TlsIdentity(TlsIdentity::Role::kServer, tlsFilesIn("/nowhere"));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("/nowhere/ca.pem"));
  }
}

}  // namespace
}  // namespace hull
