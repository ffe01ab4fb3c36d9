/* PID 1 of the VMM benchmarks' guests. What to do comes on the kernel's command line:
 *   bench=fio:<rw>:<block size>:<seconds>   fio on /dev/vda, its JSON on the console
 *   bench=net:<address>:<seconds>           iperf3 server on eth0 for two clients, one after the other
 *   bench=idle                              nothing, for ever
 * Ends through hull-vmm's exit port, which QEMU offers as isa-debug-exit at the same address. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(void) {
  fflush(NULL);
  sync();
  usleep(100000); /* the console drains */
  if (ioperm(0x500, 1, 1) == 0) outb(2, 0x500);
  for (;;) pause();
}

static void run(char* const argv[]) {
  const pid_t child = fork();
  if (child == 0) {
    execv(argv[0], argv);
    perror(argv[0]);
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) printf("BENCH FAILED %s: %d\n", argv[0], status);
}

static void set_up_network(const char* address) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct ifreq request;
  for (int i = 0; i < 2; ++i) {
    memset(&request, 0, sizeof request);
    strcpy(request.ifr_name, i == 0 ? "eth0" : "lo");
    struct sockaddr_in* in = (struct sockaddr_in*)&request.ifr_addr;
    in->sin_family = AF_INET;
    inet_pton(AF_INET, i == 0 ? address : "127.0.0.1", &in->sin_addr);
    if (ioctl(fd, SIOCSIFADDR, &request) < 0) perror("address");
    inet_pton(AF_INET, "255.255.255.0", &in->sin_addr);
    ioctl(fd, SIOCSIFNETMASK, &request);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0) perror("up");
  }
}

int main(void) {
  mount("devtmpfs", "/dev", "devtmpfs", 0, "");
  mount("proc", "/proc", "proc", 0, "");
  mount("sysfs", "/sys", "sysfs", 0, "");
  mount("tmpfs", "/tmp", "tmpfs", 0, "");
  mount("tmpfs", "/dev/shm", "tmpfs", 0, "");
  const int console = open("/dev/hvc0", O_RDWR);
  if (console >= 0) {
    dup2(console, 0);
    dup2(console, 1);
    dup2(console, 2);
  }
  static char line[4096];
  const int file = open("/proc/cmdline", O_RDONLY);
  if (file >= 0 && read(file, line, sizeof line - 1) < 0) perror("cmdline");
  char* task = strstr(line, "bench=");
  if (task == NULL) end();
  task += strlen("bench=");
  task[strcspn(task, " \n")] = 0;
  char* kind = strtok(task, ":");
  if (strcmp(kind, "fio") == 0) {
    char rw[64], size[64], seconds[64];
    snprintf(rw, sizeof rw, "--rw=%s", strtok(NULL, ":"));
    snprintf(size, sizeof size, "--bs=%s", strtok(NULL, ":"));
    snprintf(seconds, sizeof seconds, "--runtime=%s", strtok(NULL, ":"));
    char* const argv[] = {"/usr/bin/fio", "--name=bench", "--filename=/dev/vda", "--direct=1", "--ioengine=libaio", "--iodepth=16",
                          "--time_based", rw, size, seconds, "--output-format=json", NULL};
    run(argv);
  } else if (strcmp(kind, "net") == 0) {
    set_up_network(strtok(NULL, ":"));
    printf("BENCH READY\n");
    char* const argv[] = {"/usr/bin/iperf3", "-s", "-1", NULL};
    run(argv);
    run(argv);
  } else {
    printf("BENCH READY\n");
    fflush(NULL);
    for (;;) pause();
  }
  printf("BENCH END\n");
  end();
}
