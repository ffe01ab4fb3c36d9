#include "image/build/stage_builder.h"

#include <thread>

#include "base/error.h"

namespace hull::build {

using image::IngestedLayer;
using image::KeepBlob;

IngestedLayer ingestTar(image::LayerStore& layers, KeepBlob keep,
                        const std::function<void(Sink&)>& write) {
  FdPair pipe = makePipe();
  std::exception_ptr failure;
  std::thread writer([&] {
    try {
      FdSink sink(pipe.second.get());
      write(sink);
    } catch (...) {
      failure = std::current_exception();
    }
    pipe.second.reset();
  });
  FdSource source(pipe.first.get());
  std::optional<IngestedLayer> layer;
  std::exception_ptr refused;
  try {
    layer = layers.ingest(source, keep);
  } catch (...) {
    refused = std::current_exception();
  }
  pipe.first.reset();  // a writer that is still at it stops with EPIPE
  writer.join();
  // The writer's failure is the cause of a truncated tar; its EPIPE is the effect of a refused one.
  if (failure && !layer) {
    try {
      std::rethrow_exception(failure);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kUnavailable) throw;
    }
  }
  if (refused) std::rethrow_exception(refused);
  if (failure) std::rethrow_exception(failure);
  return *layer;
}

}  // namespace hull::build
