// --init: PID 1 of a container that starts its command as a child, passes signals on, reaps
// whatever is left behind, and ends as the command does (what docker-init, tini, does in Docker).
// In the child of hull-init that would otherwise execute the command itself.
#pragma once

namespace hull::guest {

// Forks. Returns in the child, which is to execute the command; the parent never returns: it exits
// with the command's status, 128 + signal when it was killed. `status` is closed in the parent, so
// that the end of the command's execve is seen. Throws when there can be no child.
void becomeReaper(int status, bool terminal);

}  // namespace hull::guest
