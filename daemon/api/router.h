// Which handler answers a request: a table of method and path pattern, tried in order, below an
// optional "/v1.NN". And how an error becomes an answer, in one table. Built once, then read by any
// thread.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "daemon/api/http.h"

namespace hull::engine::api {

int httpStatusOf(ErrorKind kind);
// {"message":"…"}
std::string errorBody(std::string_view message);

class Router {
 public:
  // Pattern segments: text, "{name}" for one segment, "{name*}" for one or more (image names).
  // "GET" answers HEAD too.
  void add(std::string method, std::string_view pattern, Handler handler);

  // Sets the request's path parameters and version and calls the handler. Whatever leaves the
  // handler becomes an error answer, unless the answer has begun: then it is only logged.
  void dispatch(Exchange& exchange) const;
  // Told of every answer's status and time; set before the first dispatch.
  using Answered = std::function<void(int status, std::chrono::nanoseconds took)>;
  void onAnswered(Answered answered) { answered_ = std::move(answered); }

 private:
  struct Route {
    std::string method;
    std::vector<std::string> segments;
    Handler handler;
  };
  const Route* find(Request& request) const;
  void answer(Exchange& exchange) const;

  std::vector<Route> routes_;
  Answered answered_;
};

}  // namespace hull::engine::api
