// A tokenizer.json's regular expressions are written for Oniguruma. This writes one for PCRE2 (with
// PCRE2_UTF, PCRE2_UCP and PCRE2_MULTILINE) so that it matches the same, or refuses it.
#pragma once

#include <string>
#include <string_view>

namespace fastdllm {

/// where: the key of the pattern, for messages. Errors: Error{bad_package} naming what the two read
/// differently, or what is not implemented.
[[nodiscard]] std::string from_oniguruma(std::string_view pattern, std::string_view where);

}  // namespace fastdllm
