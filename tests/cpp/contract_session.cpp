#include "contract_session.hpp"

#include <algorithm>
#include <stdexcept>

namespace fastdllm::testing {
namespace {

std::size_t index_of(const std::vector<TensorSpec>& specs, const std::string& name) {
  const auto found = std::find_if(specs.begin(), specs.end(),
                                  [&](const TensorSpec& spec) { return spec.name == name; });
  if (found == specs.end()) throw std::logic_error("no tensor " + name);
  return static_cast<std::size_t>(found - specs.begin());
}

}  // namespace

std::vector<std::int64_t> int64s(const TensorView& view) {
  const auto* data = static_cast<const std::int64_t*>(view.data);
  return {data, data + view.shape.elements()};
}

ContractSession::ContractSession(const PackageInfo& package) : num_layers_(package.num_layers) {
  using enum ElementType;
  input_specs = {{"input_ids", int64, {-1, -1}},
                 {"position_ids", int64, {-1, -1}},
                 {"attention_mask", boolean, {-1, 1, -1, -1}},
                 {"logit_indices", int64, {-1, -1}},
                 {"present_length", int64, {1}}};
  output_specs = {{"token_ids", int64, {-1, -1}},
                  {"complement", float32, {-1, -1}},
                  {"second_confidence", float32, {-1, -1}},
                  {"entropy", float32, {-1, -1}},
                  {"logits", float32, {-1, -1, package.vocab_size}}};
  for (std::int64_t i = 0; i < num_layers_; ++i) {
    for (const char* part : {".key", ".value"}) {
      const std::vector<std::int64_t> shape{-1, package.num_kv_heads, -1, package.head_dim};
      input_specs.push_back(
          {"past_key_values." + std::to_string(i) + part, package.cache_type, shape});
      output_specs.push_back({"present." + std::to_string(i) + part, package.cache_type, shape});
    }
  }
  in_.resize(input_specs.size());
  out_.resize(output_specs.size());
}

const TensorView& ContractSession::input(const std::string& name) const {
  return in_.at(index_of(input_specs, name)).value();
}

const std::optional<TensorView>& ContractSession::output(const std::string& name) const {
  return out_.at(index_of(output_specs, name));
}

}  // namespace fastdllm::testing
