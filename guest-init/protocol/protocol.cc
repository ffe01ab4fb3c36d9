#include "guest-init/protocol/protocol.h"

#include <type_traits>
#include <utility>

#include "base/bytes.h"

namespace hull::guest {

namespace {

// One list of fields per message serves both directions: `Coder` is Encoder or Decoder, and the
// messages are visited through the same template, const or not. Wire order is the order here.

class Encoder {
 public:
  void operator()(const std::string& text) { out.string(text); }
  void operator()(bool value) { out.boolean(value); }
  template <typename T>
  requires std::is_integral_v<T>
  void operator()(T value) { out.number(value); }
  template <typename T>
  requires std::is_enum_v<T>
  void operator()(T value) { out.number(static_cast<std::underlying_type_t<T>>(value)); }
  template <typename T>
  void operator()(const std::vector<T>& list);

  ByteWriter out;
};

class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : in(bytes) {}
  void operator()(std::string& text) { text = in.string(kMaxStringBytes); }
  void operator()(bool& value) { value = in.boolean(); }
  template <typename T>
  requires std::is_integral_v<T>
  void operator()(T& value) { value = in.number<T>(); }
  template <typename T>
  requires std::is_enum_v<T>
  void operator()(T& value) {
    const auto number = in.number<std::underlying_type_t<T>>();
    if (number > lastOf(T{})) return in.fail();
    value = static_cast<T>(number);
  }
  template <typename T>
  void operator()(std::vector<T>& list);

  ByteReader in;

 private:
  static constexpr unsigned lastOf(Mount::Kind) { return unsigned(Mount::Kind::kSocket); }
  static constexpr unsigned lastOf(StepMount::Kind) { return unsigned(StepMount::Kind::kSocket); }
  static constexpr unsigned lastOf(OpenStream::Kind) {
    return unsigned(OpenStream::Kind::kConnection);
  }
  static constexpr unsigned lastOf(FailureCode) { return unsigned(FailureCode::kConflict); }
};

// M is the message, const when encoding.
template <typename M, typename T>
concept Is = std::is_same_v<std::remove_const_t<M>, T>;

template <typename Coder, typename M>
void visitFields(Coder& c, M& m) {
  const auto all = [&c](auto&... field) { (c(field), ...); };
  if constexpr (Is<M, Hello>) {
    all(m.version, m.wall_clock_ns);
  } else if constexpr (Is<M, ConfigureNetwork>) {
    all(m.address, m.prefix_length, m.gateway, m.mtu, m.interface, m.address6, m.prefix_length6,
        m.gateway6);
  } else if constexpr (Is<M, WriteNameFiles>) {
    all(m.hosts, m.resolv_conf);
  } else if constexpr (Is<M, Mount>) {
    all(m.kind, m.source, m.destination, m.options, m.initialise, m.subpath);
  } else if constexpr (Is<M, CreateContainer>) {
    all(m.root_disk, m.writable_disk, m.read_only_root, m.hostname, m.resolv_conf, m.hosts,
        m.mounts, m.shm_bytes, m.masked_paths, m.read_only_paths, m.pids_limit, m.memory_bytes,
        m.sysctls, m.init, m.privileged, m.devices, m.device_rules);
  } else if constexpr (Is<M, DeviceRule>) {
    all(m.type, m.major_number, m.minor_number, m.access);
  } else if constexpr (Is<M, SetLimits>) {
    all(m.pids, m.memory_bytes, m.memory_low_bytes, m.cpu_quota_us, m.cpu_period_us);
  } else if constexpr (Is<M, Rlimit>) {
    all(m.resource, m.soft, m.hard);
  } else if constexpr (Is<M, StartProcess>) {
    all(m.process, m.arguments, m.environment, m.working_directory, m.user, m.additional_groups,
        m.capabilities, m.no_new_privileges, m.rlimits, m.terminal, m.rows, m.columns, m.open_stdin,
        m.mounts, m.seccomp, m.oom_score_adj);
  } else if constexpr (Is<M, StepMount>) {
    all(m.kind, m.source, m.destination, m.read_only, m.file, m.uid, m.gid, m.mode, m.options);
  } else if constexpr (Is<M, SignalProcess>) {
    all(m.process, m.signal, m.whole_container);
  } else if constexpr (Is<M, ResizeTerminal>) {
    all(m.process, m.rows, m.columns);
  } else if constexpr (Is<M, ForgetProcess>) {
    all(m.process);
  } else if constexpr (Is<M, OpenStream>) {
    all(m.process, m.kind, m.offset, m.path);
  } else if constexpr (Is<M, Failure>) {
    all(m.code, m.message);
  } else if constexpr (Is<M, HelloReply>) {
    all(m.version, m.kernel_release);
  } else if constexpr (Is<M, ProcessStarted>) {
    all(m.pid);
  } else if constexpr (Is<M, DiskPart>) {
    all(m.offset, m.length, m.read_only);
  } else if constexpr (Is<M, PrepareSeat>) {
    all(m.host, m.disk, m.parts);
  } else if constexpr (Is<M, SeatPrepared>) {
    all(m.devices);
  } else if constexpr (Is<M, LayerSealed>) {
    all(m.layer);
  } else if constexpr (Is<M, ProcessExited>) {
    all(m.process, m.exit_code, m.out_of_memory);
  } else if constexpr (Is<M, ProcessState>) {
    all(m.process, m.pid, m.running, m.exit_code, m.out_of_memory);
  } else if constexpr (Is<M, ContainerState>) {
    all(m.id, m.processes);
  } else if constexpr (Is<M, StateReply>) {
    all(m.containers);
  } else if constexpr (Is<M, ProcessTable>) {
    all(m.titles, m.rows);
  } else if constexpr (Is<M, Counter>) {
    all(m.name, m.value);
  } else if constexpr (Is<M, NetworkUsage>) {
    all(m.interface, m.rx_bytes, m.rx_packets, m.rx_errors, m.rx_dropped, m.tx_bytes, m.tx_packets,
        m.tx_errors, m.tx_dropped);
  } else if constexpr (Is<M, BlockUsage>) {
    all(m.device, m.read_bytes, m.write_bytes, m.reads, m.writes);
  } else if constexpr (Is<M, Usage>) {
    all(m.cpu_ns, m.cpu_user_ns, m.cpu_system_ns, m.cpu_periods, m.cpu_throttled_periods,
        m.cpu_throttled_ns, m.system_cpu_ns, m.cpus, m.memory_bytes, m.memory_peak_bytes,
        m.memory_limit_bytes, m.memory, m.pids, m.pids_limit, m.networks, m.disks);
  } else {
    static_assert(std::is_empty_v<M>, "a message with fields needs its branch here");
  }
}

// Items of lists are values with an operator of their own, or structures.
template <typename T>
constexpr bool kHasOperator = std::is_same_v<T, std::string>;
template <typename T>
constexpr bool kHasOperator<std::vector<T>> = true;

template <typename T>
void Encoder::operator()(const std::vector<T>& list) {
  out.u32(static_cast<uint32_t>(list.size()));
  for (const T& item : list) {
    if constexpr (kHasOperator<T>) {
      (*this)(item);
    } else {
      visitFields(*this, item);
    }
  }
}

template <typename T>
void Decoder::operator()(std::vector<T>& list) {
  const uint32_t count = in.u32();
  // Every item takes at least four bytes, so a count beyond that is a lie; growing as items come
  // keeps the memory proportional to the input.
  if (count > kMaxListItems || count > in.remaining() / sizeof(uint32_t)) return in.fail();
  for (uint32_t i = 0; i < count && in.ok(); ++i) {
    T& item = list.emplace_back();
    if constexpr (kHasOperator<T>) {
      (*this)(item);
    } else {
      visitFields(*this, item);
    }
  }
}

// Puts an empty message of the type number `index` into `message`.
template <size_t... I>
bool emplaceByIndex(Message& message, size_t index, std::index_sequence<I...>) {
  return ((index == I && (message.emplace<I>(), true)) || ...);
}

}  // namespace

std::string encode(const Frame& frame) {
  Encoder encoder;
  encoder.out.string(frame.container);
  std::visit([&encoder](const auto& message) { visitFields(encoder, message); }, frame.message);
  ByteWriter header;
  header.u32(static_cast<uint32_t>(encoder.out.bytes().size()));
  header.u16(static_cast<uint16_t>(frame.message.index()));
  header.u16(0);
  header.u32(frame.request);
  header.raw(encoder.out.bytes());
  return header.take();
}

std::optional<FrameHeader> decodeHeader(std::string_view bytes) {
  ByteReader in(bytes);
  FrameHeader header;
  header.payload_bytes = in.u32();
  header.type = in.u16();
  const uint16_t zero = in.u16();
  header.request = in.u32();
  if (!in.complete() || zero != 0 || header.payload_bytes > kMaxPayloadBytes ||
      header.payload_bytes < sizeof(uint32_t) || header.type >= std::variant_size_v<Message>) {
    return std::nullopt;
  }
  return header;
}

std::optional<Frame> decodePayload(const FrameHeader& header, std::string_view payload) {
  if (payload.size() != header.payload_bytes) return std::nullopt;
  Frame frame;
  frame.request = header.request;
  if (!emplaceByIndex(frame.message, header.type,
                      std::make_index_sequence<std::variant_size_v<Message>>())) {
    return std::nullopt;
  }
  Decoder decoder(payload);
  frame.container = decoder.in.string(kMaxContainerIdBytes);
  std::visit([&decoder](auto& message) { visitFields(decoder, message); }, frame.message);
  if (!decoder.in.complete()) return std::nullopt;
  return frame;
}

}  // namespace hull::guest
