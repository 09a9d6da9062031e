// The record beside an engine: its package, GPU and compiler; see export/PACKAGE.md.
#pragma once

#include <filesystem>
#include <string>

namespace fastdllm {

struct PackageInfo;

namespace tensorrt {

/// An engine on disk whose record was checked.
struct EngineFile {
  std::filesystem::path path;
  std::string compiler;  ///< "TensorRT 10.14.1.48"
  std::string package;   ///< the package folder, for messages
};

/// Where `fastdllm build-engine` puts a package's engine for a GPU: PACKAGE.engines, beside it.
[[nodiscard]] std::filesystem::path engine_path(const PackageInfo& package,
                                                const std::string& target);

/// Reads the record of the engine at `path`. target, device: of this GPU. Errors: Error{backend}
/// when there is no engine, or it is of another GPU, compiler or package (the message says how to
/// build one); Error{bad_package} for a damaged record or an engine of another size.
[[nodiscard]] EngineFile read_engine_record(const std::filesystem::path& path,
                                            const PackageInfo& package, const std::string& target,
                                            const std::string& device);

/// Refuses an engine that another version of TensorRT made: only its own can read it. version: of
/// the library, "10.14.1". Errors: Error{backend}.
void require_version(const EngineFile& engine, const std::string& version);

}  // namespace tensorrt
}  // namespace fastdllm
