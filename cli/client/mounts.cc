#include "cli/client/mounts.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/error.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

[[noreturn]] void invalid(const std::string& text, const std::string& cause) {
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("invalid argument \"{}\" for \"--mount\" flag: {}", text, cause));
}

// One line of CSV (RFC 4180): a quoted field may hold commas.
std::vector<std::string> fieldsOf(const std::string& text) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"' && quoted && i + 1 < text.size() && text[i + 1] == '"') {
      fields.back() += '"';
      ++i;
    } else if (c == '"' && (quoted || fields.back().empty())) {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  if (quoted) invalid(text, "a quote is not closed");
  return fields;
}

class MountParser {
 public:
  MountParser(const std::string& text, const ClientPaths& paths) : text_(text), paths_(paths) {}

  json parse() {
    for (const std::string& field : fieldsOf(text_)) readField(field);
    checkTypes();
    if (!mount_.contains("Target")) invalid(text_, "target is required");
    if (mount_["Type"] == "bind" && mount_.contains("Source")) {
      mount_["Source"] = absoluteSource(mount_["Source"], paths_);
    }
    return mount_;
  }

 private:
  void readField(const std::string& field) {
    const size_t equals = field.find('=');
    std::string key = field.substr(0, equals);
    for (char& c : key) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (equals == std::string::npos) {
      // Flags by themselves are true.
      if (key != "readonly" && key != "ro" && key != "volume-nocopy" &&
          key != "bind-nonrecursive" && key != "bind-create-src") {
        invalid(text_, fmt::format("invalid field '{}' must be a key=value pair", field));
      }
      return set(key, "true", field);
    }
    set(key, field.substr(equals + 1), field);
  }

  bool truth(const std::string& key, const std::string& value) {
    if (value == "true" || value == "1" || value == "t" || value == "T" || value == "TRUE")
      return true;
    if (value == "false" || value == "0" || value == "f" || value == "F" || value == "FALSE")
      return false;
    invalid(text_, fmt::format("invalid value for {}: {}", key, value));
  }

  void set(const std::string& key, const std::string& value, const std::string& field) {
    using Set = std::function<void()>;
    const std::map<std::string, Set> setters{
        {"type", [&] { mount_["Type"] = value; }},
        {"source", [&] { mount_["Source"] = value; }},
        {"src", [&] { mount_["Source"] = value; }},
        {"target", [&] { mount_["Target"] = value; }},
        {"dst", [&] { mount_["Target"] = value; }},
        {"destination", [&] { mount_["Target"] = value; }},
        {"readonly", [&] { mount_["ReadOnly"] = truth(key, value); }},
        {"ro", [&] { mount_["ReadOnly"] = truth(key, value); }},
        {"consistency", [&] { mount_["Consistency"] = value; }},
        {"bind-propagation", [&] { mount_["BindOptions"]["Propagation"] = value; }},
        {"bind-nonrecursive", [&] { mount_["BindOptions"]["NonRecursive"] = truth(key, value); }},
        {"bind-create-src", [&] { mount_["BindOptions"]["CreateMountpoint"] = truth(key, value); }},
        {"bind-recursive", [&] { recursion(value); }},
        {"volume-subpath", [&] { mount_["VolumeOptions"]["Subpath"] = value; }},
        {"volume-nocopy", [&] { mount_["VolumeOptions"]["NoCopy"] = truth(key, value); }},
        {"volume-label", [&] { pair("Labels", value); }},
        {"volume-driver", [&] { mount_["VolumeOptions"]["DriverConfig"]["Name"] = value; }},
        {"volume-opt", [&] { driverOption(value); }},
        {"tmpfs-size",
         [&] { mount_["TmpfsOptions"]["SizeBytes"] = parseSize(value, "tmpfs-size"); }},
        {"tmpfs-mode", [&] { mount_["TmpfsOptions"]["Mode"] = mode(value); }}};
    const auto setter = setters.find(key);
    if (setter == setters.end()) {
      invalid(text_, fmt::format("unexpected key '{}' in '{}'", key, field));
    }
    setter->second();
  }

  void recursion(const std::string& value) {
    json& bind = mount_["BindOptions"];
    if (value == "enabled" || value == "readonly") return;
    if (value == "disabled") {
      bind["NonRecursive"] = true;
    } else if (value == "writable") {
      bind["ReadOnlyNonRecursive"] = true;
    } else {
      invalid(text_, fmt::format("invalid value for bind-recursive: {} (must be enabled, disabled, "
                                 "writable or readonly)",
                                 value));
    }
  }

  void pair(const char* where, const std::string& value) {
    const size_t equals = value.find('=');
    mount_["VolumeOptions"][where][value.substr(0, equals)] =
        equals == std::string::npos ? "" : value.substr(equals + 1);
  }

  void driverOption(const std::string& value) {
    const size_t equals = value.find('=');
    mount_["VolumeOptions"]["DriverConfig"]["Options"][value.substr(0, equals)] =
        equals == std::string::npos ? "" : value.substr(equals + 1);
  }

  int64_t mode(const std::string& value) {
    int64_t number = 0;
    const char* const end = value.data() + value.size();
    const auto [rest, failed] = std::from_chars(value.data(), end, number, 8);
    if (failed != std::errc{} || rest != end) {
      invalid(text_, fmt::format("invalid value for tmpfs-mode: {}", value));
    }
    return number;
  }

  void checkTypes() {
    if (!mount_.contains("Type")) mount_["Type"] = "volume";
    static const std::pair<const char*, const char*> kOwners[] = {
        {"BindOptions", "bind"}, {"VolumeOptions", "volume"}, {"TmpfsOptions", "tmpfs"}};
    for (const auto& [options, owner] : kOwners) {
      if (mount_.contains(options) && mount_["Type"] != owner) {
        invalid(text_, fmt::format("cannot mix '{}-*' options with mount type '{}'", owner,
                                   mount_["Type"].get<std::string>()));
      }
    }
  }

  const std::string& text_;
  const ClientPaths& paths_;
  json mount_ = json::object();
};

}  // namespace

ClientPaths clientPaths() {
  const char* home = getenv("HOME");
  std::error_code failed;
  return {std::filesystem::current_path(failed).string(), home ? home : ""};
}

std::string absoluteSource(const std::string& source, const ClientPaths& paths) {
  namespace fs = std::filesystem;
  if (source == "~" || source.starts_with("~/")) return paths.home + source.substr(1);
  if (!source.starts_with('.')) return source;
  std::string path = (fs::path(paths.working_directory) / source).lexically_normal().string();
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

void addVolumeOption(const std::string& text, const ClientPaths& paths, json& config, json& host) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos) {
    config["Volumes"][text] = json::object();
  } else {
    host["Binds"].push_back(absoluteSource(text.substr(0, colon), paths) + text.substr(colon));
  }
}

json mountOption(const std::string& text, const ClientPaths& paths) {
  return MountParser(text, paths).parse();
}

}  // namespace hull::cli
