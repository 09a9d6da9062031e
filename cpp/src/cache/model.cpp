#include "cache/model.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

std::string describe(ElementType type, std::span<const std::int64_t> shape) {
  std::string text = concat(name_of(type), " [");
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += i == 0 ? "" : ", ";
    text += shape[i] < 0 ? "any" : std::to_string(shape[i]);
  }
  return text + "]";
}

// Dimensions that vary on either side match anything of the same rank.
bool matches(std::span<const std::int64_t> expected, std::span<const std::int64_t> found) {
  return std::equal(expected.begin(), expected.end(), found.begin(), found.end(),
                    [](std::int64_t a, std::int64_t b) { return a < 0 || b < 0 || a == b; });
}

std::size_t find(std::span<const TensorSpec> specs, std::string_view kind, std::string_view name,
                 ElementType type, std::span<const std::int64_t> shape) {
  const auto found = std::find_if(specs.begin(), specs.end(),
                                  [&](const TensorSpec& spec) { return spec.name == name; });
  if (found == specs.end()) {
    throw Error(ErrorCode::bad_package, concat("model.onnx: ", kind, " '", name,
                                               "' is missing; expected ", describe(type, shape)));
  }
  if (found->type != type || !matches(shape, found->shape)) {
    throw Error(ErrorCode::bad_package,
                concat("model.onnx: ", kind, " '", name, "' is ",
                       describe(found->type, found->shape), "; expected ", describe(type, shape)));
  }
  return static_cast<std::size_t>(found - specs.begin());
}

// Memory is kept from run to run.
template <typename T>
void grow(std::vector<T>& values, std::size_t size) {
  if (values.size() < size) values.resize(size);
}

template <typename T>
TensorView view_of(ElementType type, std::vector<T>& data, Shape shape) {
  return {type, shape, data.data()};
}

}  // namespace

Model::Model(PackageInfo package, std::unique_ptr<Session> session)
    : package_(std::move(package)),
      session_(std::move(session)),
      equal_shapes_(session_->likes_equal_shapes()),
      bound_inputs_(session_->inputs().size()),
      bound_outputs_(session_->outputs().size()) {
  constexpr std::int64_t any = -1;
  tensors_.input_ids = find_input("input_ids", ElementType::int64, {any, any});
  tensors_.position_ids = find_input("position_ids", ElementType::int64, {any, any});
  tensors_.attention_mask = find_input("attention_mask", ElementType::boolean, {any, 1, any, any});
  tensors_.logit_indices = find_input("logit_indices", ElementType::int64, {any, any});
  tensors_.present_length = find_input("present_length", ElementType::int64, {1});
  tensors_.token_ids = find_output("token_ids", ElementType::int64, {any, any});
  tensors_.complement = find_output("complement", ElementType::float32, {any, any});
  tensors_.second_confidence = find_output("second_confidence", ElementType::float32, {any, any});
  tensors_.entropy = find_output("entropy", ElementType::float32, {any, any});
  tensors_.logits = find_output("logits", ElementType::float32, {any, any, package_.vocab_size});
  const std::vector<std::int64_t> rows{any, package_.num_kv_heads, any, package_.head_dim};
  for (std::int64_t layer = 0; layer < package_.num_layers; ++layer) {
    for (const std::string_view part : {"key", "value"}) {
      tensors_.past.push_back(
          find_input(concat("past_key_values.", layer, ".", part), package_.cache_type, rows));
      tensors_.present.push_back(
          find_output(concat("present.", layer, ".", part), package_.cache_type, rows));
    }
  }
  const std::size_t expected = 5 + tensors_.past.size();
  if (session_->inputs().size() != expected) {
    throw Error(ErrorCode::bad_package,
                concat("model.onnx: has ", session_->inputs().size(), " inputs; expected ",
                       expected, " for num_layers ", package_.num_layers));
  }
}

std::size_t Model::find_input(std::string_view name, ElementType type,
                              std::vector<std::int64_t> shape) const {
  return find(session_->inputs(), "input", name, type, shape);
}

std::size_t Model::find_output(std::string_view name, ElementType type,
                               std::vector<std::int64_t> shape) const {
  return find(session_->outputs(), "output", name, type, shape);
}

bool Model::can_share(const Feed& a, const Feed& b) noexcept {
  const Pass& p = *a.pass;
  const Pass& q = *b.pass;
  return p.rows.size() > 1 && p.present_length == 0 && q.present_length == 0 &&
         a.cache->batch() == 1 && b.cache->batch() == 1 && p.rows.size() == q.rows.size() &&
         a.cache->length(p.past) == b.cache->length(q.past) &&
         (p.causal_block_length > 0) == (q.causal_block_length > 0) &&
         a.needed.logits == b.needed.logits;
}

void Model::run(std::span<Feed* const> feeds) {
  feeds_.assign(feeds.begin(), feeds.end());
  batch_ = feeds_.size() > 1 ? std::ssize(feeds_) : feeds_[0]->cache->batch();
  // Backends compute a single row by another kernel than one of many, with other roundings.
  logit_rows_ = 2;
  for (const Feed* feed : feeds_) {
    logit_rows_ = std::max<std::int64_t>(logit_rows_, std::ssize(feed->pass->logit_rows));
    // Masks get fewer from step to step; asking for the same rows again keeps the shapes.
    if (equal_shapes_) logit_rows_ = std::max(logit_rows_, feed->logit_rows);
  }
  bind_past();  // sets the order of the feeds
  bind_rows();
  bind_mask();
  bind_logit_rows();
  bind_present();

  const auto start = std::chrono::steady_clock::now();
  session_->run();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (Feed* feed : feeds_) {
    feed->seconds = seconds;
    if (feed->pass->commit) {
      feed->cache->commit(feed->ids.first(static_cast<std::size_t>(feed->pass->present_length)));
    }
  }
  hand_out();
}

void Model::bind_input(std::size_t index, const TensorView& view) {
  if (bound_inputs_[index] == view) return;  // same memory, new content
  session_->bind_input(index, view);
  bound_inputs_[index] = view;
}

void Model::bind_output(std::size_t index, const TensorView& view, bool is_needed) {
  if (!is_needed) {
    if (bound_outputs_[index]) session_->unbind_output(index);
    bound_outputs_[index].reset();
  } else if (bound_outputs_[index] != view) {
    session_->bind_output(index, view);
    bound_outputs_[index] = view;
  }
}

void Model::bind_past() {
  const auto bind = [&](auto view) {
    for (std::size_t i = 0; i < tensors_.past.size(); ++i) {
      bind_input(tensors_.past[i], view(static_cast<std::int64_t>(i)));
    }
  };
  if (feeds_.size() == 1) {
    bind(
        [&](std::int64_t tensor) { return feeds_[0]->cache->view(feeds_[0]->pass->past, tensor); });
    return;
  }
  entries_.clear();
  for (const Feed* feed : feeds_) entries_.push_back({feed->cache, feed->pass->past});
  CacheStack& stack = stack_of(feeds_[0]->cache->length(feeds_[0]->pass->past), batch_);
  const std::span<const std::size_t> order = stack.arrange(entries_);
  unordered_ = feeds_;
  for (std::size_t i = 0; i < feeds_.size(); ++i) {
    feeds_[i] = unordered_[order[i]];
    entries_[i] = {feeds_[i]->cache, feeds_[i]->pass->past};
  }
  stack.gather(entries_);
  bind([&](std::int64_t tensor) { return stack.view(tensor); });
}

std::int64_t Model::stacked_bytes() const noexcept {
  std::int64_t total = 0;
  for (const std::unique_ptr<CacheStack>& stack : stacks_) total += stack->bytes(0);
  return total;
}

void Model::limit_stacks(std::int64_t bytes) noexcept {
  stack_limit_ = bytes;
  while (stacked_bytes() > stack_limit_) stacks_.erase(stacks_.begin());
}

// Requests of several lengths take turns: each length has a stack, as far as the limit allows.
CacheStack& Model::stack_of(std::int64_t length, std::int64_t count) {
  const auto found = std::find_if(stacks_.begin(), stacks_.end(),
                                  [&](const auto& stack) { return stack->length() == length; });
  if (found == stacks_.end()) {
    stacks_.push_back(std::make_unique<CacheStack>(*session_, package_, length));
  } else {
    std::rotate(found, found + 1, stacks_.end());
  }
  const std::int64_t growth = stacks_.back()->bytes(count) - stacks_.back()->bytes(0);
  constexpr std::size_t max_stacks = 16;
  while (stacks_.size() > 1 &&
         (stacks_.size() > max_stacks || stacked_bytes() + growth > stack_limit_)) {
    stacks_.erase(stacks_.begin());
  }
  return *stacks_.back();
}

void Model::bind_rows() {
  const std::size_t rows = feeds_[0]->pass->rows.size();
  grow(input_ids_, static_cast<std::size_t>(batch_) * rows);
  grow(position_ids_, static_cast<std::size_t>(batch_) * rows);
  for (std::size_t b = 0; b < static_cast<std::size_t>(batch_); ++b) {
    const Feed& feed = *feeds_[std::min(b, feeds_.size() - 1)];
    const bool unconditional = feeds_.size() == 1 && b == 1;
    for (std::size_t i = 0; i < rows; ++i) {
      const auto position = static_cast<std::size_t>(feed.pass->rows[i]);
      const bool hidden = unconditional && feed.given[position] != 0;
      position_ids_[b * rows + i] = feed.pass->rows[i];
      input_ids_[b * rows + i] = hidden ? package_.mask_token_id : feed.ids[position];
    }
  }
  const Shape shape{batch_, static_cast<std::int64_t>(rows)};
  bind_input(tensors_.input_ids, view_of(ElementType::int64, input_ids_, shape));
  bind_input(tensors_.position_ids, view_of(ElementType::int64, position_ids_, shape));
}

// Cached rows that a request may see are seen by all its rows: they are of earlier blocks, or of a
// refresh that everything is seen of. Fed rows see each other, or by block.
void Model::bind_mask() {
  const std::int64_t fed = std::ssize(feeds_[0]->pass->rows);
  const std::int64_t cached = feeds_[0]->cache->length(feeds_[0]->pass->past);
  const std::int64_t attended = cached + fed;
  const std::int64_t rows = feeds_[0]->pass->causal_block_length > 0 ? fed : 1;
  mask_.assign(static_cast<std::size_t>(batch_ * rows * attended), 1);
  for (std::int64_t b = 0; b < batch_; ++b) {
    const Feed& feed = *feeds_[std::min(static_cast<std::size_t>(b), feeds_.size() - 1)];
    const std::vector<std::int64_t>& positions = feed.pass->rows;
    const std::int64_t block_length = feed.pass->causal_block_length;
    const std::int64_t visible = feed.cache->visible(feed.pass->past);
    for (std::int64_t i = 0; i < rows; ++i) {
      std::uint8_t* row = mask_.data() + (b * rows + i) * attended;
      std::fill(row + visible, row + cached, std::uint8_t{0});
      if (block_length == 0) continue;
      const std::int64_t block = positions[static_cast<std::size_t>(i)] / block_length;
      for (std::int64_t j = 0; j < fed; ++j) {
        row[cached + j] = positions[static_cast<std::size_t>(j)] / block_length <= block;
      }
    }
  }
  bind_input(tensors_.attention_mask,
             view_of(ElementType::boolean, mask_, {batch_, 1, rows, attended}));
}

void Model::bind_logit_rows() {
  const Shape shape{batch_, logit_rows_};
  const auto count = static_cast<std::size_t>(shape.elements());
  const bool logits = feeds_[0]->needed.logits;
  NeededOutputs needed;
  for (const Feed* feed : feeds_) {
    needed.second_confidence = needed.second_confidence || feed->needed.second_confidence;
    needed.entropy = needed.entropy || feed->needed.entropy;
  }
  grow(logit_indices_, count);
  for (std::size_t b = 0; b < static_cast<std::size_t>(batch_); ++b) {
    const std::vector<std::int64_t>& rows =
        feeds_[std::min(b, feeds_.size() - 1)]->pass->logit_rows;
    const auto own = logit_indices_.begin() + static_cast<std::ptrdiff_t>(b) * logit_rows_;
    std::fill(std::copy(rows.begin(), rows.end(), own), own + logit_rows_, rows.back());
  }
  grow(token_ids_, count);
  grow(complement_, count);
  if (needed.second_confidence) grow(second_confidence_, count);
  if (needed.entropy) grow(entropy_, count);
  if (logits) grow(logits_, count * static_cast<std::size_t>(package_.vocab_size));
  using enum ElementType;
  bind_input(tensors_.logit_indices, view_of(int64, logit_indices_, shape));
  bind_output(tensors_.token_ids, view_of(int64, token_ids_, shape), !logits);
  bind_output(tensors_.complement, view_of(float32, complement_, shape), !logits);
  bind_output(tensors_.second_confidence, view_of(float32, second_confidence_, shape),
              needed.second_confidence && !logits);
  bind_output(tensors_.entropy, view_of(float32, entropy_, shape), needed.entropy && !logits);
  bind_output(tensors_.logits,
              view_of(float32, logits_, {batch_, logit_rows_, package_.vocab_size}), logits);
}

// Only a feed that is alone in its run keeps rows.
void Model::bind_present() {
  BlockCache& cache = *feeds_[0]->cache;
  const Pass& pass = *feeds_[0]->pass;
  present_length_ = pass.present_length;
  bind_input(tensors_.present_length, {ElementType::int64, Shape{1}, &present_length_});
  const bool keeps = pass.present_length > 0;
  if (keeps) cache.refresh(feeds_[0]->cache_rows, pass.present_length, pass.visible_length);
  for (std::size_t i = 0; i < tensors_.present.size(); ++i) {
    bind_output(tensors_.present[i], cache.view(Past::refreshed, static_cast<std::int64_t>(i)),
                keeps);
  }
  // A refresh that keeps nothing leaves nothing, also of what a former request had refreshed.
  for (const Feed* feed : feeds_) {
    if (feed->pass->past == Past::none && !keeps) feed->cache->drop_refreshed();
  }
}

void Model::hand_out() {
  for (std::size_t i = 0; i < feeds_.size(); ++i) {
    Feed& feed = *feeds_[i];
    const auto rows = static_cast<std::size_t>(logit_rows_);
    const std::size_t own = rows * (feeds_.size() > 1 ? 1 : static_cast<std::size_t>(batch_));
    const std::size_t first = i * rows;
    feed.predictions = {};
    feed.predictions.stride = rows;
    if (feed.needed.logits) {
      const auto vocab_size = static_cast<std::size_t>(package_.vocab_size);
      feed.predictions.logits = std::span(logits_).subspan(first * vocab_size, own * vocab_size);
      continue;
    }
    feed.predictions.token_ids = std::span(token_ids_).subspan(first, own);
    feed.predictions.complement = std::span(complement_).subspan(first, own);
    if (feed.needed.second_confidence) {
      feed.predictions.second_confidence = std::span(second_confidence_).subspan(first, own);
    }
    if (feed.needed.entropy) feed.predictions.entropy = std::span(entropy_).subspan(first, own);
  }
}

}  // namespace fastdllm
