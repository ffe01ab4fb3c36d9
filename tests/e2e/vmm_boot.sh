#!/bin/bash
# Boots real VMs with hull-vmm: exit reasons, disks, vsock, CPUs, control socket. Runs as root on a
# host with KVM. HULL_BIN: folder of the programs; HULL_KERNEL: the guest's vmlinux. Once as root in
# the full jail, once as an unprivileged uid of its own.
set -euo pipefail
: "${HULL_BIN:?folder with hull-vmm}" "${HULL_KERNEL:?path of vmlinux}"
export HULL_BIN HULL_KERNEL
"$HULL_BIN/vmm-boot-e2e" "$@"
HULL_TEST_UID=64123 "$HULL_BIN/vmm-boot-e2e" --gtest_filter='BootTest.Init*:BootTest.Vsock*' "$@"
