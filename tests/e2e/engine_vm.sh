#!/bin/bash
# The engine's lower half with real VMs: start, processes, logs over an engine restart, network, published ports, RUN steps.
set -euo pipefail
. "$(dirname "$0")/../support/kvm.sh"
run_on_kvm "" engine-vm-e2e "$@"
