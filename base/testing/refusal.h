// What work that must be refused says. Test code; any thread.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "base/error.h"

namespace hull {

// The error's text; its kind is checked. "accepted" when there is none.
template <typename Work>
std::string refusal(ErrorKind kind, Work&& work) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return "accepted";
}

template <typename Work>
std::string refusal(Work&& work) {
  return refusal(ErrorKind::kInvalidArgument, std::forward<Work>(work));
}

}  // namespace hull
