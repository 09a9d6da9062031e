// Any fastdllm.json beside the files of a package is read, or refused by Error{bad_package}. What
// is read and small decodes: the facts reach the whole engine.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "fastdllm/engine.hpp"
#include "hashing_session.hpp"
#include "json_mutator.hpp"
#include "libfuzzer.hpp"

namespace {

using namespace fastdllm;

// Files that the seeds list with their sizes and checksums.
class Folder {
 public:
  Folder() {
    std::filesystem::create_directories(path_);
    write("model.onnx", ":\x03\x12\x01g");  // a graph named g
    write("model.onnx.data", "weights");
    write("tokenizer.json", "{}");
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  void write(const char* name, std::string_view text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_ = std::filesystem::temp_directory_path() /
                                ("fastdllm_package_fuzzer_" + std::to_string(getpid()));
};

bool is_small(const PackageInfo& package) {
  return package.num_layers <= 4 && package.num_kv_heads * package.head_dim <= 64 &&
         package.vocab_size <= 64 && package.cache_type == ElementType::float32;
}

void decode(const PackageInfo& package) {
  try {
    Engine engine(package, std::make_unique<testing::HashingSession>(package));
    const std::vector<std::int32_t> prompt(
        static_cast<std::size_t>(std::min<std::int64_t>(package.min_prompt_length, 8)),
        package.mask_token_id == 0 ? 1 : 0);
    static_cast<void>(engine.generate(prompt, {.max_new_tokens = 3}));
  } catch (const Error& refusal) {
    fuzzing::require(refusal.code() == ErrorCode::bad_config ||
                     refusal.code() == ErrorCode::bad_package);
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Folder folder;
  folder.write("fastdllm.json", fuzzing::text_of(data, size));
  try {
    const PackageInfo package = read_package(folder.path());
    if (is_small(package)) decode(package);
  } catch (const Error& refusal) {
    fuzzing::require(refusal.code() == ErrorCode::bad_package);
    fuzzing::require(std::strlen(refusal.what()) > 0);
  }
  return 0;
}

std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most,
                                    unsigned seed) {
  const std::string changed = fuzzing::mutate_json(fuzzing::text_of(data, size), most, seed);
  std::memcpy(data, changed.data(), changed.size());
  return changed.size();
}
