#include "json_mutator.hpp"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>
#include <vector>

#include "libfuzzer.hpp"

namespace fastdllm::fuzzing {
namespace {

using nlohmann::json;

// Writing a document calls itself for each level.
constexpr int deepest = 64;

bool is_shallow(std::string_view text) {
  int depth = 0;
  int most = 0;
  for (const char c : text) {
    if (c == '[' || c == '{') most = std::max(most, ++depth);
    if (c == ']' || c == '}') --depth;
  }
  return most <= deepest;
}

std::string mutate_bytes(std::string_view text, std::size_t most) {
  std::string data(std::max(most, text.size()), '\0');
  std::memcpy(data.data(), text.data(), text.size());
  auto* bytes = reinterpret_cast<std::uint8_t*>(data.data());
  data.resize(LLVMFuzzerMutate(bytes, text.size(), most));
  return data;
}

class Mutator {
 public:
  Mutator(json& document, std::uint32_t seed) : document_(document), random_(seed) {}

  void mutate() {
    nodes_.clear();
    collect(document_);
    json& node = any();
    switch (below(6)) {
      case 0: node = json(interesting()); break;
      case 1: node = json(any()); break;
      case 2: remove_from(node); break;
      case 3: add_to(node); break;
      case 4: rename_in(node); break;
      default: change(node); break;
    }
  }

 private:
  std::size_t below(std::size_t limit) { return random_() % limit; }
  json& any() { return *nodes_[below(nodes_.size())]; }

  void collect(json& node) {
    nodes_.push_back(&node);
    if (node.is_structured()) {
      for (json& child : node) collect(child);
    }
  }

  json interesting() {
    const json values[] = {nullptr,
                           true,
                           false,
                           0,
                           -1,
                           1,
                           2,
                           511,
                           65536,
                           INT32_MAX,
                           2147483648U,
                           INT64_MAX,
                           INT64_MIN,
                           UINT64_MAX,
                           1.5,
                           1e308,
                           "",
                           "a",
                           "../a",
                           std::string(1, '\0'),
                           std::string(300, 'x'),
                           json::array(),
                           json::object(),
                           json::array({1, 2}),
                           json::object({{"type", "x"}})};
    return values[below(std::size(values))];
  }

  std::string any_key() {
    const json& node = any();
    if (!node.is_object() || node.empty()) return "key";
    return std::next(node.begin(), static_cast<std::ptrdiff_t>(below(node.size()))).key();
  }

  void remove_from(json& node) {
    if (!node.is_structured() || node.empty()) return;
    const auto at = static_cast<std::ptrdiff_t>(below(node.size()));
    node.erase(std::next(node.begin(), at));
  }

  void add_to(json& node) {
    json value = below(2) == 0 ? interesting() : json(any());
    if (node.is_object()) node[any_key()] = std::move(value);
    if (node.is_array()) node.push_back(std::move(value));
  }

  void rename_in(json& node) {
    if (!node.is_object() || node.empty()) return;
    const auto at = std::next(node.begin(), static_cast<std::ptrdiff_t>(below(node.size())));
    const std::string key = any_key();
    json value = std::move(*at);
    node.erase(at);
    node[key] = std::move(value);
  }

  void change(json& node) {
    if (node.is_string()) {
      const std::string text = node.get<std::string>();
      node = mutate_bytes(text, text.size() + 8);
    } else if (node.is_number_unsigned()) {
      node = node.get<std::uint64_t>() + (below(2) == 0 ? 1U : ~std::uint64_t{0});
    } else if (node.is_number_float()) {
      node = node.get<double>() * 2.0;
    } else {
      node = json(interesting());
    }
  }

  json& document_;
  std::mt19937 random_;
  std::vector<json*> nodes_;
};

}  // namespace

std::string mutate_json(std::string_view text, std::size_t most, std::uint32_t seed) {
  if (seed % 8 == 0 || !is_shallow(text)) return mutate_bytes(text, most);
  json document = json::parse(text, nullptr, false);
  if (document.is_discarded()) return mutate_bytes(text, most);
  Mutator mutator(document, seed);
  for (std::uint32_t i = 0; i <= seed / 8 % 3; ++i) mutator.mutate();
  std::string changed = document.dump(-1, ' ', false, json::error_handler_t::replace);
  return changed.size() <= most ? changed : mutate_bytes(text, most);
}

}  // namespace fastdllm::fuzzing
