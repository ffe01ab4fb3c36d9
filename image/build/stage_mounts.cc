// RUN --mount.
#include <algorithm>

#include "base/error.h"
#include "image/build/mounts.h"
#include "image/build/stage_builder.h"
#include "image/build/step_text.h"

namespace hull::build {

namespace {

std::string baseName(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

}  // namespace

std::vector<std::string> StageBuilder::addMounts(const Instruction& at, RunStep& step,
                                                 CopyWork& work) {
  std::vector<std::string> keys;
  size_t agents = 0;
  for (const auto& flag : at.flags) {
    if (flag.name == "mount") keys.push_back(addMount(at, flag, step, work, agents));
  }
  return keys;
}

// The mount's part of the key: what it is, not what a cache or secret holds.
std::string StageBuilder::addMount(const Instruction& at, const Flag& flag, RunStep& step,
                                   CopyWork& work, size_t& agents) {
  try {
    const MountFlag mount =
        parseMount(flag.value, [this](const std::string& word) { return expand(word); });
    switch (mount.type) {
      case MountFlag::Type::kBind:
        return addBindMount(mount, step, work);
      case MountFlag::Type::kCache:
        return addCacheMount(mount, step, work);
      case MountFlag::Type::kTmpfs: {
        RunMount made;
        made.target = "/" + joinPath(config_.working_dir, mount.target);
        made.size_bytes = mount.size_bytes;
        step.mounts.push_back(made);
        return hashOf({"tmpfs", made.target, std::to_string(made.size_bytes)});
      }
      case MountFlag::Type::kSecret:
        return addSecretMount(mount, step);
      case MountFlag::Type::kSsh:
        return addSshMount(mount, step, agents++);
    }
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCancelled) throw;
    throw Error(error.kind(), build_.file.error(flag, error.what()).what());
  }
  return at.text;
}

// What `from` and `source` of a mount name.
StageBuilder::MountSource StageBuilder::mountSource(const MountFlag& mount, CopyWork& work) {
  RootFs& source = copySource(mount.from, work);
  const std::string path = cleanPath(mount.source);
  const image::InodeNumber number = source.tree().resolve("/" + path);
  if (number == image::kNoInode) {
    throw Error(ErrorKind::kNotFound, "--mount: \"/" + path + "\" of " +
                                          (mount.from.empty() ? "the context" : mount.from) +
                                          ": not found");
  }
  return {source, path, source.tree().at(number).type == image::EntryType::kDirectory};
}

// The mount's tree: what `from` names, as `destination` of it.
void StageBuilder::setTree(RunMount& made, const MountSource& from, const std::string& destination,
                           CopyWork& work) {
  CopyRequest request;
  request.sources = {"/" + from.path};
  request.destination = destination;
  request.keep_owner = true;
  request.now_seconds = build_.now_seconds;
  RootFs& nothing =
      keep(work, std::make_unique<RootFs>(build_.store.layers(), std::vector<image::Digest>{}));
  const auto plan = std::make_shared<CopyPlan>(from.root, nothing, request);
  made.tree_key = plan->contentKey();
  made.tree = [plan](Sink& sink) {
    image::LayerTarWriter tar(sink);
    plan->write(tar);
    tar.finish();
  };
}

std::string StageBuilder::addBindMount(const MountFlag& mount, RunStep& step, CopyWork& work) {
  const MountSource source = mountSource(mount, work);
  RunMount made;
  made.kind = RunMount::Kind::kTree;
  made.target = "/" + joinPath(config_.working_dir, mount.target);
  made.read_only = mount.read_only;
  if (!source.directory) made.tree_file = "file";
  setTree(made, source, "/" + made.tree_file, work);
  const std::string key =
      hashOf({"bind", made.target, made.tree_key, made.tree_file, made.read_only ? "ro" : "rw"});
  step.mounts.push_back(std::move(made));
  return key;
}

// One that begins with the contents of something else is another cache for other contents, as in
// BuildKit; its directory has the attributes that it has there.
std::string StageBuilder::addCacheMount(const MountFlag& mount, RunStep& step, CopyWork& work) {
  RunMount made;
  made.kind = RunMount::Kind::kCache;
  made.target = "/" + joinPath(config_.working_dir, mount.target);
  made.read_only = mount.read_only;
  made.cache.id = mount.id.empty() ? made.target : mount.id;
  made.cache.is_private = mount.sharing == MountFlag::Sharing::kPrivate;
  made.uid = mount.uid;
  made.gid = mount.gid;
  made.mode = mount.mode.value_or(kCacheMountMode);
  if (!mount.from.empty()) {
    const MountSource source = mountSource(mount, work);
    if (!source.directory) {
      throw Error(ErrorKind::kInvalidArgument,
                  "--mount: the initial contents of a cache are a "
                  "directory, and \"/" +
                      source.path + "\" of " + mount.from + " is none");
    }
    setTree(made, source, "/data", work);
    made.cache.id += "@" + made.tree_key;
  } else if (!mount.source.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                "--mount: source= of a cache needs from=, the stage, image or context it is in");
  }
  step.mounts.push_back(made);
  return hashOf({"cache", made.target, made.cache.id, std::to_string(made.uid),
                 std::to_string(made.gid), std::to_string(made.mode)});
}

std::string StageBuilder::addSecretMount(const MountFlag& mount, RunStep& step) {
  const std::string id = mount.id.empty() ? baseName(mount.target) : mount.id;
  const auto found = build_.request.secrets.find(id);
  const std::string key = hashOf({"secret", id, mount.target, mount.env,
                                  std::to_string(mount.mode.value_or(kSecretMode)),
                                  std::to_string(mount.uid), std::to_string(mount.gid)});
  if (found == build_.request.secrets.end()) {
    if (!mount.required) return key;
    throw Error(
        ErrorKind::kNotFound,
        "--mount: secret " + id + ": not found (give it with --secret id=" + id + ",src=…)");
  }
  if (!mount.env.empty()) step.environment.push_back(mount.env + "=" + found->second);
  if (!mount.env.empty() && mount.target.empty()) return key;
  RunMount made;
  made.kind = RunMount::Kind::kFile;
  made.target = mount.target.empty() ? "/run/secrets/" + baseName(id)
                                     : "/" + joinPath(config_.working_dir, mount.target);
  made.content = found->second;
  made.uid = mount.uid;
  made.gid = mount.gid;
  made.mode = mount.mode.value_or(kSecretMode);
  step.mounts.push_back(std::move(made));
  return key;
}

// `number` among the agents of the step.
std::string StageBuilder::addSshMount(const MountFlag& mount, RunStep& step, size_t number) {
  const std::string id = mount.id.empty() ? kDefaultAgent : mount.id;
  RunMount made;
  made.kind = RunMount::Kind::kAgent;
  made.target = mount.target.empty() ? "/run/buildkit/ssh_agent." + std::to_string(number)
                                     : "/" + joinPath(config_.working_dir, mount.target);
  made.uid = mount.uid;
  made.gid = mount.gid;
  made.mode = mount.mode.value_or(kSshSocketMode);
  const std::string key = hashOf({"ssh", id, made.target, std::to_string(made.mode),
                                  std::to_string(made.uid), std::to_string(made.gid)});
  const auto found = build_.request.agents.find(id);
  if (found == build_.request.agents.end()) {
    if (!mount.required) return key;
    throw Error(ErrorKind::kNotFound,
                "--mount: no ssh agent " + id + " is given (give one with --ssh " + id + ")");
  }
  made.agent = found->second;
  const bool told =
      std::any_of(step.environment.begin(), step.environment.end(),
                  [](const std::string& item) { return item.starts_with("SSH_AUTH_SOCK="); });
  if (!told) step.environment.push_back("SSH_AUTH_SOCK=" + made.target);
  step.mounts.push_back(std::move(made));
  return key;
}

}  // namespace hull::build
