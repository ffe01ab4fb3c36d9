// The engine's state on disk (<root>/engine.db): the one owner of what containers there are, their
// configuration and state. Every change is one durable statement. Any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "daemon/engine/container_spec.h"
#include "daemon/engine/container_state.h"

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

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hull::engine
