#include "denormals.hpp"

#include <cstdint>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace fastdllm {

DenormalsAsZero::DenormalsAsZero() noexcept {
  std::fegetenv(&before_);
#if defined(__SSE__)
  constexpr unsigned flush_to_zero = 0x8000;
  constexpr unsigned denormals_are_zero = 0x0040;
  _mm_setcsr(_mm_getcsr() | flush_to_zero | denormals_are_zero);
#elif defined(__aarch64__)
  std::uint64_t control = 0;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  asm volatile("msr fpcr, %0" : : "r"(control | (std::uint64_t{1} << 24)));
#endif
}

DenormalsAsZero::~DenormalsAsZero() {
  std::fesetenv(&before_);
}

}  // namespace fastdllm
