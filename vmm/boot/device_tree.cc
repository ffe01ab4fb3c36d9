#include "vmm/boot/device_tree.h"

#include <fmt/format.h>
#include <libfdt.h>

#include <array>
#include <cstring>
#include <string>

#include "base/error.h"
#include "vmm/bus/platform.h"
#include "vmm/memory/layout.h"

namespace hull::vmm {

namespace {

constexpr uint32_t kIoapicHandle = 1;
constexpr uint32_t kPowerHandle = 2;
// The second interrupt cell of "intel,ce4100-ioapic" (arch/x86/kernel/devicetree.c): an index.
constexpr uint32_t kEdgeRising = 3;

// libfdt's sequential writer with its return codes turned into exceptions.
class Writer {
 public:
  explicit Writer(std::vector<std::byte>& out) : out_(out) {
    check(fdt_create(out_.data(), static_cast<int>(out_.size())));
    check(fdt_finish_reservemap(out_.data()));
  }
  void begin(const std::string& name) { check(fdt_begin_node(out_.data(), name.c_str())); }
  void end() { check(fdt_end_node(out_.data())); }
  void cell(const char* name, uint32_t value) { check(fdt_property_u32(out_.data(), name, value)); }
  void text(const char* name, const char* value) {
    check(fdt_property(out_.data(), name, value, static_cast<int>(std::strlen(value) + 1)));
  }
  void empty(const char* name) { check(fdt_property(out_.data(), name, nullptr, 0)); }
  void cells(const char* name, uint64_t first, uint64_t second) {
    const std::array<fdt32_t, 2> value{cpu_to_fdt32(static_cast<uint32_t>(first)),
                                       cpu_to_fdt32(static_cast<uint32_t>(second))};
    check(fdt_property(out_.data(), name, value.data(), static_cast<int>(sizeof value)));
  }
  void finish() {
    check(fdt_finish(out_.data()));
    out_.resize(fdt_totalsize(out_.data()));
  }

 private:
  static void check(int result) {
    if (result < 0) {
      throw Error(ErrorKind::kInternal,
                  fmt::format("build the device tree: {}", fdt_strerror(result)));
    }
  }
  std::vector<std::byte>& out_;
};

void addCpus(Writer& tree, uint32_t vcpus) {
  tree.begin("cpus");
  tree.cell("#address-cells", 1);
  tree.cell("#size-cells", 0);
  for (uint32_t i = 0; i < vcpus; ++i) {
    tree.begin(fmt::format("cpu@{:x}", i));
    tree.text("device_type", "cpu");
    tree.text("compatible", "intel,ce4100");
    tree.cell("reg", i);  // the APIC id
    tree.end();
  }
  tree.end();
}

void addInterruptControllers(Writer& tree) {
  tree.begin(fmt::format("interrupt-controller@{:x}", layout::kIoapicBase));
  tree.text("compatible", "intel,ce4100-ioapic");
  tree.cells("reg", layout::kIoapicBase, layout::kIoapicBytes);
  tree.empty("interrupt-controller");
  tree.cell("#interrupt-cells", 2);
  tree.cell("phandle", kIoapicHandle);
  tree.end();
  tree.begin(fmt::format("interrupt-controller@{:x}", layout::kLocalApicBase));
  tree.text("compatible", "intel,ce4100-lapic");
  tree.cells("reg", layout::kLocalApicBase, layout::kLocalApicBytes);
  tree.end();
}

void addPlatform(Writer& tree) {
  tree.begin(fmt::format("power@{:x}", layout::kPowerBase));
  tree.text("compatible", "syscon");
  tree.cells("reg", layout::kPowerBase, layout::kPowerBytes);
  tree.cell("phandle", kPowerHandle);
  tree.end();
  tree.begin("poweroff");
  tree.text("compatible", "syscon-poweroff");
  tree.cell("regmap", kPowerHandle);
  tree.cell("offset", 0);
  tree.cell("value", kPowerOffValue);
  tree.end();
  tree.begin(fmt::format("pvpanic@{:x}", layout::kPvpanicBase));
  tree.text("compatible", "qemu,pvpanic-mmio");
  tree.cells("reg", layout::kPvpanicBase, layout::kPvpanicBytes);
  tree.end();
}

void addVirtio(Writer& tree, const DeviceTreeDevice& device) {
  tree.begin(fmt::format("virtio@{:x}", device.base));
  tree.text("compatible", "virtio,mmio");
  tree.cells("reg", device.base, layout::kVirtioBytes);
  tree.cell("interrupt-parent", kIoapicHandle);
  tree.cells("interrupts", device.gsi, kEdgeRising);
  tree.end();
}

}  // namespace

std::vector<std::byte> buildDeviceTree(uint32_t vcpus,
                                       const std::vector<DeviceTreeDevice>& virtio) {
  constexpr size_t kSetupHeaderBytes = 16;
  std::vector<std::byte> blob(layout::kDeviceTreeMaxBytes - kSetupHeaderBytes);
  Writer tree(blob);
  tree.begin("");
  tree.cell("#address-cells", 1);
  tree.cell("#size-cells", 1);
  tree.text("compatible", "hull,microvm");
  addCpus(tree, vcpus);
  tree.begin("soc");
  tree.cell("#address-cells", 1);
  tree.cell("#size-cells", 1);
  tree.text("compatible", "simple-bus");
  tree.empty("ranges");
  addInterruptControllers(tree);
  addPlatform(tree);
  for (const auto& device : virtio) addVirtio(tree, device);
  tree.end();
  tree.end();
  tree.finish();
  return blob;
}

}  // namespace hull::vmm
