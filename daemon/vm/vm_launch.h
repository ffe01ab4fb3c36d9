// Starting hull-vmm: the files of a VM's folder, its configuration, exactly the descriptors it
// needs, and the wait for hull-init's first answer. A Launch that is destroyed before commit()
// undoes everything it made. Used by Vm::start; one thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "daemon/vm/guest_wire.h"
#include "daemon/vm/vm.h"
#include "daemon/vm/vmm_process.h"

namespace hull::engine {

// The control connection to hull-init, past Hello, which also sets the guest's clock. Tries until
// the process behind `pidfd` ends (kUnavailable) or the deadline (kTimeout).
Fd greetGuest(const std::string& directory, Deadline deadline, int pidfd);

class Launch {
 public:
  Launch(const VmResources& resources, VmSpec spec);
  ~Launch();
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  void spawn();
  Fd greet();            // throws with what the VMM and the console said last
  VmProcesses commit();  // the VM is the caller's now

 private:
  // A descriptor of ours and the number it gets in the VMM.
  int pass(Fd fd);
  std::string path(const char* name) const { return spec_.directory + "/" + name; }
  Fd create(const char* name, int flags);  // a file of the folder, removed when the start fails
  void prepareWritableDisk();
  std::string configuration();
  Fd startShares();                           // the connection to virtiofsd
  Fd startNetwork(const VmNetwork& network);  // the wire to passt
  std::string lastWords() const;

  const VmResources& resources_;
  VmSpec spec_;
  uint32_t uid_ = 0;
  Fd writable_;
  std::vector<std::string> created_;
  std::vector<Fd> passed_;
  std::optional<VmmProcess> process_, share_, passt_;
};

}  // namespace hull::engine
