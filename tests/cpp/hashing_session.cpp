#include "hashing_session.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace fastdllm::testing {
namespace {

// The finalizer of splitmix64.
std::uint64_t mix(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15U;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

// Below 2^20, so that it is exact as a float with a part added.
std::int64_t row_of(std::int64_t position, std::int64_t id) {
  return static_cast<std::int64_t>(mix(static_cast<std::uint64_t>(position << 20 | id)) >> 44);
}

class CountedMemory final : public HeapMemory {
 public:
  CountedMemory(std::size_t bytes, std::shared_ptr<CacheBytes> counter)
      : HeapMemory(bytes), bytes_(static_cast<std::int64_t>(bytes)), counter_(std::move(counter)) {
    counter_->add(bytes_);
  }
  ~CountedMemory() override { counter_->add(-bytes_); }

 private:
  std::int64_t bytes_;
  std::shared_ptr<CacheBytes> counter_;
};

}  // namespace

HashingSession::HashingSession(const PackageInfo& package)
    : ContractSession(package),
      vocab_size_(package.vocab_size),
      mask_token_id_(package.mask_token_id),
      weights_(static_cast<std::size_t>(package.vocab_size)) {}

std::unique_ptr<Memory> HashingSession::allocate_cache(std::size_t bytes) {
  return std::make_unique<CountedMemory>(bytes, cache);
}

void HashingSession::run() {
  ++started;
  if (before_run) before_run();
  const TensorView& ids = input("input_ids");
  const std::int64_t batch = ids.shape.dims[0];
  const std::int64_t rows = ids.shape.dims[1];
  const TensorView& mask = input("attention_mask");
  const std::int64_t mask_rows = mask.shape.dims[2];
  const std::int64_t attended = mask.shape.dims[3];
  const auto* seen = static_cast<const std::uint8_t*>(mask.data);
  const std::int64_t past = input("past_key_values.0.key").shape.dims[2];
  if (attended != past + rows) throw std::logic_error("mask and keys differ");

  const std::vector<std::int64_t> positions = int64s(input("position_ids"));
  const std::vector<std::int64_t> tokens = int64s(ids);
  fed_.resize(tokens.size());
  std::transform(positions.begin(), positions.end(), tokens.begin(), fed_.begin(), row_of);
  read_past(batch, seen, mask_rows);
  for (std::int64_t layer = 0; layer < num_layers(); ++layer) {
    write_present(std::to_string(layer) + ".key", 2 * layer, rows);
    write_present(std::to_string(layer) + ".value", 2 * layer + 1, rows);
  }

  const std::vector<std::int64_t> wanted = int64s(input("logit_indices"));
  const std::int64_t count = std::ssize(wanted) / batch;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const std::int64_t b = static_cast<std::int64_t>(i) / count;
    const std::int64_t row = wanted[i];
    const std::uint8_t* sees = seen + (b * mask_rows + (mask_rows == 1 ? 0 : row)) * attended;
    std::int64_t sum = 0;
    for (std::int64_t j = 0; j < attended; ++j) {
      if (sees[j] == 0) continue;
      sum += j < past ? past_[static_cast<std::size_t>(b * past + j)]
                      : fed_[static_cast<std::size_t>(b * rows + j - past)];
    }
    const auto own =
        static_cast<std::uint64_t>(positions[static_cast<std::size_t>(b * rows + row)]);
    predict(i, mix(static_cast<std::uint64_t>(sum)) ^ own);
  }
}

// Rows that nobody sees may hold anything.
void HashingSession::read_past(std::int64_t batch, const std::uint8_t* mask,
                               std::int64_t mask_rows) {
  const std::int64_t past = input("past_key_values.0.key").shape.dims[2];
  const std::int64_t attended = input("attention_mask").shape.dims[3];
  past_.assign(static_cast<std::size_t>(batch * past), 0);
  for (std::int64_t part = 0; part < 2 * num_layers(); ++part) {
    const TensorView& tensor =
        input("past_key_values." + std::to_string(part / 2) + (part % 2 == 0 ? ".key" : ".value"));
    const auto [found_batch, heads, length, dim] = tensor.shape.dims;
    if (found_batch != batch || length != past) throw std::logic_error("pasts of several shapes");
    const auto* data = static_cast<const float*>(tensor.data);
    for (std::int64_t i = 0; i < batch * heads * length * dim; ++i) {
      const std::int64_t b = i / (heads * length * dim);
      const std::int64_t row = i / dim % length;
      if (mask[b * mask_rows * attended + row] == 0) continue;
      std::int64_t& held = past_[static_cast<std::size_t>(b * past + row)];
      const std::int64_t found = static_cast<std::int64_t>(data[i]) - part;
      const bool first = part == 0 && i % dim == 0 && i / (length * dim) % heads == 0;
      if (first) held = found;
      if (held != found) throw std::logic_error("a cached row is of several requests or layers");
    }
  }
}

void HashingSession::write_present(const std::string& suffix, std::int64_t part, std::int64_t fed) {
  const std::optional<TensorView>& present = output("present." + suffix);
  if (!present) return;
  const auto [batch, heads, length, dim] = present->shape.dims;
  if (length != int64s(input("present_length")).at(0)) {
    throw std::logic_error("present is not present_length rows");
  }
  const std::int64_t past = std::ssize(past_) / batch;
  auto* data = static_cast<float*>(present->data);
  for (std::int64_t i = 0; i < batch * heads * length * dim; ++i) {
    const std::int64_t b = i / (heads * length * dim);
    const std::int64_t row = i / dim % length;
    const std::int64_t held = row < past ? past_.at(static_cast<std::size_t>(b * past + row))
                                         : fed_.at(static_cast<std::size_t>(b * fed + row - past));
    data[i] = static_cast<float>(held + part);
  }
}

// Logits in [0, 3), one of them up to 6 larger: some rows are sure, some are not. What the
// candidates say follows from the same numbers, as in a graph.
void HashingSession::predict(std::size_t index, std::uint64_t context) {
  constexpr double unit = 0x1p-53;
  const auto uniform = [&](std::uint64_t key) {
    return static_cast<double>(mix(context ^ (key << 40)) >> 11) * unit;
  };
  const auto likely = static_cast<std::int64_t>(mix(context) % weights_.size());
  double total = 0.0;
  for (std::int64_t v = 0; v < vocab_size_; ++v) {
    const double logit =
        3.0 * uniform(static_cast<std::uint64_t>(v) + 2) + (v == likely ? 6.0 * uniform(1) : 0.0);
    if (const auto& logits = output("logits")) {
      static_cast<float*>(logits->data)[static_cast<std::int64_t>(index) * vocab_size_ + v] =
          static_cast<float>(logit);
    }
    total += weights_[static_cast<std::size_t>(v)] = std::exp(logit);
  }
  double entropy = 0.0;
  for (const double weight : weights_) entropy -= weight / total * std::log(weight / total);
  weights_[static_cast<std::size_t>(mask_token_id_)] = 0.0;
  const auto best = std::max_element(weights_.begin(), weights_.end());
  const double confidence = *best / total;
  const std::int64_t token = best - weights_.begin();
  *best = 0.0;
  const double second = *std::max_element(weights_.begin(), weights_.end()) / total;
  const auto write = [&](const char* name, double value) {
    if (const auto& view = output(name)) {
      static_cast<float*>(view->data)[index] = static_cast<float>(value);
    }
  };
  if (const auto& ids = output("token_ids")) static_cast<std::int64_t*>(ids->data)[index] = token;
  write("complement", 1.0 - confidence);
  write("second_confidence", second);
  write("entropy", entropy);
}

}  // namespace fastdllm::testing
