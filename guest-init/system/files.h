// The few file operations hull-init and its children share, without std::filesystem (which would
// double the program). All throw hull::Error naming the path. Any process of the guest side.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "base/fd.h"

namespace hull::guest {

// At most `limit` bytes of a regular file; empty when it does not exist. Never blocks on a FIFO.
std::string readSmallFile(const std::string& path, size_t limit);
// Creates the file when it is missing.
void writeSmallFile(const std::string& path, std::string_view contents, mode_t mode = 0644);
// As writeSmallFile for files of proc, sysfs and cgroups, which exist or the kernel lacks them.
bool writeControl(const std::string& path, std::string_view contents);

void makeDirectory(const std::string& path, mode_t mode = 0755);  // existing is fine
// With parents; symlinks are followed. Throws kInvalidArgument when a parent is not a directory.
void makeDirectoryPath(const std::string& path, mode_t mode = 0755);
bool isDirectory(const std::string& path);
bool exists(const std::string& path);  // the name itself, symlinks not followed

// Owner, mode, times and extended attributes; overlay's own attributes are left out.
void copyAttributes(int from, int to);

// Removes `path` with everything below it; what is not there is fine. Does not follow symlinks.
void removeTree(int directory, const std::string& name);

}  // namespace hull::guest
