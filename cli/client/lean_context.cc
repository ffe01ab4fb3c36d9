#include "cli/client/lean_context.h"

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "cli/client/zstd_sink.h"
#include "image/build/lean_tar.h"

namespace hull::cli {

namespace {

constexpr int kNotFound = 404, kNotAllowed = 405;

// The answer, a character for each digest; none from an engine that does not know the question.
std::optional<std::string> ask(const EngineClient& engine, const std::string& digests) {
  try {
    const std::string answer = engine
                                   .call("POST", "/build/contents", digests,
                                         {{"Content-Type", "application/octet-stream"}})
                                   .body;
    if (answer.size() * sizeof(Sha256) == digests.size()) return answer;
    return std::nullopt;
  } catch (const ApiError& error) {
    if (error.status() == kNotFound || error.status() == kNotAllowed) return std::nullopt;
    throw;
  }
}

struct Wanted {
  Sha256 digest;
  uint64_t size;
};

// What could be named, each inode once. A file that cannot be read now is the packer's to complain
// about, if it is still there then.
std::vector<Wanted> digestFiles(const std::vector<ContextFile>& files, ContentDigests& digests) {
  std::vector<Wanted> wanted;
  for (const auto& file : files) {
    const auto size = static_cast<uint64_t>(file.info.st_size);
    if (size < build::kMinNamedBytes || wanted.size() == build::kMaxNamedContents) continue;
    try {
      if (const auto digest = digests.of(file.path, file.info)) wanted.push_back({*digest, size});
    } catch (const Error&) {
      continue;
    }
  }
  return wanted;
}

}  // namespace

std::optional<LeanContext> LeanContext::plan(const EngineClient& engine,
                                             const ContextOptions& options) {
  if (!engine.far()) return std::nullopt;
  LeanContext lean;
  const std::vector<ContextFile> files = contextFiles(options);
  for (const auto& file : files) lean.bytes_ += static_cast<uint64_t>(file.info.st_size);
  if (lean.bytes_ < kMinLeanContextBytes) return std::nullopt;
  // A short question first: who does not know it closes the connection on a long one.
  if (!ask(engine, {})) return std::nullopt;
  lean.digests_ = std::make_shared<ContentDigests>(contentCachePath(options.folder));
  const std::vector<Wanted> wanted = digestFiles(files, *lean.digests_);
  lean.digests_->save();
  std::string question;
  for (const auto& one : wanted)
    question.append(reinterpret_cast<const char*>(one.digest.data()), one.digest.size());
  const auto answer = ask(engine, question);
  if (!answer) return std::nullopt;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if ((*answer)[i] != '1') continue;
    lean.held_.insert(wanted[i].digest);
    lean.held_bytes_ += wanted[i].size;
  }
  return lean;
}

void LeanContext::write(const ContextOptions& options, Sink& out) const {
  ZstdSink packed(out);
  const auto held = [this](const struct stat& info) -> std::optional<Sha256> {
    // Of another size or time than when it was digested: it is sent as it is now.
    const auto digest = digests_->known(info);
    return digest && held_.contains(*digest) ? digest : std::nullopt;
  };
  writeLeanContext(options, held, packed);
  packed.finish();
}

}  // namespace hull::cli
