#include "model.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "concat.hpp"
#include "fastdllm/error.hpp"

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

template <typename T>
TensorView view_of(ElementType type, std::vector<T>& data, Shape shape) {
  return {type, shape, data.data()};
}

}  // namespace

Model::Model(PackageInfo package, std::unique_ptr<Session> session)
    : package_(std::move(package)), session_(std::move(session)), cache_(*session_, package_) {
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

std::int64_t Model::batch() const noexcept {
  return request_.guided_prompt_length < 0 ? 1 : 2;
}

void Model::begin(const Request& request) {
  if (request.guided_prompt_length >= 0 || request_.guided_prompt_length >= 0) {
    drop_committed(0);  // a guided row's prompt is masked
  }
  request_ = request;
  graph_seconds_ = 0.0;
  const auto rows = static_cast<std::size_t>(batch() * request.canvas_length);
  const auto logit_rows = static_cast<std::size_t>(batch() * request.max_logit_rows);
  const bool logits = request.wanted.logits;
  cache_.set_batch(batch());
  input_ids_.resize(rows);
  position_ids_.resize(rows);
  everything_.assign(rows, 1);
  logit_indices_.resize(logit_rows);
  token_ids_.resize(logit_rows);
  complement_.resize(logit_rows);
  second_confidence_.resize(request.wanted.second_confidence ? logit_rows : 0);
  entropy_.resize(request.wanted.entropy ? logit_rows : 0);
  logits_.resize(logits ? logit_rows * static_cast<std::size_t>(package_.vocab_size) : 0);
  for (const std::size_t output : {tensors_.token_ids, tensors_.complement, tensors_.logits,
                                   tensors_.second_confidence, tensors_.entropy}) {
    session_->unbind_output(output);
  }
  for (const std::size_t output : tensors_.present) session_->unbind_output(output);
  bound_past_ = nullptr;
  present_bound_ = false;
  bound_rows_ = {};
  bound_mask_ = {};
  session_->bind_input(tensors_.present_length, {ElementType::int64, Shape{1}, &present_length_});
}

Predictions Model::run(const Pass& pass, std::span<const std::int32_t> ids) {
  bind_rows(pass, ids);
  bind_logit_rows(pass);
  bind_past(pass);
  bind_present(pass);

  const auto start = std::chrono::steady_clock::now();
  session_->run();
  graph_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (pass.commit) commit(pass, ids);

  const std::size_t count = static_cast<std::size_t>(batch()) * pass.logit_rows.size();
  if (request_.wanted.logits) {
    const auto vocab_size = static_cast<std::size_t>(package_.vocab_size);
    return {{}, {}, {}, {}, std::span(logits_).first(count * vocab_size)};
  }
  const auto rows_of = [&](const std::vector<float>& values) {
    return std::span(values).first(std::min(count, values.size()));
  };
  return {std::span(token_ids_).first(count),
          rows_of(complement_),
          rows_of(second_confidence_),
          rows_of(entropy_),
          {}};
}

std::int64_t Model::past_length(const Pass& pass) const noexcept {
  switch (pass.past) {
    case Past::none: return 0;
    case Past::committed: return cache_.committed_length();
    case Past::refreshed: return cache_.refreshed_length();
  }
  return 0;
}

void Model::bind_rows(const Pass& pass, std::span<const std::int32_t> ids) {
  const std::size_t rows = pass.rows.size();
  const Shape shape{batch(), static_cast<std::int64_t>(rows)};
  for (std::int64_t b = 0; b < batch(); ++b) {
    const std::int64_t masked_before = b == 0 ? 0 : request_.guided_prompt_length;
    std::int64_t* row_ids = input_ids_.data() + static_cast<std::size_t>(b) * rows;
    std::int64_t* row_positions = position_ids_.data() + static_cast<std::size_t>(b) * rows;
    for (std::size_t i = 0; i < rows; ++i) {
      const std::int64_t position = pass.rows[i];
      row_positions[i] = position;
      row_ids[i] = position < masked_before ? package_.mask_token_id
                                            : ids[static_cast<std::size_t>(position)];
    }
  }
  bind_mask(pass, past_length(pass) + shape.dims[1]);
  if (shape == bound_rows_) return;  // same memory, new content
  bound_rows_ = shape;
  session_->bind_input(tensors_.input_ids, view_of(ElementType::int64, input_ids_, shape));
  session_->bind_input(tensors_.position_ids, view_of(ElementType::int64, position_ids_, shape));
}

void Model::bind_mask(const Pass& pass, std::int64_t attended) {
  if (pass.causal_block_length == 0) {
    const Shape shape{batch(), 1, 1, attended};
    if (shape == bound_mask_) return;
    const auto cells = static_cast<std::size_t>(batch() * attended);
    if (cells > everything_.size()) everything_.assign(cells, 1);
    bound_mask_ = shape;
    session_->bind_input(tensors_.attention_mask,
                         view_of(ElementType::boolean, everything_, shape));
    return;
  }
  // Cached rows are of earlier blocks: every row sees them.
  const std::int64_t rows = std::ssize(pass.rows);
  const std::int64_t cached = attended - rows;
  mask_.assign(static_cast<std::size_t>(batch() * rows * attended), 1);
  for (std::int64_t i = 0; i < batch() * rows; ++i) {
    std::uint8_t* fed = mask_.data() + i * attended + cached;
    const std::int64_t block =
        pass.rows[static_cast<std::size_t>(i % rows)] / pass.causal_block_length;
    for (std::int64_t j = 0; j < rows; ++j) {
      fed[j] = pass.rows[static_cast<std::size_t>(j)] / pass.causal_block_length <= block;
    }
  }
  bound_mask_ = {};
  session_->bind_input(tensors_.attention_mask,
                       view_of(ElementType::boolean, mask_, {batch(), 1, rows, attended}));
}

void Model::bind_logit_rows(const Pass& pass) {
  const auto count = static_cast<std::int64_t>(pass.logit_rows.size());
  const Shape shape{batch(), count};
  for (std::int64_t b = 0; b < batch(); ++b) {
    std::copy(pass.logit_rows.begin(), pass.logit_rows.end(), logit_indices_.begin() + b * count);
  }
  session_->bind_input(tensors_.logit_indices, view_of(ElementType::int64, logit_indices_, shape));
  if (request_.wanted.logits) {
    session_->bind_output(tensors_.logits, view_of(ElementType::float32, logits_,
                                                   {batch(), count, package_.vocab_size}));
    return;
  }
  session_->bind_output(tensors_.token_ids, view_of(ElementType::int64, token_ids_, shape));
  session_->bind_output(tensors_.complement, view_of(ElementType::float32, complement_, shape));
  if (request_.wanted.second_confidence) {
    session_->bind_output(tensors_.second_confidence,
                          view_of(ElementType::float32, second_confidence_, shape));
  }
  if (request_.wanted.entropy) {
    session_->bind_output(tensors_.entropy, view_of(ElementType::float32, entropy_, shape));
  }
}

void Model::bind_past(const Pass& pass) {
  const auto view = [&](std::int64_t tensor) {
    switch (pass.past) {
      case Past::none: break;
      case Past::committed: return cache_.committed(tensor);
      case Past::refreshed: return cache_.refreshed(tensor);
    }
    return cache_.nothing();
  };
  const TensorView first = view(0);
  if (first.data == bound_past_ && first.shape == bound_past_shape_) return;
  bound_past_ = first.data;
  bound_past_shape_ = first.shape;
  for (std::size_t i = 0; i < tensors_.past.size(); ++i) {
    session_->bind_input(tensors_.past[i], view(static_cast<std::int64_t>(i)));
  }
}

void Model::bind_present(const Pass& pass) {
  present_length_ = pass.present_length;
  if (pass.present_length > 0) {
    cache_.refresh(request_.cache_rows, pass.present_length);
    for (std::size_t i = 0; i < tensors_.present.size(); ++i) {
      session_->bind_output(tensors_.present[i], cache_.refreshed(static_cast<std::int64_t>(i)));
    }
    present_bound_ = true;
    return;
  }
  if (present_bound_) {
    for (const std::size_t output : tensors_.present) session_->unbind_output(output);
    present_bound_ = false;
  }
  // A refresh that keeps nothing leaves nothing, also of what a former request had refreshed.
  if (pass.past == Past::none) cache_.drop_refreshed();
}

void Model::commit(const Pass& pass, std::span<const std::int32_t> ids) {
  cache_.commit();
  committed_ids_.assign(ids.begin(), ids.begin() + pass.present_length);
}

std::int64_t Model::reusable_rows(std::span<const std::int32_t> ids,
                                  std::int64_t block_length) const noexcept {
  if (block_length != committed_block_length_) return 0;
  const auto differing =
      std::mismatch(committed_ids_.begin(), committed_ids_.end(), ids.begin(), ids.end()).first;
  return (differing - committed_ids_.begin()) / block_length * block_length;
}

void Model::drop_committed(std::int64_t block_length) noexcept {
  cache_.drop_committed();
  committed_ids_.clear();
  committed_block_length_ = block_length;
}

}  // namespace fastdllm
