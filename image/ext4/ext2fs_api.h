// libext2fs, without the macro by which its header (from e2fsprogs 1.47.1 on) hides std::clamp.
#pragma once

#include <ext2fs/ext2fs.h>

#undef clamp
