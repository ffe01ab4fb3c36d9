#!/bin/bash
# The engine's lower half with real VMs: start, processes, logs over an engine restart, network,
# published ports, RUN steps. Runs as root on a host with KVM. HULL_BIN: folder of the programs;
# HULL_KERNEL: the guest's vmlinux; a static busybox at HULL_BUSYBOX or /bin/busybox.
set -euo pipefail
: "${HULL_BIN:?folder with hull-vmm}" "${HULL_KERNEL:?path of vmlinux}"
export HULL_BIN HULL_KERNEL
"$HULL_BIN/engine-vm-e2e" "$@"
