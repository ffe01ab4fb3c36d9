// Images on their way: pull, push, import, load, save, distribution.
#include <algorithm>

#include "daemon/api/handlers.h"
#include "daemon/api/json_stream.h"
#include "daemon/api/shapes.h"
#include "daemon/engine/image_change.h"
#include "registry/client/tags.h"

namespace hull::engine::api {

namespace {

image::Reference referenceOf(const std::string& name, const std::string& tag) {
  if (tag.empty()) return image::Reference::parse(name);
  // A digest comes in `tag` too.
  return image::Reference::parse(name + (tag.find(':') != std::string::npos ? "@" : ":") + tag);
}

registry::Credentials credentialsOf(Exchange& exchange, Engine& engine) {
  return engine.parts().parse_auth(exchange.request().header("x-registry-auth"));
}

void publish(Engine& engine, const char* action, const std::string& id, const std::string& name) {
  engine.events().publish({"image", action, id, {{"name", name}}, 0});
}

bool isFor(const image::Image& image, const image::Platform& platform) {
  return image.config.platform.os == platform.os &&
         image.config.platform.architecture == platform.architecture;
}

// Pulls one name within a stream that may have others.
void pullOne(JsonStream& stream, Engine& engine, const image::Reference& name,
             const image::Platform& platform, const registry::Credentials& credentials,
             const registry::ClientOptions& options) {
  bool announced = false;
  std::mutex mutex;
  const auto announce = [&] {
    const std::lock_guard lock(mutex);
    if (announced) return;
    announced = true;
    stream.status("Pulling from " + name.repository,
                  name.tag.empty() ? name.digest.text() : name.tag);
  };
  const auto result = engine.parts().pull(engine.images(), name, platform, credentials, options,
                                          [&](const image::LayerProgress& progress) {
                                            announce();
                                            stream.progress(progress);
                                          });
  announce();
  // Made now, so that the first container does not wait for it.
  if (isFor(result.image, {})) engine.images().rootDisk(result.image.config.diff_ids);
  stream.status("Digest: " + result.image.manifest.text());
  stream.status((result.up_to_date ? "Status: Image is up to date for "
                                   : "Status: Downloaded newer image for ") +
                name.familiar());
  if (!isFor(result.image, platform)) {
    stream.status("WARNING: " + name.familiar() + " is for " + result.image.config.platform.text() +
                  ", and its registry has no other: not the requested " + platform.text());
  }
  publish(engine, "pull", name.familiar(), name.familiarName());
}

// Without a tag or a digest, all tags of the repository (Docker API, ImageCreate).
bool meansAllTags(const std::string& name, const std::string& tag) {
  if (!tag.empty() || name.find('@') != std::string::npos) return false;
  return name.find(':', name.rfind('/') + 1) == std::string::npos;
}

void pull(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  const bool all = meansAllTags(query.get("fromImage"), query.get("tag"));
  const auto name = referenceOf(query.get("fromImage"), query.get("tag"));
  const std::string platform_text = query.get("platform");
  const auto platform =
      platform_text.empty() ? image::Platform{} : image::Platform::parse(platform_text);
  const auto credentials = credentialsOf(exchange, engine);
  JsonStream stream(exchange);
  registry::ClientOptions options = engine.options().registry;
  options.cancelled = stream.cancelFunction();
  stream.run([&] {
    if (!all) return pullOne(stream, engine, name, platform, credentials, options);
    for (const std::string& tag : registry::listTags(name, credentials, options)) {
      image::Reference one = name;
      one.tag = tag;
      pullOne(stream, engine, one, platform, credentials, options);
    }
  });
}

// Dockerfile instructions of `changes=`: what import and commit take.
image::RuntimeConfig changedConfig(Exchange& exchange, image::RuntimeConfig config) {
  for (const std::string& change : exchange.request().query.all("changes")) {
    applyChange(change, config);
  }
  return config;
}

void importImage(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  if (query.get("fromSrc") != "-") {
    throw Error(ErrorKind::kNotSupported,
                "import from an address is not supported: download the file and import it");
  }
  image::ImportRequest request;
  if (!query.get("repo").empty()) {
    request.names.push_back(referenceOf(query.get("repo"), query.get("tag")));
  }
  if (!query.get("platform").empty()) {
    request.platform = image::Platform::parse(query.get("platform"));
  }
  request.config = changedConfig(exchange, {});
  request.message = query.get("message", "Imported from -");
  JsonStream stream(exchange);
  stream.run([&] {
    const auto image = engine.parts().import_rootfs(engine.images(), exchange.body(), request);
    publish(engine, "import", image.id.text(),
            request.names.empty() ? "" : request.names[0].familiar());
    stream.status(image.id.text());
  });
}

void createImage(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  if (query.has("fromSrc") && !query.get("fromSrc").empty()) return importImage(exchange, engine);
  if (query.get("fromImage").empty()) {
    throw Error(ErrorKind::kInvalidArgument, "one of fromImage and fromSrc must be given");
  }
  pull(exchange, engine);
}

// The tags that a push of a name without one sends: all there are.
std::vector<image::Reference> tagsOf(Engine& engine, const image::Reference& name) {
  std::vector<image::Reference> names;
  for (const auto& image : engine.images().list()) {
    for (const auto& tag : image.tags) {
      if (tag.name() == name.name()) names.push_back(tag);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

void pushOne(JsonStream& stream, Engine& engine, const image::Reference& name,
             const registry::Credentials& credentials, const registry::ClientOptions& options) {
  const auto result =
      engine.parts().push(engine.images(), name, credentials, options,
                          [&](const image::LayerProgress& p) { stream.progress(p); });
  stream.status(name.tag + ": digest: " + result.manifest.text() +
                " size: " + std::to_string(result.manifest_bytes));
  stream.line(
      {{"progressDetail", Json::object()},
       {"aux",
        {{"Tag", name.tag}, {"Digest", result.manifest.text()}, {"Size", result.manifest_bytes}}}});
  publish(engine, "push", name.familiar(), name.familiarName());
}

void push(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  const bool all = meansAllTags(exchange.parameter(0), query.get("tag"));
  const auto name = referenceOf(exchange.parameter(0), query.get("tag"));
  if (!name.digest.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                "cannot push a digest reference: tag the image, and push the tag");
  }
  const auto credentials = credentialsOf(exchange, engine);
  std::vector<image::Reference> names{name};
  if (all) names = tagsOf(engine, name);
  if (names.empty() || (!all && !engine.images().find(name.text()))) {
    throw Error(ErrorKind::kNotFound,
                "An image does not exist locally with the tag: " + name.familiarName());
  }
  JsonStream stream(exchange);
  registry::ClientOptions options = engine.options().registry;
  options.cancelled = stream.cancelFunction();
  stream.run([&] {
    stream.status("The push refers to repository [" + name.name() + "]");
    for (const auto& one : names) pushOne(stream, engine, one, credentials, options);
  });
}

void load(Exchange& exchange, Engine& engine) {
  const bool quiet = exchange.request().query.flag("quiet");
  JsonStream stream(exchange);
  stream.run([&] {
    const auto images =
        engine.parts().load(engine.images(), exchange.body(), [&](const image::LayerProgress& p) {
          if (!quiet) stream.progress(p);
        });
    for (const auto& image : images) {
      publish(engine, "load", image.id.text(), image.id.text());
      if (image.tags.empty()) {
        stream.line({{"stream", "Loaded image ID: " + image.id.text() + "\n"}});
      }
      for (const auto& name : image.tags) {
        stream.line({{"stream", "Loaded image: " + name.familiar() + "\n"}});
      }
    }
  });
}

// The answer begins with the first bytes of the archive: a missing image is a plain 404.
class LateSink final : public Sink {
 public:
  explicit LateSink(Exchange& exchange) : exchange_(exchange) {}
  using Sink::write;
  void write(std::span<const std::byte> bytes) override {
    if (!out_) out_ = &exchange_.stream(200, "application/x-tar", {});
    out_->write(bytes);
  }

 private:
  Exchange& exchange_;
  Sink* out_ = nullptr;
};

void save(Exchange& exchange, Engine& engine, const std::vector<std::string>& names) {
  if (names.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "no image named: field names is empty");
  }
  LateSink out(exchange);
  engine.parts().save(engine.images(), names, out);
  for (const auto& name : names) {
    // A name without a tag may have meant all its tags, and none of them "latest".
    if (const auto image = engine.images().find(name)) {
      publish(engine, "save", image->id.text(), name);
    }
  }
}

void distribution(Exchange& exchange, Engine& engine) {
  const auto name = image::Reference::parse(exchange.parameter(0));
  const auto found =
      engine.parts().resolve(name, credentialsOf(exchange, engine), engine.options().registry);
  Json platforms = Json::array();
  if (found.platform) {
    platforms.push_back(
        {{"os", found.platform->os}, {"architecture", found.platform->architecture}});
  }
  exchange.json(200, dump({{"Descriptor",
                            {{"mediaType", found.media_type},
                             {"digest", found.digest.text()},
                             {"size", found.size}}},
                           {"Platforms", platforms}}));
}

}  // namespace

void addTransferRoutes(Router& router, Engine& engine) {
  router.add("POST", "/images/create", [&](Exchange& e) { createImage(e, engine); });
  router.add("POST", "/images/load", [&](Exchange& e) { load(e, engine); });
  router.add("GET", "/images/get",
             [&](Exchange& e) { save(e, engine, e.request().query.all("names")); });
  router.add("GET", "/images/{name*}/get", [&](Exchange& e) { save(e, engine, {e.parameter(0)}); });
  router.add("POST", "/images/{name*}/push", [&](Exchange& e) { push(e, engine); });
  router.add("GET", "/distribution/{name*}/json", [&](Exchange& e) { distribution(e, engine); });
}

}  // namespace hull::engine::api
