#include "device.hpp"

#include <charconv>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {

Device parse_device(const std::string& name) {
  if (name == "cpu") return {};
  if (name == "cuda") return {.cuda = true};
  constexpr std::string_view prefix = "cuda:";
  constexpr int most = 1023;
  if (name.starts_with(prefix)) {
    int index = -1;
    const char* end = name.data() + name.size();
    const auto [stop, problem] = std::from_chars(name.data() + prefix.size(), end, index);
    if (problem == std::errc() && stop == end && index >= 0 && index <= most) {
      return {.cuda = true, .index = index};
    }
  }
  throw Error(ErrorCode::bad_config,
              concat("device is '", name, "'; expected cpu, cuda or cuda:N"));
}

}  // namespace fastdllm
