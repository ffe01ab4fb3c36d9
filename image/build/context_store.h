// Contexts that builds brought as lean tars (lean_tar.h), kept so that the next one need not bring
// their contents again. A kept context is a layer of the store, pinned while this is open, and a
// file that says where in its data which content is: <store root>/contexts/<diff hex>. It takes the
// place of those it has more than half of the bytes of; beyond the limits those go first that were
// used longest ago. Nothing is kept of other builds. What is here may be named by every client: an
// engine has no notion of users. One object for a store: open() finds it. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "image/store/image_store.h"

namespace hull::build {

inline constexpr uint64_t kMaxKeptContextBytes = uint64_t{10} << 30;  // of all
inline constexpr size_t kMaxKeptContexts = 16;

struct KeptContext {
  image::Digest diff_id;
  uint64_t bytes = 0;   // of its files, as they are kept
  int64_t made_at = 0;  // seconds since 1970
  int64_t used_at = 0;
  int64_t used_ns = 0;  // within that second
};

class ContextStore {
 public:
  // The store's; it is closed with the last pointer.
  static std::shared_ptr<ContextStore> open(image::ImageStore& store);
  ~ContextStore();

  // Of digests in a row, 32 bytes each: "1" for each whose content is here, "0" for another.
  // Untrusted; throws kInvalidArgument, kTooLarge.
  std::string held(std::string_view digests);

  // For one build: what is kept now stays until this is gone.
  class Reader {
   public:
    // Throws kConflict for what is not here: the client sends it.
    std::unique_ptr<Source> open(const Sha256& digest, uint64_t size);

   private:
    friend class ContextStore;
    struct Table;
    std::vector<std::shared_ptr<Table>> tables_;
  };
  Reader reader();

  // What does not fit below the limits is not kept.
  void keep(const image::IngestedLayer& context, std::vector<image::FileContent> contents);
  // Keeps no longer what has this content: it turned out to be another.
  void forget(const Sha256& digest);

  std::vector<KeptContext> list();  // what was used last comes last
  // Its bytes are free with the store's next collection.
  bool remove(const image::Digest& diff_id);
  void setLimit(uint64_t bytes);

 private:
  struct State;
  explicit ContextStore(image::ImageStore& store);
  std::unique_ptr<State> state_;
};

}  // namespace hull::build
