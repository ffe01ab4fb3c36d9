/* A client of an ssh agent for a build step: each argument is the type of a request without
 * contents, "large" or "many". Prints the type of each answer, or "closed". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int connect_agent(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const char* path = getenv("SSH_AUTH_SOCK");
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (path == NULL || fd < 0) exit(3);
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  if (connect(fd, (struct sockaddr*)&address, sizeof address) < 0) {
    perror("connect to the agent");
    exit(4);
  }
  return fd;
}

static int read_all(int fd, unsigned char* to, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t got = read(fd, to + done, size - done);
    if (got <= 0) return 0;
    done += (size_t)got;
  }
  return 1;
}

static void ask(int fd, unsigned size, int type) {
  static unsigned char answer[256 * 1024];
  unsigned char request[5] = {size >> 24, size >> 16 & 255, size >> 8 & 255, size & 255,
                              (unsigned char)type};
  if (write(fd, request, sizeof request) != sizeof request || !read_all(fd, answer, 4)) {
    puts("closed");
    return;
  }
  unsigned length = (unsigned)answer[0] << 24 | answer[1] << 16 | answer[2] << 8 | answer[3];
  if (length == 0 || length > sizeof answer || !read_all(fd, answer, length)) exit(5);
  printf("answer %d of %u\n", answer[0], length);
}

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "many") == 0) {
      int many[200];
      for (int n = 0; n < 200; ++n) many[n] = connect_agent();
      for (int n = 0; n < 200; ++n) close(many[n]);
      puts("many");
      sleep(1); /* their ends are noticed */
      continue;
    }
    int fd = connect_agent();
    if (strcmp(argv[i], "large") == 0)
      ask(fd, 256 * 1024 + 1, 11);
    else
      ask(fd, 1, atoi(argv[i]));
    close(fd);
  }
  return 0;
}
