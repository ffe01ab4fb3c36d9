#!/usr/bin/env python3
"""Who may include whom (docs/architecture.md, "Layers"): fails naming each line that breaks it."""
import pathlib
import re
import sys

# A file may include its own part and what is listed; the longest matching prefix decides.
ALLOWED = {
    "base": ["base"],
    "vmm/config": ["base", "vmm/config"],
    "vmm": ["base", "vmm"],
    "guest-init": ["base", "guest-init", "vmm/config"],
    "image/types": ["base", "image/types"],
    "image/layer": ["base", "image/types", "image/layer"],
    "image/ext4": ["base", "image/types", "image/layer", "image/ext4"],
    "image/build": ["base", "image"],
    "image/store": ["base", "image/types", "image/layer", "image/ext4", "image/store"],
    "image/archive": ["base", "image/types", "image/layer", "image/ext4", "image/store", "image/archive"],
    "registry/http": ["base", "registry/http"],
    "registry/client": ["base", "image/types", "image/store", "registry/http", "registry/client"],
    "registry/server": ["base", "image/types", "image/store", "registry/http", "registry/client/session.h",
                        "registry/client/transfer.h", "registry/client/blob_reader.h", "registry/server"],
    "machine": ["base", "machine"],
    "daemon/vm": ["base", "image", "guest-init/protocol", "vmm/config", "daemon/vm", "daemon/network"],
    "daemon/network": ["base", "daemon/network"],
    "daemon": ["base", "image", "registry/client", "registry/http", "guest-init/protocol", "vmm/config",
               "machine/detect.h", "daemon"],
    "cli": ["base", "image/types", "image/build/dockerignore.h", "image/build/lean_tar.h", "machine", "cli"],
    "tests": [""],
}
PARTS = ("base", "vmm", "guest-init", "image", "registry", "machine", "daemon", "cli", "tests")
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')


def rule_for(path):
    best = max((p for p in ALLOWED if path == p or path.startswith(p + "/")), key=len, default=None)
    return ALLOWED[best]


def allowed(target, prefixes):
    return any(p == "" or target == p or target.startswith(p + "/") for p in prefixes)


def main(root):
    root = pathlib.Path(root)
    broken, checked = [], 0
    for part in PARTS:
        for file in sorted((root / part).rglob("*")):
            if file.suffix not in (".h", ".cc"):
                continue
            path = file.relative_to(root).as_posix()
            checked += 1
            for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
                match = INCLUDE.match(line)
                if match and not allowed(match.group(1), rule_for(path)):
                    broken.append(f"{path}:{number}: may not include {match.group(1)}")
    print("\n".join(broken) if broken else f"{checked} files keep to the layers")
    return 1 if broken or not checked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
