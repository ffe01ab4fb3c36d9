// Landlock (landlock(7)) as the last layer of the jail: the process gives up every right over files
// by name, and where the kernel knows them, over TCP ports, abstract sockets and signals. What is
// open already stays usable. Main thread, before others exist; needs no_new_privs.
#pragma once

namespace hull::vmm {

// False: this kernel has no Landlock, or it is switched off. Throws hull::Error when it fails
// otherwise.
bool giveUpFiles();

}  // namespace hull::vmm
