#include "engine_record.hpp"

#include <limits>
#include <string_view>

#include "fastdllm/package.hpp"
#include "package/package_json.hpp"
#include "support/concat.hpp"
#include "support/json_reader.hpp"
#include "support/sha256.hpp"

namespace fastdllm::tensorrt {
namespace {

using nlohmann::json;
using std::filesystem::path;

constexpr std::int64_t record_version = 1;
constexpr std::uintmax_t largest_record = 1U << 20;
constexpr std::string_view compiler_name = "TensorRT ";  // "TensorRT-RTX ..." is the other one

[[noreturn]] void refuse(const std::string& message) {
  throw Error(ErrorCode::backend, message);
}

std::string command(const PackageInfo& package) {
  return concat("fastdllm build-engine ", package.path.string());
}

bool is_there(const path& file) {
  std::error_code ignored;
  return std::filesystem::exists(file, ignored);
}

[[noreturn]] void refuse_missing(const path& engine, const PackageInfo& package,
                                 const std::string& target, const std::string& device) {
  const path other = engine.parent_path() / concat("tensorrt_rtx-", target, ".engine");
  refuse(concat(engine.string(), ": no engine of this package for this GPU (", device, ", ", target,
                "); on this machine run: ", command(package),
                is_there(other) ? concat(" (", other.filename().string(),
                                         " is for TensorRT-RTX, which this backend does not run)")
                                : ""));
}

json read_record(const path& file) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(file, error);
  if (error || size > largest_record) {
    throw Error(ErrorCode::bad_package,
                concat(file.string(), ": ", error ? "missing" : "too large",
                       "; expected the record that build-engine writes beside an engine"));
  }
  return read_json(file);
}

}  // namespace

path engine_path(const PackageInfo& package, const std::string& target) {
  std::error_code error;
  path root = std::filesystem::canonical(package.path, error);
  if (error) root = package.path;
  return root.parent_path() / concat(root.filename().string(), ".engines") /
         concat("tensorrt-", target, ".engine");
}

EngineFile read_engine_record(const path& engine, const PackageInfo& package,
                              const std::string& target, const std::string& device) {
  if (!is_there(engine)) refuse_missing(engine, package, target, device);
  const path file = path(engine).replace_extension(".json");
  const json document = read_record(file);
  const JsonReader record(document, file.filename().string());
  static_cast<void>(record.integer("record_version", record_version, record_version));
  EngineFile found{engine, record.string("compiler"), package.path.string()};
  if (!found.compiler.starts_with(compiler_name)) {
    refuse(concat(engine.string(), ": made by ", found.compiler,
                  "; this backend runs engines of TensorRT, on the machine with the GPU run: ",
                  command(package)));
  }
  if (const std::string made_for = record.string("target"); made_for != target) {
    refuse(concat(engine.string(), ": made for ", made_for, "; this GPU (", device, ") is ", target,
                  ", on this machine run: ", command(package)));
  }
  if (record.string("package_sha256") != sha256_of_file(package.path / "fastdllm.json")) {
    refuse(concat(engine.string(), ": made from another package than ", package.path.string(),
                  ", or before that was exported again; run: ", command(package)));
  }
  const auto expected = static_cast<std::uintmax_t>(
      record.integer("bytes", 1, std::numeric_limits<std::int64_t>::max()));
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(engine, error);
  if (error || size != expected) {
    throw Error(ErrorCode::bad_package,
                concat(engine.string(), ": is ", error ? 0 : size, " bytes; expected ", expected,
                       " (truncated or replaced?); run: ", command(package)));
  }
  return found;
}

void require_version(const EngineFile& engine, const std::string& version) {
  const std::string_view made_by = std::string_view(engine.compiler).substr(compiler_name.size());
  const bool same = made_by.starts_with(version) &&
                    (made_by.size() == version.size() || made_by[version.size()] == '.');
  if (same) return;
  refuse(concat(engine.path.string(), ": made by ", engine.compiler, "; the library here is of ",
                compiler_name, version, ", which cannot read it; run: fastdllm build-engine ",
                engine.package));
}

}  // namespace fastdllm::tensorrt
