// The engine's state on disk (<root>/engine.db): the one owner of what containers and volumes there
// are, their configuration and state. Every change is one durable statement. Any thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "daemon/engine/container_spec.h"
#include "daemon/engine/container_state.h"
#include "daemon/engine/mount_spec.h"

namespace hull::engine {

// What changes only by renaming and updating.
struct ContainerRecord {
  std::string id;    // 64 hex digits
  std::string name;  // without "/"
  int64_t created_ns = 0;
  std::string image;                  // as asked: "debian:12"
  std::string image_id;               // "sha256:…"
  std::vector<std::string> diff_ids;  // its layers: the root disk, even when the image is untagged
  ContainerDocuments documents;
  std::vector<MountPoint> mounts;
};

struct VolumeRecord {
  std::string name;
  std::string driver = "local";  // or "disk"
  int64_t created_ns = 0;
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> options;  // as asked, and shown again
};

class StateDb {
 public:
  explicit StateDb(const std::string& path);  // throws kNotSupported on a newer schema
  ~StateDb();

  struct Row {
    ContainerRecord record;
    ContainerState state;
  };
  std::vector<Row> load();  // oldest first

  // Throws kConflict with Docker's words when the name is in use.
  void insert(const ContainerRecord& record, const ContainerState& state);
  void rename(const std::string& id, const std::string& name);
  void updateDocuments(const ContainerRecord& record);
  void update(const std::string& id, const ContainerState& state);
  void remove(const std::string& id);

  std::vector<VolumeRecord> loadVolumes();
  void insertVolume(const VolumeRecord& record);
  void removeVolume(const std::string& name);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hull::engine
