// A chat template as data: what stands around each message. See export/PACKAGE.md.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fastdllm/text.hpp"
#include "support/json_reader.hpp"

namespace fastdllm {

class ChatFormat {
 public:
  /// Errors: Error{bad_package}.
  explicit ChatFormat(const JsonReader& json);

  /// Errors: Error{bad_config} for messages that the format does not take.
  [[nodiscard]] std::string render(std::span<const Message> messages) const;

 private:
  // What the template does with one message.
  struct Turn {
    explicit Turn(const JsonReader& json);
    [[nodiscard]] std::string_view shown(std::string_view content) const;

    std::string before, after;
    std::optional<std::string> drop_through;
    bool trim;
    std::vector<std::string> refused;
  };

  [[nodiscard]] const Turn& turn_of(std::span<const Message> messages, std::size_t index) const;

  std::string begin_, generation_prompt_;
  std::optional<Turn> first_system_;
  std::map<std::string, Turn, std::less<>> roles_;
  std::optional<std::string> last_role_;
};

}  // namespace fastdllm
