// Text from commits in any order: what is final, what waits, where a stop string ends it.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <numeric>
#include <random>

#include "fastdllm/error.hpp"
#include "fastdllm/text.hpp"
#include "text_package.hpp"

namespace fastdllm::testing {
namespace {

using Ids = std::vector<std::int32_t>;
using Strings = std::vector<std::string>;

constexpr std::int32_t end_id = 256;
constexpr std::string_view broken = "\uFFFD";

const TextCodec& codec() {
  static const TextCodec made(TextPackage("stream").write());
  return made;
}

Ids ids_of(std::string_view text) {
  return codec().tokenizer().encode(text);
}

Ids raw_ids_of(std::string_view bytes) {
  Ids ids;
  for (const char byte : bytes) ids.push_back(static_cast<unsigned char>(byte));
  return ids;
}

std::string push(TextStream& stream, std::int32_t start, const Ids& ids) {
  Ids positions(ids.size());
  std::iota(positions.begin(), positions.end(), start);
  return stream.push(positions, ids);
}

TEST(TextStream, GivesTextFromLeftToRight) {
  TextStream stream(codec(), {end_id});
  EXPECT_EQ(push(stream, 2, ids_of("c")), "");
  EXPECT_EQ(push(stream, 0, ids_of("a")), "a");
  EXPECT_EQ(push(stream, 1, ids_of("b")), "bc");
  EXPECT_EQ(push(stream, 3, ids_of("d<|end|>e")), "d");
  EXPECT_EQ(push(stream, 6, ids_of("f")), "");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.text(), "abcd");
  EXPECT_EQ(stream.tokens_of("abc"), 3);
  EXPECT_EQ(stream.tokens_of(""), 0);
}

TEST(TextStream, HoldsBackAnUnfinishedCharacter) {
  const Ids smile = raw_ids_of("\xF0\x9F\x99\x82");
  TextStream stream(codec(), {});
  EXPECT_EQ(push(stream, 0, {smile[0]}), "");
  EXPECT_EQ(push(stream, 1, {smile[1], smile[2]}), "");
  EXPECT_EQ(push(stream, 3, {smile[3], 'x', smile[0]}), "\xF0\x9F\x99\x82x");
  EXPECT_EQ(stream.finish(), broken);
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.tokens_of("\xF0\x9F\x99\x82"), 4);
}

TEST(TextStream, ReplacesBrokenBytesOnceTextFollows) {
  TextStream stream(codec(), {});
  EXPECT_EQ(push(stream, 0, raw_ids_of("a\xFF\xE2\x82")), "a");
  EXPECT_EQ(push(stream, 4, raw_ids_of("b")), "\uFFFD\uFFFDb");
}

TEST(TextStream, EndsBeforeTheStopStringThatIsCompleteFirst) {
  TextStream stream(codec(), {}, {"#####", "##", "b#"});
  EXPECT_EQ(push(stream, 0, ids_of("ab")), "a");  // "b" could begin "b#"
  EXPECT_EQ(push(stream, 2, ids_of("#####c")), "");
  EXPECT_EQ(stream.stop(), "b#");
  EXPECT_EQ(stream.text(), "a");
  EXPECT_EQ(push(stream, 8, ids_of("d")), "");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.tokens_of("a"), 1);
  EXPECT_EQ(stream.tokens_of("ab#"), 3);
}

TEST(TextStream, LetsGoOfWhatBeginsNoStopStringAfterAll) {
  TextStream stream(codec(), {}, {"####"});
  EXPECT_EQ(push(stream, 0, ids_of("a###")), "a");
  EXPECT_EQ(push(stream, 4, ids_of("b##")), "###b");
  EXPECT_EQ(stream.finish(), "##");
}

TEST(TextStream, RefusesStopStringsThatAreNoText) {
  for (const std::string& bad : Strings{"", "\xFF"}) {
    try {
      const TextStream stream(codec(), {}, {"ok", bad});
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::bad_config);
      EXPECT_TRUE(std::string(error.what()).starts_with("stop[1] is "));
    }
  }
}

// The whole answer at once.
struct Expected {
  std::string text;
  std::optional<std::string> stop;
};

std::size_t without_broken_end(std::string_view text) {
  while (text.ends_with(broken)) text.remove_suffix(broken.size());
  return text.size();
}

Expected expected_of(Ids ids, const Strings& stops) {
  const auto end = std::find(ids.begin(), ids.end(), end_id);
  ids.erase(end, ids.end());
  const std::string text = codec().tokenizer().decode(ids);
  for (std::size_t length = 1; length <= text.size(); ++length) {  // character by character
    const std::string_view so_far = std::string_view(text).substr(0, length);
    std::string longest;
    for (const std::string& stop : stops) {
      if (so_far.ends_with(stop) && stop.size() > longest.size()) longest = stop;
    }
    if (!longest.empty()) return {text.substr(0, length - longest.size()), longest};
  }
  return {text, std::nullopt};
}

std::int64_t expected_tokens(const Ids& ids, std::size_t length) {
  for (std::size_t count = 0; count < ids.size(); ++count) {
    const std::string text = codec().tokenizer().decode(std::span(ids).first(count));
    if (without_broken_end(text) >= length) return static_cast<std::int64_t>(count);
  }
  return std::ssize(ids);
}

TEST(TextStream, GivesTheSameWhateverTheOrderOfCommits) {
  std::mt19937 draw(3);
  const auto below = [&draw](std::size_t most) { return draw() % most; };
  const Strings texts{"a", "#", "##", "b", "é", "🙂", "\xE2", "\x82", "\xFF", "\uFFFD", "你"};
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (std::size_t i = below(12); i > 0; --i) bytes += texts[below(texts.size())];
    Ids ids = raw_ids_of(bytes);
    if (below(4) == 0) ids.insert(ids.begin() + static_cast<int>(below(ids.size() + 1)), end_id);
    Strings stops;
    for (std::size_t i = below(4); i > 0; --i) {
      std::string stop;
      for (std::size_t n = 1 + below(3); n > 0; --n) stop += texts[below(6)];
      stops.push_back(stop);
    }
    Ids order(ids.size());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), draw);

    TextStream stream(codec(), {end_id}, stops);
    std::string pieces;
    for (std::size_t at = 0; at < order.size();) {
      const std::size_t count = std::min(1 + below(4), order.size() - at);
      const std::span<const std::int32_t> positions = std::span(order).subspan(at, count);
      Ids tokens;
      for (const std::int32_t p : positions) tokens.push_back(ids[static_cast<std::size_t>(p)]);
      pieces += stream.push(positions, tokens);
      EXPECT_EQ(pieces, stream.text());
      at += count;
    }
    pieces += stream.finish();
    const Expected expected = expected_of(ids, stops);
    ASSERT_EQ(pieces, expected.text) << ::testing::PrintToString(stops);
    ASSERT_EQ(stream.stop(), expected.stop);
    const std::string stop = expected.stop.value_or("");
    const Ids known(ids.begin(),
                    std::min(std::find(ids.begin(), ids.end(), end_id) + 1, ids.end()));
    ASSERT_EQ(stream.tokens_of(pieces), expected_tokens(known, pieces.size()));
    ASSERT_EQ(stream.tokens_of(pieces + stop), expected_tokens(known, pieces.size() + stop.size()));
  }
}

TEST(TextStream, TakesTimeInProportionToTheAnswer) {
  const auto ticks = [](std::int32_t tokens) {
    const std::clock_t start = std::clock();
    TextStream stream(codec(), {}, {"never", "aaaaaaab"});
    std::int64_t length = 0;
    for (std::int32_t i = 0; i < tokens; ++i) length += std::ssize(push(stream, i, {'a'}));
    EXPECT_EQ(length + std::ssize(stream.finish()), tokens);
    return static_cast<double>(std::clock() - start);
  };
  static_cast<void>(ticks(1000));
  const double once = std::min(ticks(20000), ticks(20000));
  EXPECT_LT(ticks(160000), 40 * once);  // 8 times the tokens; a quadratic one takes 64 times
}

}  // namespace
}  // namespace fastdllm::testing
