// Chat templates as data, and what a package must have for text.
#include "text/chat_format.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include "fastdllm/error.hpp"
#include "text_package.hpp"

namespace fastdllm::testing {
namespace {

using nlohmann::json;

std::string rendered(const json& format, const std::vector<Message>& messages) {
  try {
    return ChatFormat(JsonReader(format, "chat_format")).render(messages);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_config);
    return error.what();
  }
}

std::string refusal(TextPackage& package) {
  try {
    const TextCodec codec(package.write());
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_package);
    return error.what();
  }
  return "accepted";
}

TEST(ChatFormat, ConversationsBeginWithOrWithoutASystemMessage) {
  EXPECT_EQ(rendered(chat_format(), {{"user", "Hi"}}), "<system>Help.\n<user>Hi\n<assistant>");
  EXPECT_EQ(rendered(chat_format(),
                     {{"system", "Be brief."}, {"user", ""}, {"assistant", " a "}, {"user", "b"}}),
            "<system>Be brief.\n<user>\n<assistant> a \n<user>b\n<assistant>");
}

TEST(ChatFormat, TrimsWhatPythonTrims) {
  json format = chat_format();
  format["roles"]["user"]["trim"] = true;
  EXPECT_EQ(rendered(format, {{"user", " \t\u00a0\u3000\x1f x y \u2029\r\n"}}),
            "<system>Help.\n<user>x y\n<assistant>");
  EXPECT_EQ(rendered(format, {{"user", "\u2003 \n"}}), "<system>Help.\n<user>\n<assistant>");
  EXPECT_EQ(rendered(format, {{"user", "\u200b"}}), "<system>Help.\n<user>\u200b\n<assistant>");
}

TEST(ChatFormat, DropsThoughtsFromTheHistory) {
  json format = chat_format();
  format["roles"]["assistant"]["drop_through"] = "</think>";
  const auto shown = [&](const std::string& answer) {
    const std::string text = rendered(format, {{"assistant", answer}});
    return text.substr(text.find("<assistant>") + 11);
  };
  EXPECT_EQ(shown("<think>a</think>b</think>\n\n c"), " c\n<assistant>");
  EXPECT_EQ(shown("<think>a</think>\n"), "\n<assistant>");
  EXPECT_EQ(shown("<think>a"), "<think>a\n<assistant>");
}

TEST(ChatFormat, RefusesWhatTheTemplateTakesInAWayOfItsOwn) {
  json format = chat_format();
  EXPECT_EQ(rendered(format, {}), "there are no messages; expected at least one");
  EXPECT_EQ(rendered(format, {{"tool", "1"}}),
            "messages[0].role is \"tool\"; expected, by the package's chat format, one of "
            "\"system\", \"assistant\", \"user\"");
  EXPECT_EQ(rendered(format, {{std::string("to\0ol", 5), "1"}}),
            "messages[0].role is \"to\\u0000ol\"; expected, by the package's chat format, one of "
            "\"system\", \"assistant\", \"user\"");
  EXPECT_EQ(rendered(format, {{"user", "a"}, {"system", "b"}}),
            "messages[1].role is \"system\"; expected, by the package's chat format, one of "
            "\"assistant\", \"user\"");
  format["first_system"] = nullptr;
  format["roles"]["system"] = format["roles"]["user"];
  EXPECT_EQ(rendered(format, {{"system", "b"}}),
            "messages[0].role is \"system\"; expected, by the package's chat format, one of "
            "\"assistant\", \"user\"");
  format["last_role"] = "user";
  EXPECT_EQ(rendered(format, {{"user", "a"}, {"assistant", "b"}}),
            "the last message's role is \"assistant\"; expected, by the package's chat format, "
            "\"user\"");
  format["roles"]["user"]["refused"] = {"<tool>"};
  EXPECT_EQ(rendered(format, {{"user", "a<tool>b"}}),
            "messages[0].content holds '<tool>'; expected content without it: the chat template "
            "acts on it");
}

TEST(TextCodec, SaysWhyAPackageHasNoChat) {
  const auto reason = [](TextPackage& package) -> std::string {
    const TextCodec codec(package.write());
    const Message message{"user", "Hi"};
    try {
      return codec.render_chat({&message, 1});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::bad_config);
      return concat(codec.has_chat() ? "has: " : "has none: ", error.what());
    }
  };
  TextPackage package("chat");
  EXPECT_EQ(reason(package),
            "has none: the package has no chat template; give text or token ids instead");
  package.with_chat(nullptr);
  package.metadata["tokenizer"]["chat_format_reason"] = "it names the date";
  EXPECT_EQ(
      reason(package),
      "has: the package's chat template is more than a chat format: it names the date; render "
      "it elsewhere and give text or token ids");
  package.metadata["tokenizer"].erase("chat_format");
  EXPECT_EQ(reason(package),
            "has: the package was exported before there was a chat format; export it again, or "
            "give text or token ids");
  package.with_chat();
  EXPECT_EQ(reason(package), "<system>Help.\n<user>Hi\n<assistant>");
}

TEST(TextCodec, ReadsATokenizerThatIsListedAndSound) {
  TextPackage package("codec");
  EXPECT_EQ(refusal(package), "accepted");
  package.metadata["tokenizer"]["file"] = "../tokenizer.json";
  EXPECT_EQ(
      refusal(package),
      "fastdllm.json.tokenizer.file is \"../tokenizer.json\"; expected a file that is listed");
  package.metadata["tokenizer"] = nullptr;
  EXPECT_EQ(refusal(package),
            package.folder.string() + ": has no tokenizer; use Engine with token ids");
}

TEST(TextCodec, RefusesADamagedTokenizerAndOneThatIsTooLarge) {
  TextPackage package("damaged");
  const std::filesystem::path folder = package.write();
  std::string text = package.tokenizer.dump();
  text.replace(text.find("<|end|>"), 7, "<|END|>");
  std::ofstream(folder / "tokenizer.json", std::ios::binary) << text;
  try {
    const TextCodec codec(folder);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("(the file is damaged)"), std::string::npos);
  }
  package.metadata["model"]["vocab_size"] = 257;
  package.metadata["model"]["mask_token_id"] = 255;
  EXPECT_EQ(refusal(package), (folder / "tokenizer.json").string() +
                                  ": holds id 257; the model's vocabulary is [0, 257)");
}

TEST(TextCodec, RefusesADamagedChatFormat) {
  TextPackage package("format");
  json format = chat_format();
  format["roles"]["user"].erase("before");
  package.with_chat(format);
  EXPECT_EQ(refusal(package),
            "fastdllm.json.tokenizer.chat_format.roles.user: key 'before' is missing");
  format = chat_format();
  format["roles"][std::string("a\0\x1b", 3)] = 1;
  package.with_chat(format);
  EXPECT_EQ(refusal(package),
            "fastdllm.json.tokenizer.chat_format.roles.a\\u0000\\u001b is 1; expected an object");
  format = chat_format();
  format["first_system"]["refused"] = {1};
  package.with_chat(format);
  EXPECT_EQ(refusal(package),
            "fastdllm.json.tokenizer.chat_format.first_system.refused is 1; expected strings");
}

TEST(CheckText, ComparesWithTheStoredProbes) {
  TextPackage package("probes");
  package.with_chat();
  const json messages = {{{"role", "user"}, {"content", "Hi"}}};
  const json tool = {{{"role", "tool"}, {"content", "Hi"}}};
  package.write_file(
      "probes.json",
      json{{"tokenizer", {{{"text", "Hi<|end|>"}, {"token_ids", {72, 105, 256}}}}},
           {"chat",
            {{{"messages", messages}, {"text", "<system>Help.\n<user>Hi\n<assistant>"}},
             {{"messages", tool}, {"text", "refused"}}}}}
          .dump());
  EXPECT_EQ(check_text(package.write()), std::vector<std::string>{});
  package.write_file("probes.json", json{{"tokenizer", {{{"text", "Hi\n"}, {"token_ids", {72}}}}},
                                         {"chat", {{{"messages", messages}, {"text", "Hi"}}}}}
                                        .dump());
  EXPECT_EQ(
      check_text(package.write()),
      (std::vector<std::string>{
          R"("Hi\n" encodes to [72, 105, 10]; expected [72])",
          R"(a conversation of 1 messages renders to "<system>Help.\n<user>Hi\n<assistant>"; expected "Hi")"}));
}

}  // namespace
}  // namespace fastdllm::testing
