// --output: where the result of a build goes besides the engine's images.
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/client/output_file.h"
#include "cli/commands/build_options.h"

namespace hull::cli {

namespace fs = std::filesystem;

namespace {

// A stream of pushed bytes as libarchive pulls them: the answer is spooled to a nameless file.
Fd spool(const EngineClient& engine, const std::string& target) {
  std::string path = (fs::temp_directory_path() / "hull-output-XXXXXX").string();
  Fd file(mkostemp(path.data(), O_CLOEXEC));
  if (!file) throw sysError("create " + path);
  ::unlink(path.c_str());
  engine.stream("GET", target, nullptr, {},
                [&](std::string_view bytes) { writeFull(file.get(), bytes); });
  if (lseek(file.get(), 0, SEEK_SET) < 0) throw sysError("rewind");
  return file;
}

void check(archive* handle, int status, const std::string& what) {
  if (status >= ARCHIVE_WARN) return;
  const char* problem = archive_error_string(handle);
  throw Error(ErrorKind::kInternal, what + ": " + (problem ? problem : "failed"));
}

void copyContents(archive* in, archive* out, const std::string& name) {
  const void* data = nullptr;
  size_t size = 0;
  la_int64_t offset = 0;
  for (int status; (status = archive_read_data_block(in, &data, &size, &offset)) != ARCHIVE_EOF;) {
    check(in, status, "read " + name + " of the result");
    check(out, static_cast<int>(archive_write_data_block(out, data, size, offset)),
          "write " + name);
  }
}

// Owners are the caller's unless it is root; nothing is written outside the folder.
void unpackInto(int tar, const std::string& folder) {
  fs::create_directories(folder);
  const std::unique_ptr<archive, int (*)(archive*)> in(archive_read_new(), &archive_read_free);
  const std::unique_ptr<archive, int (*)(archive*)> out(archive_write_disk_new(),
                                                        &archive_write_free);
  archive_read_support_format_tar(in.get());
  check(in.get(), archive_read_open_fd(in.get(), tar, kStreamChunkBytes), "read the result");
  int flags = ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_SECURE_NODOTDOT |
              ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_UNLINK;
  if (geteuid() == 0) flags |= ARCHIVE_EXTRACT_OWNER;
  archive_write_disk_set_options(out.get(), flags);
  archive_entry* entry = nullptr;
  for (int status; (status = archive_read_next_header(in.get(), &entry)) != ARCHIVE_EOF;) {
    check(in.get(), status, "read the result");
    const mode_t type = archive_entry_filetype(entry);
    const std::string name = archive_entry_pathname(entry);
    if (type == AE_IFCHR || type == AE_IFBLK) {
      fmt::print(stderr, "hull: {}: a device, left out (type=tar keeps it)\n", name);
      continue;
    }
    archive_entry_copy_pathname(entry, (folder + "/" + name).c_str());
    if (const char* link = archive_entry_hardlink(entry))
      archive_entry_copy_hardlink(entry, (folder + "/" + link).c_str());
    check(out.get(), archive_write_header(out.get(), entry), "write " + name);
    copyContents(in.get(), out.get(), name);
  }
  check(out.get(), archive_write_close(out.get()), "finish " + folder);
}

void saveTo(const EngineClient& engine, const std::string& target, const std::string& file) {
  OutputFile out(file == "-" ? "" : file);
  engine.stream("GET", target, nullptr, {},
                [&](std::string_view bytes) { writeFull(out.fd(), bytes); });
  out.finish();
}

}  // namespace

void unpackAnswer(const EngineClient& engine, const std::string& target,
                  const std::string& folder) {
  const Fd tar = spool(engine, target);
  unpackInto(tar.get(), folder);
}

BuildOutput parseOutput(const std::string& text) {
  BuildOutput output;
  if (text == "-") return {BuildOutput::Type::kTar, "-", ""};
  if (text.find('=') == std::string::npos) return {BuildOutput::Type::kLocal, text, ""};
  for (size_t start = 0; start <= text.size();) {
    const size_t comma = std::min(text.find(',', start), text.size());
    const std::string field = text.substr(start, comma - start);
    const size_t equals = std::min(field.find('='), field.size());
    const std::string key = field.substr(0, equals);
    const std::string value = equals < field.size() ? field.substr(equals + 1) : "";
    if (key == "type") {
      using Type = BuildOutput::Type;
      if (value == "image")
        output.type = Type::kImage;
      else if (value == "local")
        output.type = Type::kLocal;
      else if (value == "tar")
        output.type = Type::kTar;
      else if (value == "oci")
        output.type = Type::kOci;
      else if (value == "docker")
        output.type = Type::kDocker;
      else
        throw Exit{125, fmt::format("--output type={}: image, local, tar, oci or docker", value)};
    } else if (key == "dest") {
      output.destination = value;
    } else if (key == "name") {
      output.name = value;
    } else {
      throw Exit{125, fmt::format("--output: unknown key \"{}\" (type, dest, name)", key)};
    }
    start = comma + 1;
  }
  const bool needs = output.type == BuildOutput::Type::kLocal;
  if (needs && output.destination.empty()) throw Exit{125, "--output type=local needs dest=FOLDER"};
  return output;
}

void writeOutput(const EngineClient& engine, const BuildOutput& output, const std::string& image,
                 const std::vector<std::string>& tags) {
  using Type = BuildOutput::Type;
  const std::string rootfs = "/images/" + urlEncode(image) + "/rootfs";
  const std::string file = output.destination.empty() ? "-" : output.destination;
  switch (output.type) {
    case Type::kImage:
      return;
    case Type::kLocal:
      return unpackAnswer(engine, rootfs, output.destination);
    case Type::kTar:
      return saveTo(engine, rootfs, file);
    case Type::kDocker:
      if (output.destination.empty()) return;  // into the engine, where it is
      [[fallthrough]];
    case Type::kOci:
      // One archive is both: an OCI layout with docker's manifest.json beside it.
      return saveTo(engine, "/images/" + urlEncode(tags.empty() ? image : tags.front()) + "/get",
                    file);
  }
}

}  // namespace hull::cli
