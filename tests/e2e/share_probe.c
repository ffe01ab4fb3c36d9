// Runs in a container, in a folder that the host shares with it, and prints one line for each thing
// that programs expect of a file system: "name ok", or "name" and what went wrong.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { kPage = 4096, kPages = 64 };

static void tell(const char* name, int good) {
  if (good) {
    printf("%s ok\n", name);
  } else {
    printf("%s: %s\n", name, strerror(errno));
  }
}

static int fresh(const char* name) {
  unlink(name);
  return open(name, O_RDWR | O_CREAT | O_EXCL, 0644);
}

static int sharedMapping(void) {
  const int fd = fresh("mapped");
  if (fd < 0 || ftruncate(fd, kPages * kPage) < 0) return 0;
  char* memory = mmap(NULL, kPages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return 0;
  for (int page = 0; page < kPages; ++page) memory[page * kPage] = (char)('a' + page % 26);
  if (msync(memory, kPages * kPage, MS_SYNC) < 0) return 0;
  char byte = 0;
  if (pread(fd, &byte, 1, 3 * kPage) != 1 || byte != 'd') return 0;
  if (pwrite(fd, "Z", 1, 5 * kPage) != 1) return 0;
  return memory[5 * kPage] == 'Z';
}

static int unlinkedFile(void) {
  const int fd = fresh("unlinked");
  if (fd < 0 || unlink("unlinked") < 0) return 0;
  struct stat info;
  char text[3] = {0};
  return write(fd, "abc", 3) == 3 && pread(fd, text, 3, 0) == 3 && memcmp(text, "abc", 3) == 0 &&
         fstat(fd, &info) == 0 && info.st_nlink == 0 && info.st_size == 3;
}

// What another process holds is refused, and given when it lets go.
static int excluded(int (*lock)(int fd), int (*try)(int fd)) {
  const int fd = fresh("locked");
  if (fd < 0 || lock(fd) < 0) return 0;
  const pid_t child = fork();
  if (child == 0) {
    const int mine = open("locked", O_RDWR);
    const int refused = try(mine) < 0 && (errno == EWOULDBLOCK || errno == EACCES);
    close(fd);
    _exit(refused ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) return 0;
  close(fd);
  const int again = open("locked", O_RDWR);
  return try(again) == 0;
}
static int takeFlock(int fd) { return flock(fd, LOCK_EX); }
static int tryFlock(int fd) { return flock(fd, LOCK_EX | LOCK_NB); }
static int takeRecord(int fd) {
  struct flock whole = {.l_type = F_WRLCK};
  return fcntl(fd, F_SETLK, &whole);
}

static int noticed(void) {
  const int watch = inotify_init1(IN_NONBLOCK);
  if (inotify_add_watch(watch, ".", IN_CREATE) < 0) return 0;
  close(fresh("noticed"));
  char events[4096];
  return read(watch, events, sizeof events) > 0;
}

static int attribute(void) {
  const int fd = fresh("attributed");
  char value[8] = {0};
  return fsetxattr(fd, "user.colour", "red", 3, 0) == 0 &&
         fgetxattr(fd, "user.colour", value, sizeof value) == 3 && memcmp(value, "red", 3) == 0;
}

static int links(void) {
  unlink("link");
  unlink("hard");
  close(fresh("target"));
  char text[16] = {0};
  struct stat one, other;
  return symlink("target", "link") == 0 && readlink("link", text, sizeof text) == 6 &&
         link("target", "hard") == 0 && stat("hard", &one) == 0 && stat("target", &other) == 0 &&
         one.st_ino == other.st_ino && one.st_nlink == 2;
}

static int owner(void) {
  const int fd = fresh("owned");
  struct stat info;
  return fchown(fd, 1234, 4321) == 0 && fchmod(fd, 02640) == 0 && fstat(fd, &info) == 0 &&
         info.st_uid == 1234 && info.st_gid == 4321 && (info.st_mode & 07777) == 02640;
}

static int replaced(void) {
  close(fresh("old"));
  const int fd = fresh("new");
  if (write(fd, "n", 1) != 1 || fsync(fd) < 0 || rename("new", "old") < 0) return 0;
  struct stat info;
  return stat("old", &info) == 0 && info.st_size == 1;
}

static int holes(void) {
  const int fd = fresh("sparse");
  struct stat info;
  return posix_fallocate(fd, 0, 1 << 20) == 0 && ftruncate(fd, 1LL << 32) == 0 &&
         fstat(fd, &info) == 0 && info.st_size == 1LL << 32;
}

int main(void) {
  tell("shared mapping", sharedMapping());
  tell("unlinked file", unlinkedFile());
  tell("flock", excluded(takeFlock, tryFlock));
  tell("record lock", excluded(takeRecord, takeRecord));
  tell("inotify", noticed());
  tell("extended attribute", attribute());
  tell("links", links());
  tell("owner and mode", owner());
  tell("replaced", replaced());
  tell("sparse", holes());
  return 0;
}
