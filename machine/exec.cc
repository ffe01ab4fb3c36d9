#include "machine/exec.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace hull::machine {

namespace {
constexpr size_t kMaxFailureBytes = 4096;
}

std::string encodeExecRequest(const ExecRequest& request) {
  return nlohmann::json{{"arguments", request.arguments},
                        {"environment", request.environment},
                        {"workingDirectory", request.working_directory}}
      .dump();
}

ExecRequest decodeExecRequest(std::string_view text) {
  try {
    const auto json = nlohmann::json::parse(text);
    ExecRequest request;
    request.arguments = json.at("arguments").get<std::vector<std::string>>();
    request.environment = json.value("environment", std::vector<std::string>{});
    request.working_directory = json.value("workingDirectory", "");
    if (request.arguments.empty()) {
      throw Error(ErrorKind::kInvalidArgument, "run in machine: no command");
    }
    return request;
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorKind::kInvalidArgument, std::string("run in machine: ") + error.what());
  }
}

void appendExecMessage(std::string& out, ExecChannel channel, std::string_view payload) {
  const auto size = static_cast<uint32_t>(payload.size());
  out.push_back(static_cast<char>(channel));
  out.append(reinterpret_cast<const char*>(&size), sizeof size);
  out.append(payload);
}

bool ExecParser::feed(std::string_view bytes) {
  while (!bytes.empty()) {
    if (ended_) return false;
    if (header_.size() < kExecHeaderBytes) {
      const size_t take = std::min(kExecHeaderBytes - header_.size(), bytes.size());
      header_.append(bytes.substr(0, take));
      bytes.remove_prefix(take);
      if (header_.size() < kExecHeaderBytes) return true;
      memcpy(&left_, header_.data() + 1, sizeof left_);
    }
    const auto channel = static_cast<ExecChannel>(header_[0]);
    const std::string_view piece = bytes.substr(0, left_);
    bytes.remove_prefix(piece.size());
    left_ -= static_cast<uint32_t>(piece.size());
    if (channel == ExecChannel::kOutput || channel == ExecChannel::kErrors) {
      if (!piece.empty()) piece_(channel, piece);
    } else if (channel == ExecChannel::kExit || channel == ExecChannel::kFailure) {
      if (short_payload_.size() + piece.size() > kMaxFailureBytes) return false;
      short_payload_.append(piece);
    } else {
      return false;
    }
    if (left_ == 0 && !endMessage()) return false;
  }
  return true;
}

bool ExecParser::endMessage() {
  const auto channel = static_cast<ExecChannel>(header_[0]);
  header_.clear();
  if (channel == ExecChannel::kExit) {
    int32_t status = 0;
    if (short_payload_.size() != sizeof status) return false;
    memcpy(&status, short_payload_.data(), sizeof status);
    status_ = status;
    ended_ = true;
  } else if (channel == ExecChannel::kFailure) {
    failure_ = short_payload_.empty() ? "unknown" : short_payload_;
    ended_ = true;
  }
  return true;
}

}  // namespace hull::machine
