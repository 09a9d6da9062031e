// The rest of what a tokenizer does is compared with the `tokenizers` library, see
// tests/python/test_text_in_cpp.py.
#include "fastdllm/tokenizer.hpp"

#include <gtest/gtest.h>

#include <array>
#include <nlohmann/json.hpp>
#include <thread>

#include "fastdllm/error.hpp"
#include "text/byte_alphabet.hpp"
#include "text/normalizer.hpp"
#include "text/oniguruma.hpp"
#include "text/regex.hpp"
#include "text/utf8.hpp"

namespace fastdllm {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

// 256 bytes by id, then "ab" 256, "abc" 257, and the special token "<s>" 258.
json small() {
  json vocab = json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[to_alphabet(std::string(1, static_cast<char>(byte)))] = byte;
  }
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  const json special{{"id", 258},       {"content", "<s>"}, {"single_word", false},
                     {"lstrip", false}, {"rstrip", false},  {"normalized", false},
                     {"special", true}};
  return {{"version", "1.0"},
          {"added_tokens", json::array({special})},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", "ab c"}}}}};
}

json split(const std::string& pattern) {
  return {{"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"},
             {"pattern", {{"Regex", pattern}}},
             {"behavior", "Isolated"},
             {"invert", false}},
            {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
}

Tokenizer make(const json& document) {
  return Tokenizer::parse(document.dump());
}

std::string error_of_text(std::string_view text) {
  try {
    (void)Tokenizer::parse(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_package);
    return error.what();
  }
  return "no error";
}
std::string error_of(const json& document) {
  return error_of_text(document.dump());
}

// "é" 0, "\u2581" 1, the joined two 2, then the 256 bytes from 3, and the special token "<s>" 259.
json of_characters() {
  json vocab{{"\u00e9", 0}, {"\u2581", 1}, {"\u2581\u00e9", 2}};
  for (int byte = 0; byte < 256; ++byte)
    vocab[byte_token(static_cast<unsigned char>(byte))] = byte + 3;
  json document = small();
  document["added_tokens"][0]["id"] = 259;
  const json space{{"String", " "}}, mark{{"String", "\u2581"}};
  document["normalizer"] = {{"type", "Replace"}, {"pattern", space}, {"content", "\u2581"}};
  document["pre_tokenizer"] = nullptr;
  document["decoder"] = {
      {"type", "Sequence"},
      {"decoders",
       {{{"type", "Replace"}, {"pattern", mark}, {"content", " "}}, {{"type", "ByteFallback"}}}}};
  document["model"] = {
      {"type", "BPE"}, {"vocab", vocab}, {"byte_fallback", true}, {"merges", {"\u2581 \u00e9"}}};
  return document;
}

TEST(Tokenizer, ACharacterWithoutATokenIsItsBytes) {
  const Tokenizer tokenizer = make(of_characters());
  EXPECT_EQ(tokenizer.encode(" \u00e9\u00e9<s>A\u00e8"),
            (Ids{2, 0, 259, 3 + 0x41, 3 + 0xC3, 3 + 0xA8}));
  EXPECT_EQ(tokenizer.decode(Ids{2, 259, 3 + 0xC3, 3 + 0xA8}, true), " \u00e9\u00e8");
  // Bytes that are no characters: each becomes a mark, as the tokenizers library has it.
  EXPECT_EQ(tokenizer.decode(Ids{3 + 0x41, 3 + 0xC3, 1}, true), "\ufffd\ufffd ");
  EXPECT_EQ(byte_of_token("<0x4G>"), std::nullopt);
}

TEST(Tokenizer, JoinsThePairOfTheLowestRankFirst) {
  const Tokenizer tokenizer = make(small());
  EXPECT_EQ(tokenizer.encode("abcab"), (Ids{257, 256}));
  EXPECT_EQ(tokenizer.encode("ab<s>c"), (Ids{256, 258, 'c'}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.vocab_size(), 259);
  EXPECT_EQ(tokenizer.token_id("<s>"), 258);
  EXPECT_EQ(tokenizer.token_id("abc"), 257);
  EXPECT_EQ(tokenizer.token_id("abcd"), std::nullopt);
}

TEST(Tokenizer, MergesMayBePairs) {
  json document = small();
  document["model"]["merges"] = json::array({{"a", "b"}, {"ab", "c"}});
  EXPECT_EQ(make(document).encode("abc"), Ids{257});
}

TEST(Tokenizer, DecodesToUtf8WhateverTheIds) {
  const Tokenizer tokenizer = make(small());
  const Ids ids{257, 258, 0xC3, 0xA9, 0xC3, 'x', 0xE4, 0xBD, -1, 999};
  EXPECT_EQ(tokenizer.decode(ids), "abcé\uFFFDx\uFFFD");
  EXPECT_EQ(tokenizer.decode(ids, false), "abc<s>é\uFFFDx\uFFFD");
}

TEST(Tokenizer, BytesThatAreNoTextAreReplacementMarks) {
  const Tokenizer tokenizer = make(small());
  EXPECT_EQ(tokenizer.encode("a\xFFz"), tokenizer.encode("a\uFFFDz"));
  EXPECT_EQ(tokenizer.encode(std::string("\0a", 2)), (Ids{0, 'a'}));
}

TEST(Tokenizer, IsUsableFromEveryThread) {
  const Tokenizer tokenizer = make(small());
  std::vector<std::thread> threads;
  std::array<Ids, 4> found;
  for (Ids& ids : found) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) ids = tokenizer.encode("abc abcab <s> 12");
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& ids : found) EXPECT_EQ(ids, tokenizer.encode("abc abcab <s> 12"));
}

TEST(Tokenizer, LongTextsTakeNoQuadraticTime) {
  json document = small();
  document["normalizer"] = {{"type", "NFC"}};
  const Tokenizer tokenizer = make(document);
  std::string marks;
  for (int round = 0; round < 100'000; ++round) marks += "\u0301\u0323";  // in the wrong order
  EXPECT_EQ(tokenizer.encode(std::string(500'000, 'a')).size(), 500'000U);
  EXPECT_EQ(tokenizer.encode(std::string(500'000, ' ')).size(), 500'000U);
  EXPECT_EQ(tokenizer.encode(std::string(500'000, '<')).size(), 500'000U);
  EXPECT_EQ(tokenizer.encode(marks).size(), marks.size());
}

TEST(Tokenizer, ATokenThatTakesSpacesAlongLooksAtThemOnce) {
  json document = small();
  json& token = document["added_tokens"][0];
  token["content"] = " ";
  token["rstrip"] = true;
  const Tokenizer tokenizer = make(document);
  EXPECT_FALSE(tokenizer.encode(std::string(200'000, ' ')).empty());
}

// What the `tokenizers` library says.
TEST(Tokenizer, SpacesBelongToTheTokenThatTookThemFirst) {
  json document = small();
  document["added_tokens"][0]["rstrip"] = true;
  json line = document["added_tokens"][0];
  line["content"] = "\n";
  line["id"] = 259;
  line["rstrip"] = false;
  line["lstrip"] = true;
  document["added_tokens"].push_back(line);
  EXPECT_EQ(make(document).encode("a<s> \nb"), (Ids{'a', 258, 'b'}));
}

TEST(Tokenizer, RefusesAddedTokensThatTheNormalizerChanges) {
  json document = small();
  document["normalizer"] = {{"type", "NFC"}};
  json& token = document["added_tokens"][0];
  token["content"] = "e\u0301";
  EXPECT_EQ(error_of(document), "no error");  // it is looked for as it is
  token["normalized"] = true;
  EXPECT_NE(error_of(document).find("added_tokens[0].content"), std::string::npos);
}

TEST(Tokenizer, RefusesByNameWhatIsNotImplemented) {
  const auto with = [](const char* pointer, json value) {
    json document = small();
    document[json::json_pointer(pointer)] = std::move(value);
    return error_of(document);
  };
  EXPECT_EQ(with("/model/type", "Unigram"),
            "tokenizer.json.model.type is \"Unigram\"; expected one of \"BPE\"");
  EXPECT_EQ(with("/pre_tokenizer/type", "Metaspace"),
            "tokenizer.json.pre_tokenizer.type is \"Metaspace\"; expected one of \"ByteLevel\", "
            "\"Split\", \"Digits\", \"Sequence\"");
  EXPECT_EQ(with("/normalizer", {{"type", "NFKC"}}),
            "tokenizer.json.normalizer.type is \"NFKC\"; expected one of \"NFC\", \"Replace\", "
            "\"Sequence\"");
  EXPECT_NE(with("/decoder", {{"type", "Strip"}}).find("decoder.type is \"Strip\""),
            std::string::npos);
  EXPECT_NE(with("/post_processor", {{"type", "X"}}).find("post_processor.type is \"X\""),
            std::string::npos);
  EXPECT_NE(with("/truncation", {{"max_length", 5}}).find("truncation is an object"),
            std::string::npos);
  EXPECT_NE(with("/model/dropout", 0.1).find("model.dropout is 0.1"), std::string::npos);
  EXPECT_NE(with("/model/end_of_word_suffix", "</w>").find("end_of_word_suffix is \"</w>\""),
            std::string::npos);
  EXPECT_NE(with("/pre_tokenizer", {{"type", "Digits"}, {"individual_digits", true}})
                .find("model is neither of bytes (no ByteLevel in the pre_tokenizer)"),
            std::string::npos);
}

TEST(Tokenizer, RefusesDamagedFiles) {
  const auto with = [](const char* pointer, json value) {
    json document = small();
    document[json::json_pointer(pointer)] = std::move(value);
    return error_of(document);
  };
  const auto says = [](const std::string& error, const char* part) {
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  says(error_of_text(std::string_view("{")), "tokenizer.json: not valid JSON");
  says(error_of_text(std::string_view("[]")),
       "tokenizer.json is an array of 0; expected an object");
  says(error_of_text(std::string(100'000, '[')), "is nested 100000 deep");
  says(error_of_text(small().dump() + std::string(1, '\0') + "more"),
       "tokenizer.json: not valid JSON: byte ");
  says(error_of_text(std::string_view("{\"a\": \"\\ud800\"}")), "not valid JSON");
  says(with("/model/merges/0", "a nothing"), "model.merges[0]");
  says(with("/model/merges/0", 5), "model.merges[0] is 5; expected two tokens");
  says(with("/model/vocab/zz", 3'000'000'000), "model.vocab.zz is 3000000000");
  says(with("/model/vocab/zz", 97), "expected an id that no other token has");
  says(with("/model/vocab/zz", -1), "model.vocab.zz is -1");
  says(with("/added_tokens/0/id", 300), "added_tokens[0].id is 300; expected 258");
  says(with("/added_tokens/0/content", ""), "added_tokens[0].content is \"\"");
  says(with("/added_tokens/1", small()["added_tokens"][0]), "added_tokens[1]");
  says(with("/pre_tokenizer", split("(a")), "pre_tokenizer.pretokenizers[0].pattern.Regex");
  json missing = small();
  missing.erase("decoder");
  says(error_of(missing), "tokenizer.json: key 'decoder' is missing");
}

TEST(Tokenizer, SaysWhenAPatternBacktracksWithoutEnd) {
  json document = small();
  document["pre_tokenizer"] = split("(a+)+$|(x*x*)*y");
  const Tokenizer tokenizer = make(document);
  EXPECT_EQ(tokenizer.encode("aaa").size(), 3U);
  EXPECT_THROW((void)tokenizer.encode(std::string(60, 'a') + "b"), Error);
  EXPECT_THROW((void)tokenizer.encode(std::string(10'000, 'x')), Error);
}

TEST(Oniguruma, RefusesWhatPcreReadsDifferently) {
  for (const char* pattern :
       {"a{1,3}+", "a{2}?", "a{,2}",   "[a&&b]", "[a[b]]", "[[:alpha:]]", "\\bx",
        "\\h",     "\\1",   "(*FAIL)", "(?m:.)", "a(?i)b", "(?<n>a)",     "\\p{Greek}",
        "\\Qa\\E", "a**",   "*a",      "[\\W]",  "\\x41",  "[a",          "[]a]",
        "\\u12",   "\\p{L", "\\",      "(?#c)",  "\\pL"}) {
    EXPECT_THROW((void)from_oniguruma(pattern, "here"), Error) << pattern;
  }
}

TEST(Regex, LiteralsAreNoPatterns) {
  EXPECT_EQ(Regex::literal("a.b", "here").find_all("a.b axb").size(), 1U);
}

TEST(Regex, AnEmptyMatchBehindAMatchDoesNotCount) {
  const auto found = Regex::compile("x*", "here").find_all("axxb");
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found[0].end, 0U);
  EXPECT_EQ(found[1].begin, 1U);
  EXPECT_EQ(found[1].end, 3U);
  EXPECT_EQ(found[2].begin, 4U);
}

TEST(Utf8, ReplacesMaximalSubparts) {
  EXPECT_EQ(utf8::replace_invalid("\xF0\x9F\x98z"), "\uFFFDz");
  EXPECT_EQ(utf8::replace_invalid("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(utf8::replace_invalid("\xC0\x80\xF5"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(utf8::replace_invalid("\xE4\xBD\xA0\xE4"), "\u4F60\uFFFD");
  EXPECT_TRUE(utf8::is_valid("é中😀"));
}

TEST(Normalizer, ComposesAndOrders) {
  EXPECT_EQ(to_nfc("e\u0301"), "é");
  EXPECT_EQ(to_nfc("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(to_nfc("\u1100\u1161\u11A8"), "각");
  EXPECT_EQ(to_nfc("\u0958"), "\u0915\u093C");  // never composed
}

}  // namespace
}  // namespace fastdllm
