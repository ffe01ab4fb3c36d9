#include "guest-init/container/device_rules.h"

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "base/error.h"
#include "base/fd.h"

namespace hull::guest {

namespace {

// The filter's context: linux/bpf.h, struct bpf_cgroup_dev_ctx.
constexpr uint32_t kAllAccess = BPF_DEVCG_ACC_MKNOD | BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE;
constexpr uint8_t kTypeRegister = BPF_REG_2, kAccessRegister = BPF_REG_3;
constexpr uint8_t kMajorRegister = BPF_REG_4, kMinorRegister = BPF_REG_5;
constexpr uint8_t kScratchRegister = BPF_REG_0;

uint64_t encode(uint8_t code, uint8_t to, uint8_t from, int16_t offset, int32_t value) {
  bpf_insn instruction{};
  instruction.code = code;
  instruction.dst_reg = to & 0xf;
  instruction.src_reg = from & 0xf;
  instruction.off = offset;
  instruction.imm = value;
  uint64_t word = 0;
  std::memcpy(&word, &instruction, sizeof word);
  return word;
}

uint64_t loadField(uint8_t to, size_t offset) {
  return encode(BPF_LDX | BPF_MEM | BPF_W, to, BPF_REG_1, static_cast<int16_t>(offset), 0);
}

// The tests of one rule; each jumps behind the rule when it does not fit.
std::vector<uint64_t> ruleProgram(const DeviceRule& rule) {
  struct Test {
    uint8_t reg;
    int32_t value;
  };
  std::vector<Test> tests;
  if (rule.type == 'c') tests.push_back({kTypeRegister, BPF_DEVCG_DEV_CHAR});
  if (rule.type == 'b') tests.push_back({kTypeRegister, BPF_DEVCG_DEV_BLOCK});
  if (rule.major_number >= 0) tests.push_back({kMajorRegister, rule.major_number});
  if (rule.minor_number >= 0) tests.push_back({kMinorRegister, rule.minor_number});
  const bool any_access = rule.access == kAllAccess;
  const size_t size = tests.size() + (any_access ? 0 : 3) + 2;
  std::vector<uint64_t> code;
  const auto behind = [&] { return static_cast<int16_t>(size - code.size() - 1); };
  for (const Test& test : tests) {
    code.push_back(encode(BPF_JMP | BPF_JNE | BPF_K, test.reg, 0, behind(), test.value));
  }
  if (!any_access) {  // what is asked for beyond the rule's access
    code.push_back(encode(BPF_ALU64 | BPF_MOV | BPF_X, kScratchRegister, kAccessRegister, 0, 0));
    code.push_back(encode(BPF_ALU64 | BPF_AND | BPF_K, kScratchRegister, 0, 0,
                          static_cast<int32_t>(~rule.access & kAllAccess)));
    code.push_back(encode(BPF_JMP | BPF_JNE | BPF_K, kScratchRegister, 0, behind(), 0));
  }
  code.push_back(encode(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 1));
  code.push_back(encode(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
  return code;
}

}  // namespace

std::vector<uint64_t> deviceProgram(const std::vector<DeviceRule>& rules) {
  // access_type: the access in its upper half, the kind of device in its lower.
  std::vector<uint64_t> code{
      loadField(kTypeRegister, offsetof(bpf_cgroup_dev_ctx, access_type)),
      encode(BPF_ALU64 | BPF_MOV | BPF_X, kAccessRegister, kTypeRegister, 0, 0),
      encode(BPF_ALU64 | BPF_RSH | BPF_K, kAccessRegister, 0, 0, 16),
      encode(BPF_ALU64 | BPF_AND | BPF_K, kTypeRegister, 0, 0, 0xffff),
      loadField(kMajorRegister, offsetof(bpf_cgroup_dev_ctx, major)),
      loadField(kMinorRegister, offsetof(bpf_cgroup_dev_ctx, minor))};
  for (const DeviceRule& rule : rules) {
    const auto part = ruleProgram(rule);
    code.insert(code.end(), part.begin(), part.end());
  }
  code.push_back(encode(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0));
  code.push_back(encode(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
  return code;
}

void restrictDevices(int cgroup_fd, const std::vector<DeviceRule>& rules) {
  const auto code = deviceProgram(rules);
  bpf_attr load{};
  load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  load.insns = reinterpret_cast<uint64_t>(code.data());
  load.insn_cnt = static_cast<uint32_t>(code.size());
  load.license = reinterpret_cast<uint64_t>("GPL");
  const Fd program(static_cast<int>(syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load)));
  if (!program) throw sysError("load the filter of the container's devices");
  bpf_attr attach{};
  attach.target_fd = static_cast<uint32_t>(cgroup_fd);
  attach.attach_bpf_fd = static_cast<uint32_t>(program.get());
  attach.attach_type = BPF_CGROUP_DEVICE;
  attach.attach_flags = BPF_F_ALLOW_MULTI;
  if (syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach) < 0) {
    throw sysError("attach the filter of the container's devices");
  }
}

}  // namespace hull::guest
