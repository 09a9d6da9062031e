// A backend without a model: the graph contract's tensors, bound to nothing that computes. What a
// run answers is up to who derives from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fastdllm/backend.hpp"
#include "fastdllm/package.hpp"

namespace fastdllm::testing {

class HeapMemory : public Memory {
 public:
  explicit HeapMemory(std::size_t bytes) : bytes_(bytes + 1) {}
  void* data() noexcept override { return bytes_.data(); }

 private:
  std::vector<std::byte> bytes_;
};

[[nodiscard]] std::vector<std::int64_t> int64s(const TensorView& view);

class ContractSession : public Session {
 public:
  explicit ContractSession(const PackageInfo& package);

  std::vector<TensorSpec> input_specs, output_specs;

  std::span<const TensorSpec> inputs() const noexcept override { return input_specs; }
  std::span<const TensorSpec> outputs() const noexcept override { return output_specs; }
  std::unique_ptr<Memory> allocate_cache(std::size_t bytes) override {
    return std::make_unique<HeapMemory>(bytes);
  }
  void bind_input(std::size_t index, const TensorView& tensor) override { in_.at(index) = tensor; }
  void bind_output(std::size_t index, const TensorView& tensor) override {
    out_.at(index) = tensor;
  }
  void unbind_output(std::size_t index) override { out_.at(index).reset(); }

 protected:
  [[nodiscard]] const TensorView& input(const std::string& name) const;
  [[nodiscard]] const std::optional<TensorView>& output(const std::string& name) const;
  [[nodiscard]] std::int64_t num_layers() const noexcept { return num_layers_; }

 private:
  std::vector<std::optional<TensorView>> in_, out_;
  std::int64_t num_layers_;
};

}  // namespace fastdllm::testing
