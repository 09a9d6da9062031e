#include "answers.hpp"

#include <algorithm>
#include <fastdllm/error.hpp>

#include "commands.hpp"
#include "config_options.hpp"

namespace fastdllm::cli {
namespace {

using nlohmann::ordered_json;

[[noreturn]] void reject(const std::string& message) {
  throw Error(ErrorCode::bad_config, message);
}

/// A text of an infill, or a gap of so many tokens.
struct Part {
  std::string_view text;
  std::int64_t gap = 0;
};

/// Takes "{12}" off the beginning of a text; 0 where there is none.
std::int64_t take_gap(std::string_view& text, std::int64_t most) {
  if (!text.starts_with('{')) return 0;
  const std::size_t end = std::min(text.find_first_not_of("0123456789", 1), text.size());
  if (end < 2 || !text.substr(end).starts_with('}')) return 0;
  const std::int64_t gap = read_integer("a gap of --infill", text.substr(1, end - 1), 1, most);
  text.remove_prefix(end + 1);
  return gap;
}

std::vector<Part> parts_of(std::string_view text, std::int64_t most) {
  std::vector<Part> parts;
  std::size_t length = 0;  // of the text before the next gap
  const auto take_text = [&] {
    if (length > 0) parts.push_back({text.substr(0, length)});
    text.remove_prefix(length);
    length = 0;
  };
  while (length < text.size()) {
    std::string_view rest = text.substr(length);
    const std::int64_t gap = take_gap(rest, most);
    if (gap == 0) {
      ++length;
      continue;
    }
    take_text();
    text = rest;
    parts.push_back({{}, gap});
  }
  take_text();
  return parts;
}

}  // namespace

TextCallback Printer::callback() {
  return [this](const TextEvent& event) {
    print(event.piece);
    printed_ += event.piece.size();
    return true;
  };
}

void Printer::finish(const Completion& completion) const {
  print(completion.text.substr(std::min(printed_, completion.text.size())) + "\n");
}

Infilled infill(LLM& llm, std::string_view text, const std::string* prompt, bool raw,
                const GenerationConfig& config) {
  const PackageInfo& package = llm.engine().package();
  const Tokenizer& tokenizer = llm.codec().tokenizer();
  const std::int32_t mask = package.mask_token_id;
  std::vector<std::int32_t> canvas;
  if (prompt != nullptr) canvas = llm.encode(*prompt, raw);
  const std::size_t start = canvas.size();
  std::vector<std::pair<std::size_t, std::size_t>> gaps;  // from, to in the canvas
  for (const Part& part : parts_of(text, package.max_context_length)) {
    if (part.gap > 0) {
      gaps.emplace_back(canvas.size(), canvas.size() + static_cast<std::size_t>(part.gap));
      canvas.insert(canvas.end(), static_cast<std::size_t>(part.gap), mask);
      continue;
    }
    const std::vector<std::int32_t> ids = tokenizer.encode(part.text);
    canvas.insert(canvas.end(), ids.begin(), ids.end());
  }
  const auto masks = static_cast<std::size_t>(std::count(canvas.begin(), canvas.end(), mask));
  std::size_t open = 0;
  for (const auto& [from, to] : gaps) open += to - from;
  if (masks != open) reject("the text holds the mask token; expected gaps such as {4}");

  const GenerationResult result = wait_or_throw(llm.engine().submit_infill(canvas, config));
  const std::span<const std::int32_t> ids(result.token_ids);
  Infilled answer;
  for (const auto& [from, to] : gaps) {
    answer.filled.push_back(tokenizer.decode(ids.subspan(from, to - from)));
  }
  Completion& completion = answer.completion;
  completion.text = tokenizer.decode(ids.subspan(start));
  completion.token_ids.assign(ids.begin() + static_cast<std::ptrdiff_t>(start), ids.end());
  completion.logprobs.assign(result.logprobs.begin() + static_cast<std::ptrdiff_t>(start),
                             result.logprobs.end());
  completion.finish_reason = result.finish_reason;
  completion.num_passes = result.num_passes;
  completion.prompt_tokens = static_cast<std::int64_t>(canvas.size() - open);
  completion.completion_tokens = static_cast<std::int64_t>(open);
  completion.stats = result.stats;
  return answer;
}

ordered_json to_json(const Completion& completion, const std::vector<std::string>& filled,
                     const GenerationConfig& config) {
  return {{"text", completion.text},
          {"token_ids", completion.token_ids},
          {"logprobs", logs_to_json(completion.logprobs)},
          {"finish_reason", std::string(name_of(completion.finish_reason))},
          {"stop", completion.stop ? ordered_json(*completion.stop) : ordered_json(nullptr)},
          {"num_passes", completion.num_passes},
          {"prompt_tokens", completion.prompt_tokens},
          {"completion_tokens", completion.completion_tokens},
          {"stats", to_json(completion.stats)},
          {"filled", filled},
          {"config", to_json(config)}};
}

ordered_json to_json(const GenerationResult& result, std::size_t prompt_tokens,
                     const GenerationConfig& config) {
  return {{"token_ids", result.token_ids},
          {"logprobs", logs_to_json(result.logprobs)},
          {"finish_reason", std::string(name_of(result.finish_reason))},
          {"num_passes", result.num_passes},
          {"prompt_tokens", prompt_tokens},
          {"stats", to_json(result.stats)},
          {"config", to_json(config)}};
}

}  // namespace fastdllm::cli
