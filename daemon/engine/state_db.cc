#include "daemon/engine/state_db.h"

#include <array>

#include "base/error.h"
#include "base/log.h"
#include "daemon/engine/json_fields.h"
#include "image/store/database.h"

namespace hull::engine {

using fields::Json;

namespace {

constexpr std::array<const char*, 3> kMigrations{R"(
  CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_ns INTEGER NOT NULL,
    document TEXT NOT NULL,
    state TEXT NOT NULL
  );)",
                                                 // What there was had the default network or none.
                                                 R"(
  UPDATE containers
  SET state = json_set(state, '$.endpoints', json_array(json_object('network', 'bridge')))
  WHERE json_valid(document) AND json_valid(state)
    AND json_extract(json_extract(document, '$.host_config'), '$.NetworkMode') = 'bridge';)",
                                                 R"(
  CREATE TABLE volumes (
    name TEXT PRIMARY KEY,
    created_ns INTEGER NOT NULL,
    document TEXT NOT NULL
  );)"};

std::string toJson(const ContainerRecord& record) {
  return fields::dump({{"image", record.image},
                       {"image_id", record.image_id},
                       {"diff_ids", record.diff_ids},
                       {"config", record.documents.config},
                       {"host_config", record.documents.host_config},
                       {"endpoints", record.documents.endpoints},
                       {"mounts", hull::engine::toJson(record.mounts)}});
}

std::string toJson(const VolumeRecord& record) {
  return fields::dump(
      {{"driver", record.driver}, {"labels", record.labels}, {"options", record.options}});
}

void readDocument(std::string_view text, ContainerRecord& record) {
  const Json object = fields::parseObject(text, "a container's record");
  record.image = fields::text(object, "image");
  record.image_id = fields::text(object, "image_id");
  record.diff_ids = fields::texts(object, "diff_ids");
  record.documents = {fields::text(object, "config"), fields::text(object, "host_config"),
                      fields::text(object, "endpoints")};
  record.mounts = parseMountPoints(fields::text(object, "mounts"));
}

}  // namespace

struct StateDb::Impl {
  explicit Impl(const std::string& path) : database(path, kMigrations) {}

  void refuseUsedName(const std::string& name, const std::string& own_id) {
    auto find = database.prepare("SELECT id FROM containers WHERE name = ? AND id != ?");
    if (!find.bind(name).bind(own_id).step()) return;
    throw Error(ErrorKind::kConflict,
                "Conflict. The container name \"/" + name + "\" is already in use by container \"" +
                    find.text(0) +
                    "\". You have to remove (or rename) that container to be able "
                    "to reuse that name.");
  }

  image::Database database;
};

StateDb::StateDb(const std::string& path) : impl_(std::make_unique<Impl>(path)) {}
StateDb::~StateDb() = default;

std::vector<StateDb::Row> StateDb::load() {
  const auto lock = impl_->database.lock();
  auto select = impl_->database.prepare(
      "SELECT id, name, created_ns, document, state FROM containers ORDER BY created_ns, id");
  std::vector<Row> rows;
  while (select.step()) {
    Row row;
    row.record.id = select.text(0);
    row.record.name = select.text(1);
    row.record.created_ns = select.number(2);
    readDocument(select.text(3), row.record);
    row.state = parseState(select.text(4));
    rows.push_back(std::move(row));
  }
  return rows;
}

void StateDb::insert(const ContainerRecord& record, const ContainerState& state) {
  const auto lock = impl_->database.lock();
  image::Database::Transaction transaction(impl_->database);
  impl_->refuseUsedName(record.name, record.id);
  impl_->database
      .prepare("INSERT INTO containers (id, name, created_ns, document, state) VALUES (?,?,?,?,?)")
      .bind(record.id)
      .bind(record.name)
      .bind(record.created_ns)
      .bind(toJson(record))
      .bind(hull::engine::toJson(state))
      .run();
  transaction.commit();
}

void StateDb::rename(const std::string& id, const std::string& name) {
  const auto lock = impl_->database.lock();
  image::Database::Transaction transaction(impl_->database);
  impl_->refuseUsedName(name, id);
  impl_->database.prepare("UPDATE containers SET name = ? WHERE id = ?").bind(name).bind(id).run();
  transaction.commit();
}

void StateDb::updateDocuments(const ContainerRecord& record) {
  const auto lock = impl_->database.lock();
  impl_->database.prepare("UPDATE containers SET document = ? WHERE id = ?")
      .bind(toJson(record))
      .bind(record.id)
      .run();
}

void StateDb::update(const std::string& id, const ContainerState& state) {
  const auto lock = impl_->database.lock();
  impl_->database.prepare("UPDATE containers SET state = ? WHERE id = ?")
      .bind(toJson(state))
      .bind(id)
      .run();
}

void StateDb::remove(const std::string& id) {
  const auto lock = impl_->database.lock();
  impl_->database.prepare("DELETE FROM containers WHERE id = ?").bind(id).run();
}

std::vector<VolumeRecord> StateDb::loadVolumes() {
  const auto lock = impl_->database.lock();
  auto select = impl_->database.prepare("SELECT name, created_ns, document FROM volumes");
  std::vector<VolumeRecord> records;
  while (select.step()) {
    VolumeRecord record;
    record.name = select.text(0);
    record.created_ns = select.number(1);
    try {
      const Json object = fields::parseObject(select.text(2), "its record");
      record.driver = fields::text(object, "driver");
      record.labels = fields::textMap(object, "labels");
      record.options = fields::textMap(object, "options");
      records.push_back(std::move(record));
    } catch (const Error& error) {
      log::error("volume " + record.name + ": " + error.what());
    }
  }
  return records;
}

void StateDb::insertVolume(const VolumeRecord& record) {
  const auto lock = impl_->database.lock();
  impl_->database.prepare("INSERT INTO volumes (name, created_ns, document) VALUES (?,?,?)")
      .bind(record.name)
      .bind(record.created_ns)
      .bind(toJson(record))
      .run();
}

void StateDb::removeVolume(const std::string& name) {
  const auto lock = impl_->database.lock();
  impl_->database.prepare("DELETE FROM volumes WHERE name = ?").bind(name).run();
}

}  // namespace hull::engine
