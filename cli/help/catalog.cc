#include "cli/help/catalog.h"

#include <algorithm>

#include "cli/help/formatter.h"

namespace hull::cli {

const std::vector<VerbHelp>& verbCatalog() {
  static const std::vector<VerbHelp> kCatalog{
      {"run",
       kCommonGroup,
       {{"hull run --rm debian uname -a", "run a command and remove the container"},
        {"hull run -it debian bash", "a shell"},
        {"hull run -d --name web -p 8080:80 --restart unless-stopped nginx", "a service"},
        {"hull run -m 256m --cpus 1.5 --pids-limit 100 debian make", "with limits"}}},
      {"exec",
       kCommonGroup,
       {{"hull exec -it web sh", "a shell in a running container"},
        {"hull exec -u app -w /srv -e DEBUG=1 web ./task", "as another user, elsewhere"}}},
      {"ps",
       kCommonGroup,
       {{"hull ps -a --filter status=exited", "what has ended"},
        {"hull ps --format '{{.Names}}\\t{{.Status}}'", "chosen columns"},
        {"hull ps -q --filter label=app=web", "ids for a script"}}},
      {"build",
       kCommonGroup,
       {{"hull build -t app .", "build the folder's Dockerfile"},
        {"hull build -t app --target test --build-arg V=1 .", "one stage, with an argument"}}},
      {"pull", kCommonGroup, {{"hull pull debian:12", "fetch an image"}}},
      {"push",
       kCommonGroup,
       {{"hull tag app registry.example.com/app:1 && hull push registry.example.com/app:1",
         "send an image to a registry"}}},
      {"images",
       kCommonGroup,
       {{"hull images --filter dangling=true -q", "images without a name"}}},
      {"login",
       kCommonGroup,
       {{"hull login -u me --password-stdin registry.example.com < token", "from a file"}}},
      {"logout", kCommonGroup, {}},
      {"version", kCommonGroup, {}},
      {"info", kCommonGroup, {{"hull info --format '{{.ServerVersion}}'", "one value"}}},

      {"create",
       kContainerGroup,
       {{"hull create --name job debian ./task && hull cp data job:/data && hull start -a job",
         "fill it before it starts"}}},
      {"start", kContainerGroup, {{"hull start -ai job", "with its terminal"}}},
      {"stop", kContainerGroup, {{"hull stop -t 30 web", "30 seconds before it is killed"}}},
      {"restart", kContainerGroup, {}},
      {"kill", kContainerGroup, {{"hull kill -s HUP web", "send a signal"}}},
      {"pause", kContainerGroup, {}},
      {"unpause", kContainerGroup, {}},
      {"rm", kContainerGroup, {{"hull rm -f $(hull ps -aq)", "everything there is"}}},
      {"logs",
       kContainerGroup,
       {{"hull logs -f --since 10m web", "the last ten minutes, and on"},
        {"hull logs -n 20 -t web", "twenty lines with their times"}}},
      {"attach",
       kContainerGroup,
       {{"hull attach --detach-keys ctrl-x web", "other keys to leave"}}},
      {"wait", kContainerGroup, {}},
      {"cp",
       kContainerGroup,
       {{"hull cp web:/etc/nginx ./nginx", "out of it"},
        {"hull cp page.html web:/usr/share/nginx/html/", "into it"}}},
      {"top", kContainerGroup, {}},
      {"stats", kContainerGroup, {{"hull stats --no-stream", "once"}}},
      {"port", kContainerGroup, {{"hull port web 80", "where port 80 is published"}}},
      {"rename", kContainerGroup, {}},
      {"update",
       kContainerGroup,
       {{"hull update -m 256m --restart always web", "other limits, while it runs"}}},
      {"diff", kContainerGroup, {{"hull diff web", "what it changed in its image"}}},
      {"commit",
       kContainerGroup,
       {{"hull commit -c 'CMD [\"sh\"]' web snapshot:1", "an image of its files"}}},
      {"export", kContainerGroup, {{"hull export -o root.tar web", "its whole file system"}}},

      {"rmi", kImageGroup, {}},
      {"tag", kImageGroup, {}},
      {"history", kImageGroup, {}},
      {"save", kImageGroup, {{"hull save -o app.tar app:1", "into an archive"}}},
      {"load", kImageGroup, {{"hull load -i app.tar", "out of one"}}},
      {"import", kImageGroup, {{"hull import rootfs.tar base:1", "an image of a root folder"}}},
      {"inspect",
       kImageGroup,
       {{"hull inspect -f '{{.State.Status}}' web", "one value"},
        {"hull inspect -f '{{json .Config.Env}}' debian", "a part as JSON"}}},

      {"container", kManageGroup, {}},
      {"image", kManageGroup, {}},
      {"network", kManageGroup, {}},
      {"volume",
       kManageGroup,
       {{"hull volume create data", "files that outlive containers: hull run -v data:/data …"},
        {"hull volume create -d disk -o size=20g db", "a disk of its own, for a database"}}},
      {"builder", kManageGroup, {}},
      {"buildx", kManageGroup, {}},
      {"registry", kManageGroup, {}},
      {"system",
       kManageGroup,
       {{"hull system df", "what takes disk space"},
        {"hull system prune -a", "remove what nothing uses"}}},
      {"events",
       kManageGroup,
       {{"hull events --filter type=container --filter event=die", "as containers end"},
        {"hull events --since 1h --until 0s --format json", "of the last hour"}}},
      {"context",
       kManageGroup,
       {{"hull context create lab --host ssh://root@lab", "name another engine"},
        {"hull context use lab", "talk to it from now on"}}},
      {"network",
       kManageGroup,
       {{"hull network create app", "containers on it find each other by name"},
        {"hull network connect app web", "also while it runs"}}},
      {"machine", kManageGroup, {{"hull machine status", "whether the emulated host runs"}}},
      {"doctor", kManageGroup, {{"hull doctor", "what this host can do"}}},
      {"completion",
       kManageGroup,
       {{"source <(hull completion bash)", "in this shell"},
        {"hull completion fish > ~/.config/fish/completions/hull.fish", "for good"}}},
  };
  return kCatalog;
}

const VerbHelp* findVerb(std::string_view verb) {
  const auto& catalog = verbCatalog();
  const auto found = std::find_if(catalog.begin(), catalog.end(),
                                  [&](const VerbHelp& one) { return one.verb == verb; });
  return found == catalog.end() ? nullptr : &*found;
}

std::string verbOf(const CLI::App* command) {
  std::string verb;
  for (; command->get_parent(); command = command->get_parent()) {
    verb = command->get_name() + (verb.empty() ? "" : " ") + verb;
  }
  return verb;
}

namespace {
void useFormatter(CLI::App& app, const std::shared_ptr<HelpFormatter>& formatter) {
  app.formatter(formatter);
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    useFormatter(*command, formatter);
  }
}
}  // namespace

void applyHelp(CLI::App& app) {
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (command->get_group().empty()) continue;  // hidden
    const VerbHelp* help = findVerb(command->get_name());
    command->group(std::string(help ? help->group : kManageGroup));
  }
  useFormatter(app, std::make_shared<HelpFormatter>());
}

}  // namespace hull::cli
