/* A client of the engine's socket for a container: engine_probe SOCKET COMMAND…
 *   ask METHOD PATH [BODY]   prints the status and what follows the header
 *   attach PATH              upgrades, sends standard input and its end, prints what comes
 *   hold N                   opens N connections, prints how many were told that they are too many
 *                            once no more are, and keeps the others */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int connect_to(const char* path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) exit(3);
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  if (connect(fd, (struct sockaddr*)&address, sizeof address) < 0) {
    perror("connect");
    exit(4);
  }
  return fd;
}

static void send_all(int fd, const char* bytes, size_t size) {
  while (size > 0) {
    ssize_t put = write(fd, bytes, size);
    if (put <= 0) {
      perror("write");
      exit(5);
    }
    bytes += put;
    size -= (size_t)put;
  }
}

/* The status is printed, the rest of the header passed over. */
static void read_header(int fd) {
  static char header[65536];
  size_t got = 0;
  while (got < sizeof header - 1 && read(fd, header + got, 1) == 1) {
    header[++got] = 0;
    if (got >= 4 && memcmp(header + got - 4, "\r\n\r\n", 4) == 0) break;
  }
  if (got < 12) {
    puts("closed");
    exit(6);
  }
  printf("%.3s\n", header + 9);
  fflush(stdout);
}

static void read_rest(int fd) {
  static char bytes[65536];
  ssize_t got;
  while ((got = read(fd, bytes, sizeof bytes)) > 0) fwrite(bytes, 1, (size_t)got, stdout);
  fflush(stdout);
}

static void ask(int fd, const char* method, const char* path, const char* body) {
  char header[4096];
  int size = snprintf(header, sizeof header,
                      "%s %s HTTP/1.1\r\nHost: engine\r\nConnection: close\r\nContent-Type: "
                      "application/json\r\nContent-Length: %zu\r\n\r\n",
                      method, path, strlen(body));
  send_all(fd, header, (size_t)size);
  send_all(fd, body, strlen(body));
  read_header(fd);
  read_rest(fd);
}

static void attach(int fd, const char* path) {
  char bytes[4096];
  int size = snprintf(bytes, sizeof bytes,
                      "POST %s HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
                      "Content-Length: 0\r\n\r\n",
                      path);
  send_all(fd, bytes, (size_t)size);
  read_header(fd);
  ssize_t got;
  while ((got = read(0, bytes, sizeof bytes)) > 0) send_all(fd, bytes, (size_t)got);
  shutdown(fd, SHUT_WR);
  read_rest(fd);
}

static void hold(const char* path, int count) {
  struct rlimit files = {(rlim_t)count + 64, (rlim_t)count + 64};
  setrlimit(RLIMIT_NOFILE, &files);
  int told = 0;
  for (int i = 0; i < count; ++i) {
    /* One that is too many is told so and closed: it hears that before the next connects. */
    struct pollfd one = {connect_to(path), POLLIN, 0};
    char status[13] = {0};
    if (poll(&one, 1, told > 0 ? 2000 : 100) != 1) continue;
    if (read(one.fd, status, 12) == 12 && strcmp(status, "HTTP/1.1 503") == 0) ++told;
    close(one.fd);
  }
  printf("told %d of %d\n", told, count);
  fflush(stdout);
  pause();
}

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  if (strcmp(argv[2], "hold") == 0) {
    hold(argv[1], atoi(argv[3]));
    return 0;
  }
  int fd = connect_to(argv[1]);
  if (strcmp(argv[2], "attach") == 0)
    attach(fd, argv[3]);
  else if (argc > 4)
    ask(fd, argv[3], argv[4], argc > 5 ? argv[5] : "");
  return 0;
}
