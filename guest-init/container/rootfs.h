// A container's root file system as hull-init holds it, outside the container's own namespaces:
//
//   <state>/lower     the image's root disk, read-only
//   <state>/rw        the writable disk (or a tmpfs): upper/, work/, sealed/<n>/
//   <state>/init      mount points that the image lacks, so that the ones Hull needs never
//                     appear in a layer (the trick of Docker's "init layer")
//   <state>/files     contents of the container's /etc/resolv.conf, hosts, hostname; a link to the
//                     other container's for one that shares a network
//   <state>/rw/trees  what kWriteTree brought
//   <state>/shares, volumes   what comes from outside (volumes.h)
//   <state>/sockets   what the host serves (sockets.h)
//   <state>/merged    overlay of  upper / init / sealed n … 1 / lower
//
// What must be readable as a layer decides the overlay's options: no redirects, no metadata-only
// copies, so an upper directory is complete in itself. One owner; the event loop's thread.
#pragma once

#include <string>
#include <vector>

#include "guest-init/protocol/protocol.h"

namespace hull::guest {

// Enough for any image; the overlay's option string is bounded by a page.
inline constexpr uint64_t kMaxSealedLayers = 256;

class RootFilesystem {
 public:
  // `state` is created. `host`: beside it, the container whose name files are this one's, too.
  // Throws with everything unmounted again.
  RootFilesystem(std::string state, const CreateContainer& options, const std::string& host = {});
  ~RootFilesystem();
  RootFilesystem(const RootFilesystem&) = delete;
  RootFilesystem& operator=(const RootFilesystem&) = delete;

  const std::string& state() const { return state_; }
  std::string merged() const { return state_ + "/merged"; }
  std::string upper() const { return state_ + "/rw/upper"; }
  std::string sealedLayer(uint64_t number) const;  // throws kNotFound
  uint64_t layers() const { return layers_; }

  // Mount points that only the next process needs: like the container's own, they are in no layer.
  // The overlay must be unused when they are others than before.
  void useMountPoints(std::vector<std::string> directories, std::vector<std::string> files);
  // Where the tree of that name is unpacked; a new, empty directory outside of the root. Throws
  // kConflict when there is one, kInvalidArgument for what is no plain name.
  std::string prepareTree(const std::string& name);
  // The container's /etc/hosts and /etc/resolv.conf; empty: as they are.
  void writeNameFiles(const std::string& hosts, const std::string& resolv_conf);

  // The overlay must be unused. Both return the new layer's number.
  uint64_t seal();
  // A new, unsealed layer directory to be filled by somebody else, then adopted or discarded.
  std::string prepareLayer();
  uint64_t adoptLayer();
  void discardLayer();

 private:
  void makeFolders(const std::string& host);
  void mountDisks(const CreateContainer& options);
  void writeOwnNames(const CreateContainer& options);
  void findMountPoints(const std::vector<Mount>& mounts);
  void findSealedLayers();
  void mountOverlay();
  void unmountAll();
  void unmountOverlay();
  void makeInitLayer(const std::string& base);
  std::string lowerOption(bool with_init) const;
  bool upperIsEmpty() const;

  std::string state_;
  std::vector<std::string> mount_points_;  // directories the container's extra mounts need
  std::vector<std::string> mount_files_;   // and files
  std::vector<std::string> step_directories_, step_files_;  // what the process's mounts need
  uint64_t layers_ = 0;
};

// Throws kInvalidArgument for what is no plain name of a file.
void checkPlainName(const std::string& operation, const std::string& name);

}  // namespace hull::guest
