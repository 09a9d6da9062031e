#include "package/external_data.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <utility>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

// The messages of ONNX's schema that lead to a tensor, and the fields that lead there.
enum class Kind { model, training, function, graph, node, attribute, sparse, tensor, entry };

struct Path {
  Kind from;
  std::uint32_t field;
  Kind to;
};

constexpr std::array paths{
    Path{Kind::model, 7, Kind::graph},         Path{Kind::model, 20, Kind::training},
    Path{Kind::model, 25, Kind::function},     Path{Kind::training, 1, Kind::graph},
    Path{Kind::training, 2, Kind::graph},      Path{Kind::function, 7, Kind::node},
    Path{Kind::function, 11, Kind::attribute}, Path{Kind::graph, 1, Kind::node},
    Path{Kind::graph, 5, Kind::tensor},        Path{Kind::graph, 15, Kind::sparse},
    Path{Kind::node, 5, Kind::attribute},      Path{Kind::attribute, 5, Kind::tensor},
    Path{Kind::attribute, 6, Kind::graph},     Path{Kind::attribute, 10, Kind::tensor},
    Path{Kind::attribute, 11, Kind::graph},    Path{Kind::attribute, 22, Kind::sparse},
    Path{Kind::attribute, 23, Kind::sparse},   Path{Kind::sparse, 1, Kind::tensor},
    Path{Kind::sparse, 2, Kind::tensor},       Path{Kind::tensor, 13, Kind::entry},
};
constexpr std::uint32_t entry_key = 1;
constexpr std::uint32_t entry_value = 2;
constexpr int max_depth = 100;  // protobuf's own limit

class Walk {
 public:
  Walk(std::span<const std::byte> model, const std::string& name) : model_(model), name_(name) {}

  std::set<std::string> run() {
    message(Kind::model, model_.size(), 0);
    return std::move(locations_);
  }

 private:
  [[noreturn]] void reject(const std::string& problem) const {
    throw Error(ErrorCode::bad_package,
                concat(name_, ": no ONNX model: ", problem, " at byte ", position_));
  }

  std::uint64_t varint(std::size_t end) {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (position_ == end) reject("a number is cut off");
      const auto byte = std::to_integer<std::uint64_t>(model_[position_++]);
      value |= (byte & 0x7F) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    reject("a number of more than 64 bits");
  }

  void skip(std::uint64_t bytes, std::size_t end) {
    if (bytes > end - position_) reject("a field reaches beyond what holds it");
    position_ += static_cast<std::size_t>(bytes);
  }

  void message(Kind kind, std::size_t end, int depth) {
    if (depth > max_depth) reject(concat("more than ", max_depth, " messages inside another"));
    std::string key, value;
    while (position_ < end) {
      const std::uint64_t tag = varint(end);
      const auto field = static_cast<std::uint32_t>(tag >> 3);
      if (tag > std::numeric_limits<std::uint32_t>::max() || field == 0) reject("a wrong tag");
      switch (tag & 7) {
        case 0: varint(end); break;
        case 1: skip(8, end); break;
        case 5: skip(4, end); break;
        case 2: {
          const std::size_t begin = enter(end);
          if (kind == Kind::entry) {
            if (field == entry_key) key = text(begin);
            if (field == entry_value) value = text(begin);
          } else if (const Path* path = find(kind, field)) {
            const std::size_t inner = position_;
            position_ = begin;
            message(path->to, inner, depth + 1);
          }
          break;
        }
        default: reject("a group or an unknown kind of field");
      }
    }
    if (kind == Kind::entry && key == "location") locations_.insert(std::move(value));
  }

  // Goes behind a field of stated length; returns where it begins.
  std::size_t enter(std::size_t end) {
    const std::uint64_t length = varint(end);
    const std::size_t begin = position_;
    skip(length, end);
    return begin;
  }

  [[nodiscard]] std::string text(std::size_t begin) const {
    return {reinterpret_cast<const char*>(model_.data()) + begin, position_ - begin};
  }

  static const Path* find(Kind from, std::uint32_t field) {
    const auto* path = std::find_if(paths.begin(), paths.end(), [&](const Path& candidate) {
      return candidate.from == from && candidate.field == field;
    });
    return path == paths.end() ? nullptr : path;
  }

  std::span<const std::byte> model_;
  const std::string& name_;
  std::size_t position_ = 0;
  std::set<std::string> locations_;
};

}  // namespace

std::set<std::string> external_locations(std::span<const std::byte> model,
                                         const std::string& name) {
  return Walk(model, name).run();
}

}  // namespace fastdllm
