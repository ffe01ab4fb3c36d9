# shellcheck shell=bash
# Runs a test program where KVM is: here as root, or inside the running `hull machine`. Sourced by scripts that test
# parts below the engine; HULL_BIN is the folder of the programs.

# A network namespace of the test's own: the bridge and rules of an engine that runs stay as they are.
own_network='ip link set lo up && exec "$@"'

# run_on_kvm "VAR=value …" PROGRAM [arguments]: with hull-vmm, the guest and vmlinux beside the program.
run_on_kvm() {
  local environment=$1 program=$2
  shift 2
  if "$HULL_BIN/hull" doctor --usable-kvm; then
    [[ $(id -u) == 0 ]] || { echo "needs root"; exit 77; }
    # shellcheck disable=SC2086
    env HULL_BIN="$HULL_BIN" HULL_KERNEL="$HULL_BIN/vmlinux" $environment unshare -n sh -c "$own_network" sh "$HULL_BIN/$program" "$@"
    return
  fi
  "$HULL_BIN/hull" machine status >/dev/null 2>&1 || { echo "no usable KVM here, and hull machine does not run"; exit 77; }
  tar -C "$HULL_BIN" -cf - "$program" vmm-boot-guest vmm-hostile-guest hull-vmm hull-initramfs |
    "$HULL_BIN/hull" machine run sh -c 'mkdir -p /tmp/kvm && tar -C /tmp/kvm -xf - && ln -sf /opt/hull/vmlinux /tmp/kvm/vmlinux'
  # shellcheck disable=SC2086
  "$HULL_BIN/hull" machine run env HULL_BIN=/tmp/kvm HULL_KERNEL=/opt/hull/vmlinux $environment \
    unshare -n sh -c "$own_network" sh "/tmp/kvm/$program" "$@" </dev/null
}
