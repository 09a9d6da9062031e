#include "text/vocabulary.hpp"

#include <vector>

namespace fastdllm {

Vocabulary::Vocabulary(const JsonReader& model) {
  const JsonReader vocab = model.object("vocab");
  ids_.reserve(vocab.members().size());
  std::vector<bool> taken;
  for (const auto& [token, value] : vocab.members().items()) {
    const auto id = static_cast<std::size_t>(vocab.integer_in(token, value, 0, largest_token_id));
    if (id >= taken.size()) taken.resize(id + 1);
    if (taken[id]) vocab.fail(token, "an id that no other token has", value);
    taken[id] = true;
    ids_.emplace(token, static_cast<std::int32_t>(id));
  }
}

std::optional<std::int32_t> Vocabulary::find(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace fastdllm
