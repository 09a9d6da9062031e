// The one table of options. A new option is a field of its struct, a field of the C struct and a
// row here: options by name, their ranges, the C API, Python, both command lines, the server's
// fields and the documentation follow from the row.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "fastdllm/error.hpp"
#include "fastdllm/fastdllm.h"
#include "fastdllm/options.hpp"
#include "support/concat.hpp"

namespace fastdllm {

/// The numbers that an option takes. By default all finite ones.
struct Range {
  double minimum = -std::numeric_limits<double>::infinity();
  double maximum = std::numeric_limits<double>::infinity();
  bool minimum_excluded = false;
  bool maximum_excluded = false;
};

/// As in mathematics: within('(', 0, 1, ']').
constexpr Range within(char opening, double minimum, double maximum, char closing) {
  return {minimum, maximum, opening == '(', closing == ')'};
}
constexpr Range at_least(double minimum) {
  return {.minimum = minimum};
}
constexpr Range more_than(double minimum) {
  return {.minimum = minimum, .minimum_excluded = true};
}

/// An option. `member` and `c_member` are its fields; the second C field of a list is its count.
template <auto member_, auto c_member_, auto c_count_ = nullptr>
struct OptionRow {
  static constexpr auto member = member_;
  static constexpr auto c_member = c_member_;
  static constexpr auto c_count = c_count_;

  std::string_view name;
  std::string_view since;
  std::string_view help;
  Range range{};
  std::span<const std::string_view> choices{};  // of a text; an enum has those of its name_of()
  bool is_rule = false;
  bool is_path = false;       // "" is none
  bool zero_is_none = false;  // 0 in C and C++ says that it is not given
};

namespace option_table_of {

using Config = GenerationConfig;
using CConfig = fastdllm_config;
using CEngine = fastdllm_engine_options;
inline constexpr double max_steps = 1 << 20;  // passes of no effect are counted off
inline constexpr double max_bias = 1e6;  // logits are combined in f32; banned tokens need no more
inline constexpr double max_cfg_scale = 1e6;  // likewise
inline constexpr double max_seed = 0x1p64;    // excluded
inline constexpr std::array<std::string_view, 3> backends{"auto", "onnxruntime", "tensorrt"};

}  // namespace option_table_of

// clang-format off
inline constexpr auto generation_options = [] {
  using namespace option_table_of;
  return std::tuple{
      OptionRow<&Config::max_new_tokens, &CConfig::max_new_tokens>{
          "max_new_tokens", "0.1", "positions to decode", at_least(1)},
      OptionRow<&Config::block_length, &CConfig::block_length>{
          "block_length", "0.1", "positions per block; default: the package's, or 32", at_least(1)},
      OptionRow<&Config::sub_block_length, &CConfig::sub_block_length>{
          "sub_block_length", "0.1",
          "block-causal models: positions of a block that are decoded together; default: the "
          "package's, or the block", at_least(1)},
      OptionRow<&Config::steps, &CConfig::steps>{
          "steps", "0.1",
          "passes over the whole generation, divided among the blocks; default: one token per pass",
          within('[', 1, max_steps, ']'), {}, /*is_rule=*/true},
      OptionRow<&Config::steps_per_block, &CConfig::steps_per_block>{
          "steps_per_block", "0.1",
          "passes over a block, instead of steps; with a threshold a pass commits at least its share",
          within('[', 1, max_steps, ']'), {}, /*is_rule=*/true},
      OptionRow<&Config::eps, &CConfig::eps>{
          "eps", "0.1", "the schedule follows time steps from 1 down to this",
          within('(', 0, 1, ')'), {}, /*is_rule=*/true},
      OptionRow<&Config::threshold, &CConfig::threshold>{
          "threshold", "0.1",
          "commit every position at least this confident; command lines and LLM take 0.9 unless a "
          "schedule or another rule is given", within('(', 0, 1, ']'), {}, /*is_rule=*/true},
      OptionRow<&Config::threshold_decay, &CConfig::threshold_decay>{
          "threshold_decay", "0.1",
          "how much of the threshold is gone when a block is filled; needs a threshold",
          within('[', 0, 1, ']')},
      OptionRow<&Config::factor, &CConfig::factor>{
          "factor", "0.1", "the factor rule of Fast-dLLM; wins over threshold and steps",
          more_than(0), {}, /*is_rule=*/true},
      OptionRow<&Config::frechet, &CConfig::frechet>{
          "frechet", "0.1", "the Frechet profile with this margin; no other rule beside it",
          within('[', 0, 1, ')'), {}, /*is_rule=*/true},
      OptionRow<&Config::entropy_bound, &CConfig::entropy_bound>{
          "entropy_bound", "0.1",
          "commit while the entropies but the largest sum up to at most this (nats); no other rule "
          "beside it", at_least(0), {}, /*is_rule=*/true},
      OptionRow<&Config::cache, &CConfig::cache>{
          "cache", "0.1",
          "which K/V rows a pass reuses: all but the block's (dual), those before the block (prefix), "
          "none, or what suits the package (auto)"},
      OptionRow<&Config::suffix_window, &CConfig::suffix_window>{
          "suffix_window", "0.1",
          "mask tokens behind the block that a pass attends to; default: all", at_least(0)},
      OptionRow<&Config::refresh_interval, &CConfig::refresh_interval>{
          "refresh_interval", "0.1",
          "passes from refresh to refresh inside a block; default: one refresh per block", at_least(1)},
      OptionRow<&Config::deferred_window, &CConfig::deferred_window>{
          "deferred_window", "0.1",
          "no fixed blocks: positions of a window behind the left-most mask", at_least(1)},
      OptionRow<&Config::refresh_tokens, &CConfig::refresh_tokens>{
          "refresh_tokens", "0.1", "committed tokens from refresh to refresh", at_least(1)},
      OptionRow<&Config::remasking, &CConfig::remasking>{
          "remasking", "0.1",
          "what ranks positions; entropy, sequential and origin go by a schedule"},
      OptionRow<&Config::temperature, &CConfig::temperature>{
          "temperature", "0.1", "of sampling; 0 = the best token", at_least(0)},
      OptionRow<&Config::top_p, &CConfig::top_p>{
          "top_p", "0.1", "sample from the smallest set of this probability",
          within('(', 0, 1, ']')},
      OptionRow<&Config::top_k, &CConfig::top_k>{
          "top_k", "0.1", "sample from the k best tokens; 0 = all", at_least(0)},
      OptionRow<&Config::min_p, &CConfig::min_p>{
          "min_p", "0.1", "sample from tokens at least this times as probable as the best",
          within('[', 0, 1, ')')},
      OptionRow<&Config::logit_bias, &CConfig::logit_bias, &CConfig::num_logit_bias>{
          "logit_bias", "0.1", "added to the logits, by token id", within('[', -max_bias, max_bias, ']')},
      OptionRow<&Config::banned_token_ids, &CConfig::banned_token_ids,
                &CConfig::num_banned_token_ids>{
          "banned_token_ids", "0.1", "never proposed", at_least(0)},
      OptionRow<&Config::alg_temp, &CConfig::alg_temp>{
          "alg_temp", "0.1", "temperature of the choice among positions; 0 = the best", at_least(0)},
      OptionRow<&Config::cfg_scale, &CConfig::cfg_scale>{
          "cfg_scale", "0.1", "classifier-free guidance; 0 = off", within('[', 0, max_cfg_scale, ']')},
      OptionRow<&Config::seed, &CConfig::seed>{
          "seed", "0.1", "of the noise: the same seed gives the same text", within('[', 0, max_seed, ')')},
      OptionRow<&Config::editing_threshold, &CConfig::editing_threshold>{
          "editing_threshold", "0.1",
          "overwrite a committed token of the block when another is surer than this",
          within('[', 0, 1, ']')},
      OptionRow<&Config::max_post_steps, &CConfig::max_post_steps>{
          "max_post_steps", "0.1", "passes that edit a block without masks, at most",
          within('[', 0, max_steps, ']')},
      OptionRow<&Config::stop_token_ids, &CConfig::stop_token_ids, &CConfig::num_stop_token_ids>{
          "stop_token_ids", "0.1", "end an answer; default: the package's end-of-text ids", at_least(0)},
      OptionRow<&Config::stop_at, &CConfig::stop_at>{
          "stop_at", "0.1", "an answer that holds a stop token ends with it, or with its block"},
      OptionRow<&Config::ignore_eos, &CConfig::ignore_eos>{
          "ignore_eos", "0.1", "run every block instead of stopping at the end-of-text token"},
  };
}();

inline constexpr auto session_options = [] {
  using namespace option_table_of;
  return std::tuple{
      OptionRow<&SessionOptions::threads, &CEngine::threads>{
          "threads", "0.1", "threads inside one pass; 0 = automatic", within('[', 0, 256, ']')},
      OptionRow<&SessionOptions::onnxruntime_library, &CEngine::onnxruntime_library>{
          .name = "onnxruntime_library", .since = "0.1",
          .help = "path of libonnxruntime; default: FASTDLLM_ONNXRUNTIME, then Python's installed "
                  "wheel, then the loader's search", .is_path = true},
      OptionRow<&SessionOptions::backend, &CEngine::backend>{
          .name = "backend", .since = "0.1",
          .help = "auto is TensorRT on a GPU that there is an engine for, else ONNX Runtime",
          .choices = backends},
      OptionRow<&SessionOptions::device, &CEngine::device>{
          .name = "device", .since = "0.1", .help = "cpu, cuda (the first GPU) or cuda:N"},
      OptionRow<&SessionOptions::tensorrt_engine, &CEngine::tensorrt_engine>{
          .name = "tensorrt_engine", .since = "0.1",
          .help = "path of an engine that fastdllm build-engine made; default: the one for this GPU "
                  "in PACKAGE.engines", .is_path = true},
      OptionRow<&SessionOptions::tensorrt_library, &CEngine::tensorrt_library>{
          .name = "tensorrt_library", .since = "0.1",
          .help = "path of libnvinfer; default: FASTDLLM_TENSORRT, then as ONNX Runtime's",
          .is_path = true},
      OptionRow<&SessionOptions::cudart_library, &CEngine::cudart_library>{
          .name = "cudart_library", .since = "0.1",
          .help = "path of libcudart; default: FASTDLLM_CUDART, then as ONNX Runtime's",
          .is_path = true},
      OptionRow<&SessionOptions::cuda_graph, &CEngine::cuda_graph>{
          .name = "cuda_graph", .since = "0.1",
          .help = "TensorRT: steps whose shapes stay are replayed as a CUDA graph"},
  };
}();

inline constexpr auto engine_options = [] {
  using namespace option_table_of;
  return std::tuple{
      OptionRow<&EngineLimits::max_batch, &CEngine::max_batch>{
          "max_batch", "0.1", "requests that are decoded side by side", at_least(1)},
      OptionRow<&EngineLimits::max_waiting, &CEngine::max_waiting>{
          "max_waiting", "0.1", "requests beyond these that wait for a place; more are refused",
          at_least(0)},
      OptionRow<&EngineLimits::cache_bytes, &CEngine::cache_bytes>{
          .name = "cache_bytes", .since = "0.1",
          .help = "memory of all requests: K/V, and scores where the graph holds them all; default: half "
                  "of the physical memory, or of what is free on the GPU that holds the K/V",
          .range = at_least(0), .zero_is_none = true},
  };
}();
// clang-format on

template <typename Struct>
constexpr const auto& options_of() {
  if constexpr (std::is_same_v<Struct, GenerationConfig>) {
    return generation_options;
  } else if constexpr (std::is_same_v<Struct, SessionOptions>) {
    return session_options;
  } else {
    static_assert(std::is_same_v<Struct, EngineLimits>);
    return engine_options;
  }
}

/// Calls `visit(row)` for each row of a struct.
template <typename Struct, typename Visit>
constexpr void for_each_option(const Visit& visit) {
  std::apply([&](const auto&... rows) { (visit(rows), ...); }, options_of<Struct>());
}

/// Calls `visit(row)` for the row of that name. False: there is none.
template <typename Struct, typename Visit>
constexpr bool visit_option(std::string_view name, const Visit& visit) {
  const auto matches = [&](const auto& row) {
    if (row.name != name) return false;
    visit(row);
    return true;
  };
  return std::apply([&](const auto&... rows) { return (matches(rows) || ...); },
                    options_of<Struct>());
}

/// The type of an option's field.
template <typename Struct, typename Row>
using ValueOf =
    std::remove_cvref_t<decltype(std::declval<Struct&>().*std::remove_cvref_t<Row>::member)>;

template <typename T>
inline constexpr bool is_optional = false;
template <typename T>
inline constexpr bool is_optional<std::optional<T>> = true;

/// All values of an enum that name_of() knows, in their order.
template <typename Enum>
std::vector<Enum> values_of() {
  std::vector<Enum> values;
  for (int i = 0; name_of(static_cast<Enum>(i)) != "unknown"; ++i) {
    values.push_back(static_cast<Enum>(i));
  }
  return values;
}

/// The value of an enum by its name. Errors: Error{bad_config} naming the known names.
template <typename Enum>
Enum parse_choice(std::string_view option, std::string_view name) {
  std::string known;
  for (const Enum value : values_of<Enum>()) {
    if (name == name_of(value)) return value;
    known += concat(known.empty() ? "" : ", ", "'", name_of(value), "'");
  }
  throw Error(ErrorCode::bad_config,
              printable(concat(option, " is '", name, "'; expected one of ", known)));
}

/// The names of a struct's options.
template <typename Struct>
std::vector<std::string_view> names_of() {
  std::vector<std::string_view> names;
  for_each_option<Struct>([&](const auto& row) { names.push_back(row.name); });
  return names;
}

/// "; did you mean NAME?" where a name is near, else "; expected one of " and all names.
[[nodiscard]] std::string meant(std::string_view name, std::span<const std::string_view> names);

/// Errors: Error{bad_config} for a number outside an option's range.
void require_in_range(std::string_view option, const Range& range, std::int64_t value);
void require_in_range(std::string_view option, const Range& range, double value);
/// "a number in (0, 1]", "a finite number >= 0".
[[nodiscard]] std::string number_in(const Range& range);

/// Ranges of all options but lists, whose items generation.cpp checks.
template <typename Struct>
void require_ranges(const Struct& options) {
  for_each_option<Struct>([&](const auto& row) {
    const auto require = [&](const auto& value) {
      using Value = std::remove_cvref_t<decltype(value)>;
      if constexpr (std::is_floating_point_v<Value>) {
        require_in_range(row.name, row.range, value);
      } else if constexpr (std::is_signed_v<Value>) {
        require_in_range(row.name, row.range, static_cast<std::int64_t>(value));
      }
    };
    const auto& value = options.*row.member;
    if constexpr (is_optional<std::remove_cvref_t<decltype(value)>>) {
      if (value) require(*value);
    } else {
      require(value);
    }
  });
}

}  // namespace fastdllm
