#include "fastdllm/package.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>

#include "package/external_data.hpp"
#include "package/package_json.hpp"
#include "support/concat.hpp"
#include "support/files.hpp"
#include "support/json_reader.hpp"
#include "support/json_text.hpp"
#include "support/mapped_file.hpp"
#include "support/sha256.hpp"

namespace fastdllm {
namespace {

using nlohmann::json;

constexpr std::string_view metadata_name = "fastdllm.json";

[[noreturn]] void reject(const std::string& message) {
  throw Error(ErrorCode::bad_package, message);
}

// The version first: nothing else of a package from the future can be trusted to mean what it did.
int read_format_version(const JsonReader& metadata) {
  const auto version =
      static_cast<int>(metadata.integer("format_version", 1, std::numeric_limits<int>::max()));
  if (version > supported_format_version) {
    reject(concat(metadata_name, ".format_version is ", version, "; this fastdllm reads up to ",
                  supported_format_version, ": update fastdllm or export the model again"));
  }
  return version;
}

void require_files(const std::filesystem::path& folder, const JsonReader& metadata,
                   const std::string& graph) {
  const JsonReader files = metadata.object("files");
  bool has_graph = false;
  for (const auto& [name, entry] : files.members().items()) {
    const std::filesystem::path relative(name);
    if (relative.filename() != relative || name == "." || name == "..") {
      reject(concat(metadata_name, ".files: '", name, "' is no plain file name"));
    }
    const JsonReader file(entry, concat(metadata_name, ".files.", name));
    const std::int64_t expected =
        file.integer("bytes", 0, std::numeric_limits<std::int64_t>::max());
    const std::string digest = file.string("sha256");
    const std::string lacking = concat("missing; ", metadata_name, " lists it");
    (void)open_file(folder / name, lacking);
    std::error_code error;
    const std::uintmax_t found = std::filesystem::file_size(folder / name, error);
    if (error) reject_file(folder / name, error, lacking);
    if (found != static_cast<std::uintmax_t>(expected)) {
      reject(concat((folder / name).string(), ": is ", found, " bytes; expected ", expected,
                    " (truncated or replaced?)"));
    }
    if (name == graph) {
      has_graph = true;
      require_sha256(folder / name, digest);
    }
  }
  if (!has_graph) reject(concat(metadata_name, ".files does not list '", graph, "'"));
}

std::string printable(std::string text) {
  text.resize(std::min<std::size_t>(text.size(), 160));
  for (char& c : text) c = c >= ' ' && c <= '~' ? c : '?';
  return text;
}

// Tensors of the graph lie in files of the folder that fastdllm.json lists, whatever the inference
// library would open: no other name, and no link that leads elsewhere.
void require_own_data(const std::filesystem::path& graph, const JsonReader& metadata) {
  const JsonReader files = metadata.object("files");
  const MappedFile model(graph);
  for (const std::string& location : external_locations(model.bytes(), graph.string())) {
    if (!files.members().contains(location)) {
      reject(concat(graph.string(), ": a tensor's data lies in '", printable(location),
                    "'; expected a file that ", metadata_name, ".files lists"));
    }
    std::error_code error;
    const std::filesystem::path folder = std::filesystem::canonical(graph.parent_path(), error);
    const std::filesystem::path file =
        std::filesystem::canonical(graph.parent_path() / location, error);
    if (error || file.parent_path() != folder) {
      reject(concat((graph.parent_path() / location).string(),
                    ": is a link out of the package folder; expected the file itself"));
    }
  }
}

std::optional<std::int32_t> optional_id(const JsonReader& model, std::string_view key,
                                        std::int64_t vocab_size) {
  if (model.is_null(key)) return std::nullopt;
  return static_cast<std::int32_t>(model.integer(key, 0, vocab_size - 1));
}

std::optional<std::int64_t> optional_integer(const JsonReader& model, std::string_view key,
                                             std::int64_t least, std::int64_t most) {
  if (!model.has(key) || model.is_null(key)) return std::nullopt;
  return model.integer(key, least, most);
}

template <typename Kind, std::size_t N>
Kind one_of(const JsonReader& model, std::string_view key, const std::array<Kind, N>& kinds) {
  std::array<std::string_view, N> names;
  std::transform(kinds.begin(), kinds.end(), names.begin(), [](Kind k) { return name_of(k); });
  return kinds[model.one_of(key, names)];
}

void read_model(const JsonReader& model, PackageInfo& info) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  constexpr std::array attention{AttentionKind::bidirectional, AttentionKind::block_causal};
  constexpr std::array confidence{ConfidenceKind::raw, ConfidenceKind::processed};
  info.num_layers = model.integer("num_layers", 1, 4096);
  info.num_heads = model.integer("num_heads", 1, 65536);
  info.num_kv_heads = model.integer("num_kv_heads", 1, info.num_heads);
  if (info.num_heads % info.num_kv_heads != 0) {
    reject(concat(metadata_name, ".model.num_kv_heads is ", info.num_kv_heads,
                  "; expected a divisor of num_heads ", info.num_heads));
  }
  info.head_dim = model.integer("head_dim", 1, 65536);
  info.hidden_size = model.integer("hidden_size", 1, most);
  info.vocab_size = model.integer("vocab_size", 3, most);
  info.max_context_length = model.integer("max_context_length", 1, most);
  info.mask_token_id =
      static_cast<std::int32_t>(model.integer("mask_token_id", 0, info.vocab_size - 1));
  for (const json& id : model.array("eos_token_ids")) {
    info.eos_token_ids.push_back(
        static_cast<std::int32_t>(model.integer_in("eos_token_ids", id, 0, info.vocab_size - 1)));
    if (info.eos_token_ids.back() == info.mask_token_id) {
      model.fail("eos_token_ids", "ids other than mask_token_id", id);
    }
  }
  info.pad_token_id = optional_id(model, "pad_token_id", info.vocab_size);
  info.bos_token_id = optional_id(model, "bos_token_id", info.vocab_size);
  info.attention = one_of(model, "attention", attention);
  info.logits_shift = model.integer("logits_shift", 0, 1);
  // Younger keys: a package without them decodes as it always did.
  info.block_length = optional_integer(model, "block_length", 1, most);
  info.sub_block_length = optional_integer(model, "sub_block_length", 1, most);
  if (model.has("seed_token")) info.seed_token = model.boolean("seed_token");
  if (model.has("threshold_inclusive")) {
    info.threshold_inclusive = model.boolean("threshold_inclusive");
  }
  if (model.has("confidence")) info.confidence = one_of(model, "confidence", confidence);
  info.min_prompt_length = model.integer("min_prompt_length", 0, info.max_context_length);
}

ElementType read_cache_type(const JsonReader& graph) {
  constexpr std::array<std::string_view, 3> names{"float32", "float16", "bfloat16"};
  constexpr std::array<ElementType, 3> types{ElementType::float32, ElementType::float16,
                                             ElementType::bfloat16};
  return types[graph.one_of("cache_type", names)];
}

}  // namespace

std::string_view name_of(AttentionKind kind) noexcept {
  switch (kind) {
    case AttentionKind::bidirectional: return "bidirectional";
    case AttentionKind::block_causal: return "block_causal";
  }
  return "unknown";
}

std::string_view name_of(ConfidenceKind kind) noexcept {
  switch (kind) {
    case ConfidenceKind::raw: return "raw";
    case ConfidenceKind::processed: return "processed";
  }
  return "unknown";
}

json read_metadata(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    if (!error) error = make_error_code(std::errc::no_such_file_or_directory);
    if (error == std::errc::not_a_directory)
      error = make_error_code(std::errc::no_such_file_or_directory);
    reject_file(folder, error, "no such package folder");
  }
  return read_json(folder / metadata_name);
}

json read_json(const std::filesystem::path& path) {
  constexpr std::uintmax_t largest = 64U << 20;
  const std::string text = read_file(path, largest, "missing; a package folder holds it");
  return parse_json(text, path.string());
}

PackageInfo read_package(const std::filesystem::path& folder) {
  const json document = read_metadata(folder);
  const JsonReader metadata(document, std::string(metadata_name));
  PackageInfo info;
  info.format_version = read_format_version(metadata);
  info.path = std::filesystem::absolute(folder);
  info.family = metadata.string("family");
  info.precision = precisions[metadata.one_of("precision", precisions)];
  info.opset = static_cast<int>(metadata.integer("opset", 1, 1000));
  read_model(metadata.object("model"), info);
  const JsonReader graph = metadata.object("graph");
  const std::string graph_name = graph.string("file");
  info.cache_type = read_cache_type(graph);
  info.score_bytes = optional_integer(graph, "score_bytes", 0, 1 << 24).value_or(0);
  if (!graph_name.ends_with(".onnx")) {  // another ending may choose another format
    graph.fail("file", "a name that ends in .onnx", graph_name);
  }
  require_files(info.path, metadata, graph_name);
  info.graph = info.path / graph_name;
  require_own_data(info.graph, metadata);
  return info;
}

std::vector<FileCheck> check_files(const std::filesystem::path& folder) {
  const std::filesystem::path path = read_package(folder).path;
  const json document = read_metadata(path);
  const json& files = document.at("files");
  std::vector<FileCheck> checks;
  std::string unlisted;
  std::error_code error;
  std::filesystem::directory_iterator listed(path, error);
  for (; !error && listed != std::filesystem::directory_iterator(); listed.increment(error)) {
    const std::string name = listed->path().filename().string();
    if (name == metadata_name || files.contains(name)) continue;
    unlisted += concat(unlisted.empty() ? "" : ", ", name);
  }
  if (error) {
    reject(concat(path.string(), ": cannot be listed: ", error.message(),
                  "; expected a folder that may be read"));
  }
  if (!unlisted.empty()) {
    checks.push_back({"files", false, concat("not listed in ", metadata_name, ": ", unlisted)});
  }
  for (const auto& [name, entry] : files.items()) {
    const std::string found = sha256_of_file(path / name);
    const auto expected = entry.at("sha256").get<std::string>();
    const bool same = found == expected;
    checks.push_back({name, same,
                      same ? concat(entry.at("bytes").get<std::int64_t>(), " bytes")
                           : concat("sha256 is ", found, "; expected ", expected)});
  }
  return checks;
}

}  // namespace fastdllm
