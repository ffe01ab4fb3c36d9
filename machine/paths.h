// Where the machine keeps its things on the user's host. Pure data, any thread.
#pragma once

#include <string>

namespace hull::machine {

struct MachinePaths {
  std::string state;  // ${HULL_STATE:-${XDG_STATE_HOME:-~/.local/state}/hull}/machine, mode 0700
  std::string cache;  // ${HULL_CACHE:-${XDG_CACHE_HOME:-~/.cache}/hull}/machine: images

  // From the environment; throws when neither HOME nor the variables are set.
  static MachinePaths fromEnvironment();

  std::string engineSocket() const { return state + "/engine.sock"; }
  std::string controlSocket() const { return state + "/control.sock"; }
  std::string config() const { return state + "/config.json"; }    // what start decided
  std::string dataDisk() const { return state + "/data.ext4"; }    // /var/lib/hull inside
  std::string payload() const { return state + "/payload.ext4"; }  // the programs, /opt/hull inside
  std::string payloadKey() const { return state + "/payload.key"; }  // what the payload was made of
  std::string consoleLog() const { return state + "/console.log"; }
  std::string supervisorLog() const { return state + "/supervisor.log"; }
  std::string startLock() const { return state + "/start.lock"; }            // one start at a time
  std::string supervisorLock() const { return state + "/supervisor.lock"; }  // held while it runs
  std::string emulatorLock() const { return state + "/emulator.lock"; }      // held by QEMU itself
};

}  // namespace hull::machine
