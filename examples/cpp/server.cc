// Answers every connection on port 8080 with one HTTP response.
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

int main() {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGTERM, [](int) { _exit(0); });  // PID 1 has no default for it
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(8080);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 || listen(listener, 64) < 0) return 1;
  const std::string body = "C++ on scratch\n";
  const std::string answer =
      "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body;
  for (;;) {
    const int client = accept(listener, nullptr, nullptr);
    if (client < 0) continue;
    char request[4096];
    if (read(client, request, sizeof request) > 0 && write(client, answer.data(), answer.size()) < 0) return 1;
    shutdown(client, SHUT_WR);
    while (read(client, request, sizeof request) > 0) {
    }
    close(client);
  }
}
