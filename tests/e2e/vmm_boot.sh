#!/bin/bash
# Boots real VMs with hull-vmm: exit reasons, disks, vsock, CPUs, control socket. Once as root in the full jail, once as an
# unprivileged uid of its own.
set -euo pipefail
. "$(dirname "$0")/../support/kvm.sh"
run_on_kvm "" vmm-boot-e2e "$@"
run_on_kvm HULL_TEST_UID=64123 vmm-boot-e2e --gtest_filter='BootTest.Init*:BootTest.Vsock*' "$@"
