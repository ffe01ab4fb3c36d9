// A guest of a few KiB that boots instead of Linux in the real hull-vmm and attacks it: registers,
// rings, ports, and the CPU itself. Enters like a kernel (64-bit, docs of linux_boot.h), runs what
// `task=` on the command line says, and ends through the exit port: power-off means that all went
// as it must, panic that it did not; the line is on the serial port. Run by hostile_e2e.cc.
//
// No C library, no interrupts, one CPU, no SSE. Everything is identity-mapped up to 4 GiB.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- the machine, as vmm/memory/layout.h and vmm/config/vm_config.h say
// --------------------------

#define COMMAND_LINE ((const char*)0x20000)
#define VIRTIO_BASE 0xd0100000ul
#define VIRTIO_STRIDE 0x1000ul
#define VIRTIO_SLOTS 20
#define POWER_BASE 0xd0000000ul
#define PVPANIC_BASE 0xd0001000ul
#define EXIT_PORT 0x500
#define SERIAL_PORT 0x3f8
enum { EXIT_READY = 1, EXIT_POWER_OFF = 2, EXIT_PANIC = 4 };

static inline void out8(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
static inline uint8_t in8(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
static void out_string(uint16_t port, const void* bytes, size_t count) {
  __asm__ volatile("rep outsb" : "+S"(bytes), "+c"(count) : "d"(port) : "memory");
}

#define ACCESS(bits)                                                   \
  static inline uint##bits##_t read##bits(uintptr_t at) {              \
    return *(volatile uint##bits##_t*)at;                              \
  }                                                                    \
  static inline void write##bits(uintptr_t at, uint##bits##_t value) { \
    *(volatile uint##bits##_t*)at = value;                             \
  }
ACCESS(8)
ACCESS(16)
ACCESS(32)
ACCESS(64)

static void say(const char* text) {
  for (; *text != '\0'; ++text) out8(SERIAL_PORT, (uint8_t)*text);
}

static void end(uint8_t how) {
  out8(EXIT_PORT, how);
  for (;;) __asm__ volatile("hlt");
}

static void fail(int line, const char* what) {
  char digits[12];
  size_t at = sizeof digits - 1;
  digits[at] = '\0';
  do {
    digits[--at] = (char)('0' + line % 10);
    line /= 10;
  } while (line != 0);
  say("FAILED line ");
  say(digits + at);
  say(": ");
  say(what);
  say("\n");
  end(EXIT_PANIC);
}
#define CHECK(condition)                          \
  do {                                            \
    if (!(condition)) fail(__LINE__, #condition); \
  } while (0)

// The compiler may make calls to these.
void* memset(void* to, int value, size_t count) {
  void* at = to;
  __asm__ volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(value) : "memory");
  return to;
}
void* memcpy(void* to, const void* from, size_t count) {
  void* at = to;
  __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(count) : : "memory");
  return to;
}

static bool task_is(const char* name) {
  static const char kKey[] = "task=";
  for (const char* at = COMMAND_LINE; *at != '\0'; ++at) {
    size_t i = 0;
    while (kKey[i] != '\0' && at[i] == kKey[i]) ++i;
    if (kKey[i] != '\0') continue;
    const char* value = at + i;
    size_t n = 0;
    while (name[n] != '\0' && value[n] == name[n]) ++n;
    return name[n] == '\0' && (value[n] == '\0' || value[n] == ' ');
  }
  return false;
}

// ---- a virtio driver, as far as attacks need one
// -------------------------------------------------

enum {
  REG_MAGIC = 0x0,
  REG_DEVICE = 0x8,
  REG_FEATURES_SELECT = 0x24,
  REG_FEATURES = 0x20,
  REG_QUEUE_SELECT = 0x30,
  REG_QUEUE_MAX = 0x34,
  REG_QUEUE_SIZE = 0x38,
  REG_QUEUE_READY = 0x44,
  REG_NOTIFY = 0x50,
  REG_STATUS = 0x70,
  REG_DESC = 0x80,
  REG_AVAIL = 0x90,
  REG_USED = 0xa0,
};
enum {
  ACKNOWLEDGE = 1,
  DRIVER = 2,
  DRIVER_OK = 4,
  FEATURES_OK = 8,
  NEEDS_RESET = 64,
  RUNNING = 15
};
enum { DESC_NEXT = 1, DESC_WRITE = 2 };
enum { DEVICE_BLOCK = 2, DEVICE_CONSOLE = 3, DEVICE_RNG = 4 };
enum { RING = 8, MAX_QUEUES = 3 };

struct descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};
struct rings {
  struct descriptor table[RING] __attribute__((aligned(16)));
  volatile uint16_t avail[3 + RING] __attribute__((aligned(2)));  // flags, index, heads, event
  volatile uint16_t used[2 + RING * 4 + 1] __attribute__((aligned(4)));
};
static struct rings queues[MAX_QUEUES];
static uint8_t data[64 << 10] __attribute__((aligned(4096)));
static uint8_t status_byte;
static struct {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
} block_header;

static uintptr_t device_of(uint32_t type) {
  for (unsigned slot = 0; slot < VIRTIO_SLOTS; ++slot) {
    const uintptr_t base = VIRTIO_BASE + slot * VIRTIO_STRIDE;
    if (read32(base + REG_MAGIC) == 0x74726976 && read32(base + REG_DEVICE) == type) return base;
  }
  fail(__LINE__, "no such device");
  return 0;
}

static void negotiate(uintptr_t base) {
  write32(base + REG_STATUS, 0);
  write32(base + REG_STATUS, ACKNOWLEDGE);
  write32(base + REG_STATUS, ACKNOWLEDGE | DRIVER);
  write32(base + REG_FEATURES_SELECT, 0);
  write32(base + REG_FEATURES, 0);
  write32(base + REG_FEATURES_SELECT, 1);
  write32(base + REG_FEATURES, 1);  // VERSION_1
  write32(base + REG_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

static void set_queue(uintptr_t base, uint32_t index, uint32_t size, uint64_t table, uint64_t avail,
                      uint64_t used) {
  write32(base + REG_QUEUE_SELECT, index);
  write32(base + REG_QUEUE_SIZE, size);
  write32(base + REG_DESC, (uint32_t)table);
  write32(base + REG_DESC + 4, (uint32_t)(table >> 32));
  write32(base + REG_AVAIL, (uint32_t)avail);
  write32(base + REG_AVAIL + 4, (uint32_t)(avail >> 32));
  write32(base + REG_USED, (uint32_t)used);
  write32(base + REG_USED + 4, (uint32_t)(used >> 32));
  write32(base + REG_QUEUE_READY, 1);
}

static void start(uintptr_t base) {
  memset(queues, 0, sizeof queues);
  negotiate(base);
  for (uint32_t i = 0; i < MAX_QUEUES; ++i) {
    write32(base + REG_QUEUE_SELECT, i);
    if (read32(base + REG_QUEUE_MAX) == 0) break;
    set_queue(base, i, RING, (uintptr_t)queues[i].table, (uintptr_t)queues[i].avail,
              (uintptr_t)queues[i].used);
  }
  write32(base + REG_STATUS, RUNNING);
}

static void make_available(uintptr_t base, uint32_t queue, uint16_t head) {
  struct rings* q = &queues[queue];
  q->avail[2 + q->avail[1] % RING] = head;
  __sync_synchronize();
  q->avail[1]++;
  __sync_synchronize();
  write32(base + REG_NOTIFY, queue);
}

// Until the device has used all that was made available; bounded, in exits to the VMM.
static bool wait_used(uintptr_t base, uint32_t queue) {
  for (int i = 0; i < 200000; ++i) {
    if (queues[queue].used[1] == queues[queue].avail[1]) return true;
    (void)read32(base + REG_STATUS);  // an exit: the device thread gets its turn on one CPU, too
  }
  return false;
}

// The device does its ordinary work for a driver that does everything right.
static void expect_random(uintptr_t base) {
  memset(data, 0, 64);
  queues[0].table[0] = (struct descriptor){(uintptr_t)data, 64, DESC_WRITE, 0};
  make_available(base, 0, 0);
  CHECK(wait_used(base, 0));
  unsigned sum = 0;
  for (int i = 0; i < 64; ++i) sum |= ((volatile uint8_t*)data)[i];
  CHECK(sum != 0);
}

static void read_disk(uintptr_t base, uint32_t bytes) {
  block_header.type = 0;
  block_header.sector = 0;
  queues[0].table[0] = (struct descriptor){(uintptr_t)&block_header, 16, DESC_NEXT, 1};
  queues[0].table[1] = (struct descriptor){(uintptr_t)data, bytes, DESC_WRITE | DESC_NEXT, 2};
  queues[0].table[2] = (struct descriptor){(uintptr_t)&status_byte, 1, DESC_WRITE, 0};
  make_available(base, 0, 0);
}

// ---- tasks
// ---------------------------------------------------------------------------------------

static void access_all_widths(uintptr_t start_address, uintptr_t bytes) {
  for (uintptr_t at = start_address; at < start_address + bytes; ++at) {
    (void)read8(at);
    (void)read16(at);
    (void)read32(at);
    (void)read64(at);
    write8(at, 0xf8);
    write16(at, 0xf8f8);
    if (at % 4 != 0) write32(at, 0xf8f8f8f8);
    write64(at, 0xf8f8f8f8f8f8f8f8);
  }
}

static void registers_of_all_widths(void) {
  const uintptr_t rng = device_of(DEVICE_RNG);
  access_all_widths(rng, 0x108);         // into the configuration space
  access_all_widths(rng + 0x1f0, 0x20);  // across the end of the window
  access_all_widths(POWER_BASE, 0x10);
  access_all_widths(PVPANIC_BASE - 8, 0x10);
  start(rng);
  expect_random(rng);
}

static void storms(void) {
  for (int i = 0; i < 2000; ++i) {
    (void)read32(0xd8000000 + (uintptr_t)i * 4);
    write64(0xd8000000 + (uintptr_t)i * 8, ~0ul);
    out8((uint16_t)(0x600 + i), 0xff);
    CHECK(in8((uint16_t)(0x600 + i)) == 0xff);
    out8(EXIT_PORT, (uint8_t)(i % 3 == 0 ? EXIT_READY : 5 + i % 250));
  }
  const uintptr_t rng = device_of(DEVICE_RNG);
  for (int i = 0; i < 2000; ++i) write32(rng + REG_NOTIFY, (uint32_t)i);
  start(rng);
  for (int i = 0; i < 2000; ++i) write32(rng + REG_NOTIFY, (uint32_t)i);
  expect_random(rng);
}

static void status_out_of_order(void) {
  const uintptr_t rng = device_of(DEVICE_RNG);
  for (uint32_t value = 1; value < 256; ++value) {
    write32(rng + REG_STATUS, 0);
    write32(rng + REG_STATUS, value);
    CHECK((read32(rng + REG_STATUS) & (FEATURES_OK | DRIVER_OK)) == 0);
  }
  start(rng);
  CHECK(read32(rng + REG_STATUS) == RUNNING);
  for (uint32_t value = 1; value < RUNNING; ++value) {
    write32(rng + REG_STATUS, value);
    CHECK(read32(rng + REG_STATUS) == RUNNING);
  }
  expect_random(rng);
}

static void queues_rewritten(void) {
  const uintptr_t rng = device_of(DEVICE_RNG);
  start(rng);
  write32(rng + REG_QUEUE_READY, 0);
  set_queue(rng, 0, 2, ~0ul, VIRTIO_BASE, 0);
  expect_random(rng);
  // Rings in MMIO, past the memory, misaligned: the device does not start.
  static const uint64_t kBad[] = {VIRTIO_BASE, 1ul << 40, ~15ul, 0xbffffff8};
  for (size_t i = 0; i < sizeof kBad / sizeof kBad[0]; ++i) {
    negotiate(rng);
    set_queue(rng, 0, RING, kBad[i], (uintptr_t)queues[0].avail, (uintptr_t)queues[0].used);
    write32(rng + REG_STATUS, RUNNING);
    CHECK((read32(rng + REG_STATUS) & NEEDS_RESET) != 0);
  }
  start(rng);
  expect_random(rng);
}

static void expect_needs_reset(uintptr_t base) {
  for (int i = 0; i < 100000; ++i) {
    if ((read32(base + REG_STATUS) & NEEDS_RESET) != 0) return;
  }
  fail(__LINE__, "the device does not ask for its reset");
}

static void broken_rings(void) {
  const uintptr_t rng = device_of(DEVICE_RNG);
  const struct descriptor kBad[] = {
      {(uintptr_t)data, 64, DESC_WRITE | DESC_NEXT, 0},   // a loop
      {(uintptr_t)data, 64, DESC_WRITE | DESC_NEXT, 99},  // next outside of the table
      {0xbffffff8, 64, DESC_WRITE, 0},                    // into the device hole
      {VIRTIO_BASE, 64, DESC_WRITE, 0},
      {~0ul, 64, DESC_WRITE, 0},  // wraps
      {(uintptr_t)data, ~0u, DESC_WRITE, 0},
  };
  for (size_t i = 0; i < sizeof kBad / sizeof kBad[0]; ++i) {
    start(rng);
    queues[0].table[0] = kBad[i];
    make_available(rng, 0, 0);
    expect_needs_reset(rng);
  }
  start(rng);
  queues[0].avail[1] = 0x8000;
  write32(rng + REG_NOTIFY, 0);
  expect_needs_reset(rng);
  start(rng);
  expect_random(rng);
}

// After a reset the buffers are ours again: the device never writes them late.
static void reset_during_requests(void) {
  const uintptr_t disk = device_of(DEVICE_BLOCK);
  for (int round = 0; round < 12; ++round) {
    start(disk);
    read_disk(disk, sizeof data);
    for (int spin = 0; spin < round * 100; ++spin) __asm__ volatile("pause");
    write32(disk + REG_STATUS, 0);
    memset(data, 0x5a, sizeof data);
    status_byte = 0x5a;
    for (int i = 0; i < 50; ++i) CHECK(read32(disk + REG_STATUS) == 0);
    CHECK(*(volatile uint8_t*)&status_byte == 0x5a);
    for (size_t i = 0; i < sizeof data; i += 4096) CHECK(((volatile uint8_t*)data)[i] == 0x5a);
  }
  start(disk);
  memset(data, 0, 512);
  status_byte = 0xee;
  read_disk(disk, 512);
  CHECK(wait_used(disk, 0));
  CHECK(*(volatile uint8_t*)&status_byte == 0);
  CHECK(((volatile uint8_t*)data)[511] == 'd');
}

static void console_flood(void) {
  const uintptr_t console = device_of(DEVICE_CONSOLE);
  memset(data, 'f', 64 << 10);
  start(console);
  queues[1].table[0] = (struct descriptor){(uintptr_t)data, 64 << 10, 0, 0};
  for (int i = 0; i < 64; ++i) {
    make_available(console, 1, 0);
    CHECK(wait_used(console, 1));
  }
}

static void serial_flood(void) {
  memset(data, 'f', 16 << 10);
  out_string(SERIAL_PORT, data, 16 << 10);
}

static void triple_fault(void) {
  const struct __attribute__((packed)) {
    uint16_t limit;
    uint64_t base;
  } none = {0, 0};
  __asm__ volatile("lidt %0; ud2" : : "m"(none));
}

static void run_in_registers(void) {
  void (*entry)(void) = (void (*)(void))VIRTIO_BASE;
  entry();
}

static void mark(void) {
  // Counts, in memory and to the serial port, until the host has seen enough (pause, save,
  // restore).
  for (uint8_t letter = 'a';; letter = letter == 'z' ? 'a' : (uint8_t)(letter + 1)) {
    out8(SERIAL_PORT, letter);
    for (int i = 0; i < 100000; ++i) __asm__ volatile("pause");
  }
}

static void run(void) {
  if (task_is("wait")) {
    out8(EXIT_PORT, EXIT_READY);
    for (;;) __asm__ volatile("hlt");
  }
  if (task_is("spin")) {
    out8(EXIT_PORT, EXIT_READY);
    for (;;) {
    }
  }
  if (task_is("mark"))
    mark();
  else if (task_is("widths"))
    registers_of_all_widths();
  else if (task_is("storms"))
    storms();
  else if (task_is("status"))
    status_out_of_order();
  else if (task_is("queues"))
    queues_rewritten();
  else if (task_is("rings"))
    broken_rings();
  else if (task_is("reset"))
    reset_during_requests();
  else if (task_is("console-flood"))
    console_flood();
  else if (task_is("serial-flood"))
    serial_flood();
  else if (task_is("triple-fault"))
    triple_fault();
  else if (task_is("run-registers"))
    run_in_registers();
  else
    fail(__LINE__, "no such task");
  end(EXIT_POWER_OFF);
}

// ---- entry
// ---------------------------------------------------------------------------------------

static uint64_t level4[512] __attribute__((aligned(4096)));
static uint64_t level3[512] __attribute__((aligned(4096)));
static uint64_t level2[4][512] __attribute__((aligned(4096)));

// The tables at entry reach 1 GiB; the devices are at 3.25.
static void map_everything(void) {
  const uint64_t kPresentWritable = 3, kLarge = 0x80, kUncached = 0x10;
  for (uint64_t i = 0; i < 4 * 512; ++i) {
    const uint64_t address = i << 21;
    level2[i / 512][i % 512] =
        address | kPresentWritable | kLarge | (address >= 0xc0000000 ? kUncached : 0);
  }
  for (int i = 0; i < 4; ++i) level3[i] = (uintptr_t)level2[i] | kPresentWritable;
  level4[0] = (uintptr_t)level3 | kPresentWritable;
  __asm__ volatile("mov %0, %%cr3" : : "r"((uintptr_t)level4) : "memory");
}

static uint8_t stack[16 << 10] __attribute__((aligned(16), used));

__attribute__((used)) static void enter(void) {
  map_everything();
  run();
}

__attribute__((naked, noreturn, used)) void _start(void) {
  __asm__ volatile("cli; cld; lea stack+16384(%rip), %rsp; xor %ebp, %ebp; call enter; hlt");
}
