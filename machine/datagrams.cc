#include "machine/datagrams.h"

#include "base/error.h"
#include "machine/address.h"

namespace hull::machine {

namespace {

constexpr size_t kLengthBytes = 2;

// One end. The mux holds it as long as the stream lives, its owner as long as it wants answers.
class DatagramStream final : public StreamEvents {
 public:
  DatagramStream(Mux& mux, uint32_t stream) : mux_(mux), stream_(stream) {}
  void deliverTo(UdpRelay::Answer deliver) { deliver_ = std::move(deliver); }
  void setStream(uint32_t stream) { stream_ = stream; }
  // To be destroyed when the stream ends, and not before.
  void keep(std::unique_ptr<UdpRelay::Conversation> target) { target_ = std::move(target); }
  UdpRelay::Conversation& target() { return *target_; }

  bool send(std::string_view datagram) {
    if (stream_ == 0) return false;
    if (datagram.size() > kMaxDatagramBytes ||
        mux_.room(stream_) < kLengthBytes + datagram.size()) {
      return true;  // lost
    }
    std::string framed{static_cast<char>(datagram.size() & 0xff),
                       static_cast<char>(datagram.size() >> 8)};
    framed += datagram;
    mux_.send(stream_, framed);
    return true;
  }
  void close() {
    if (stream_ != 0) mux_.close(std::exchange(stream_, 0));
    end();
  }

  void onData(std::string_view bytes) override {
    mux_.consumed(stream_, bytes.size());
    pending_ += bytes;
    size_t begin = 0;
    while (pending_.size() - begin >= kLengthBytes) {
      const size_t size = static_cast<unsigned char>(pending_[begin]) |
                          static_cast<size_t>(static_cast<unsigned char>(pending_[begin + 1])) << 8;
      if (pending_.size() - begin - kLengthBytes < size) break;
      if (deliver_) deliver_(std::string_view(pending_).substr(begin + kLengthBytes, size));
      begin += kLengthBytes + size;
    }
    pending_.erase(0, begin);  // less than one datagram stays
  }
  void onFin() override { close(); }
  void onClosed(bool) override {
    stream_ = 0;
    end();
  }
  void onWritable() override {}

 private:
  void end() {
    deliver_ = nullptr;
    target_.reset();
  }

  Mux& mux_;
  uint32_t stream_;
  UdpRelay::Answer deliver_;
  std::unique_ptr<UdpRelay::Conversation> target_;
  std::string pending_;
};

class StreamConversation final : public UdpRelay::Conversation {
 public:
  explicit StreamConversation(std::shared_ptr<DatagramStream> stream)
      : stream_(std::move(stream)) {}
  ~StreamConversation() override { stream_->close(); }
  bool send(std::string_view datagram) override { return stream_->send(datagram); }

 private:
  const std::shared_ptr<DatagramStream> stream_;
};

}  // namespace

std::unique_ptr<UdpRelay::Conversation> converseOver(Mux& mux, const std::string& target,
                                                     UdpRelay::Answer answer) {
  if (mux.streams() >= kMaxStreams - kStreamsKeptFromDatagrams) return nullptr;
  const auto stream = std::make_shared<DatagramStream>(mux, 0);
  stream->deliverTo(std::move(answer));
  const uint32_t id = mux.open(target, stream);
  if (id == 0) return nullptr;
  stream->setStream(id);
  return std::make_unique<StreamConversation>(stream);
}

std::shared_ptr<StreamEvents> serveDatagrams(EventLoop& loop, Mux& mux, uint32_t stream,
                                             std::string_view target) {
  const auto served = std::make_shared<DatagramStream>(mux, stream);
  auto conversation =
      converseWith(loop, parseTarget(target),
                   [raw = served.get()](std::string_view datagram) { raw->send(datagram); });
  if (!conversation) throw Error(ErrorKind::kUnavailable, "connect to " + std::string(target));
  served->keep(std::move(conversation));
  served->deliverTo(
      [raw = served.get()](std::string_view datagram) { raw->target().send(datagram); });
  return served;
}

}  // namespace hull::machine
