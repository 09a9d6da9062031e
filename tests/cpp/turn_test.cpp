// Who is next and who shares a run, as values: no thread, no model.
#include "loop/turn.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace fastdllm::testing {
namespace {

using Indices = std::vector<std::size_t>;

bool always(std::size_t, std::size_t) {
  return true;
}
bool never(std::size_t, std::size_t) {
  return false;
}

// Whose passes are run, one letter each, groups in brackets.
std::string order_of(std::vector<Turn> turns, int runs, std::int64_t max_batch,
                     const CanShare& can_share) {
  std::string order;
  for (int i = 0; i < runs; ++i) {
    const Indices chosen = choose_turns(turns, max_batch, can_share);
    if (chosen.size() > 1) order += '(';
    for (const std::size_t index : chosen) order += static_cast<char>('a' + index);
    if (chosen.size() > 1) order += ')';
    note_run(turns, chosen);
  }
  return order;
}

TEST(Turn, NobodyIsNextWhereNobodyWants) {
  EXPECT_EQ(choose_turns({}, 8, always), Indices{});
}

TEST(Turn, EqualsTakeTurnsInTheirOrder) {
  const Turn turn{.size = 100, .rows = 10};
  EXPECT_EQ(order_of({turn, turn, turn}, 7, 1, never), "abcabca");
}

TEST(Turn, WhatIsNewComesFirst) {
  std::vector<Turn> turns(2, {.size = 100, .rows = 10, .served = 1e5});
  turns.push_back({.size = 100, .rows = 10});
  EXPECT_EQ(choose_turns(turns, 1, never), Indices{2});
}

TEST(Turn, TheShareShrinksWithTheSquareOfTheSize) {
  // Ten times as large: the small one has a hundred rows computed for each of the large one's.
  const Turn large{.size = 1000, .rows = 10}, small{.size = 100, .rows = 10};
  const std::string order = order_of({large, small}, 9, 1, never);
  EXPECT_EQ(order, "abbbbbbbb");
}

TEST(Turn, WhoWaitedForSixteenTimesItsRowsIsNextWhateverItsShare) {
  const Turn had_much{.size = 100, .rows = 10, .served = 1e9}, other{.size = 60, .rows = 10};
  EXPECT_EQ(order_of({had_much, other}, 18, 1, never), "bbbbbbbbbbbbbbbbab");
}

TEST(Turn, RowsOfRequestsOfLessThanHalfItsSizeCountTwice) {
  const Turn large{.size = 1000, .rows = 10}, small{.size = 100, .rows = 10};
  EXPECT_EQ(order_of({large, small}, 20, 1, never), "abbbbbbbbabbbbbbbbab");
}

TEST(Turn, TheOneThatWaitedLongestComesFirstOfThose) {
  const std::vector<Turn> turns{{.size = 1, .rows = 1},
                                {.size = 9, .rows = 1, .served = 5, .postponed = 17},
                                {.size = 9, .rows = 1, .served = 5, .postponed = 18}};
  EXPECT_EQ(choose_turns(turns, 1, never), Indices{2});
}

TEST(Turn, ThoseThatCanShareJoinTheNextOneUpToTheLargestBatch) {
  const Turn turn{.size = 100, .rows = 10};
  EXPECT_EQ(order_of({turn, turn, turn}, 2, 8, always), "(abc)(abc)");
  EXPECT_EQ(order_of({turn, turn, turn}, 3, 2, always), "(ab)(ca)(ba)");
  const auto even = [](std::size_t a, std::size_t b) { return a % 2 == b % 2; };
  EXPECT_EQ(order_of({turn, turn, turn, turn}, 2, 8, even), "(ac)(bd)");
}

TEST(Turn, OneOfMoreThanTwiceTheSizeDoesNotJoin) {
  const std::vector<Turn> turns{{.size = 100, .rows = 1},
                                {.size = 200, .rows = 1, .served = 1},
                                {.size = 201, .rows = 1, .served = 1}};
  EXPECT_EQ(choose_turns(turns, 8, always), (Indices{0, 1}));
  // The small one joins the large one's pass.
  const std::vector<Turn> other{{.size = 100, .rows = 1, .served = 1}, {.size = 300, .rows = 1}};
  EXPECT_EQ(choose_turns(other, 8, always), (Indices{1, 0}));
}

TEST(Turn, ARunIsChargedToItsRequestsAndPutsTheOthersOff) {
  std::vector<Turn> turns{{.size = 10, .rows = 3, .postponed = 7},
                          {.size = 2, .rows = 5},
                          {.size = 4, .rows = 6, .served = 1, .postponed = 1}};
  note_run(turns, Indices{0, 1});
  EXPECT_EQ(turns[0].served, 300.0);
  EXPECT_EQ(turns[1].served, 20.0);
  EXPECT_EQ(turns[2].served, 1.0);
  EXPECT_EQ(turns[0].postponed, 0);
  EXPECT_EQ(turns[1].postponed, 0);
  EXPECT_EQ(turns[2].postponed, 9);
}

TEST(Turn, NobodyStarvesWhateverTheSizes) {
  std::vector<Turn> turns;
  for (int i = 0; i < 8; ++i) {
    turns.push_back({.size = 10.0 * (1 << i), .rows = 4 + 16 * (i % 3)});
  }
  std::vector<std::int64_t> longest(turns.size());
  for (int run = 0; run < 20'000; ++run) {
    note_run(turns, choose_turns(turns, 1, never));
    for (std::size_t i = 0; i < turns.size(); ++i) {
      longest[i] = std::max(longest[i], turns[i].postponed);
    }
  }
  for (std::size_t i = 0; i < turns.size(); ++i) {
    EXPECT_LE(longest[i], 16 * turns[i].rows + 2 * 8 * 36) << i;
  }
}

}  // namespace
}  // namespace fastdllm::testing
