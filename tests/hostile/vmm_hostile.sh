#!/bin/bash
# A guest that does nothing but attack its hull-vmm, and a look at the jail of a running one.
set -euo pipefail
. "$(dirname "$0")/../support/kvm.sh"
run_on_kvm "" vmm-hostile-e2e "$@"
