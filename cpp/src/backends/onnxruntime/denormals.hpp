// Denormal numbers as zero, for the calling thread, while the object lives.
#pragma once

#include <cfenv>

namespace fastdllm {

/// A trained model's attention is so sharp that softmax leaves denormal numbers behind, and
/// arithmetic on these is many times slower; as numbers they mean nothing (below 1e-38). The
/// caller's floating-point environment is restored at the end.
class DenormalsAsZero {
 public:
  DenormalsAsZero() noexcept;
  ~DenormalsAsZero();
  DenormalsAsZero(const DenormalsAsZero&) = delete;
  DenormalsAsZero& operator=(const DenormalsAsZero&) = delete;

 private:
  std::fenv_t before_;
};

}  // namespace fastdllm
