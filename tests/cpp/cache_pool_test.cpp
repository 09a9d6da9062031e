// The memory of requests as they come and go: no thread, no model.
#include "loop/cache_pool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "fastdllm/error.hpp"
#include "scripted_session.hpp"

namespace fastdllm::testing {
namespace {

using Ids = std::vector<std::int32_t>;

// Of the scripted package: two layers, keys and values, two heads of four floats.
constexpr std::int64_t bytes_of_row = 2 * 2 * 2 * 4 * 4;
constexpr std::int64_t rows = 32;

std::int64_t nothing(const BlockCache&) {
  return 0;
}

struct Pool {
  explicit Pool(const EngineLimits& limits, bool shares = false,
                PackageInfo of = scripted_package())
      : package(std::move(of)), session(package), pool(session, package, limits, shares) {}

  // A request that was admitted and has its cache.
  Lease request(std::int64_t of_rows = rows, std::int64_t batch = 1) {
    Lease lease = pool.lease({.rows = of_rows, .batch = batch});
    EXPECT_TRUE(pool.admit(lease));
    pool.open(lease, nothing);
    return lease;
  }
  // It commits rows of these tokens and ends.
  void converse(const Ids& ids) {
    Lease lease = request(std::ssize(ids));
    lease.cache->drop_committed(4);
    lease.cache->refresh(std::ssize(ids), std::ssize(ids), std::ssize(ids));
    lease.cache->commit(ids);
    pool.give_back(lease);
  }

  PackageInfo package;
  ScriptedSession session;
  CachePool pool;
};

Ids ids_from(std::int32_t first) {
  Ids ids(static_cast<std::size_t>(rows));
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

TEST(CachePool, SetsAsideWhatARequestMayComeToHold) {
  Pool alone({.cache_bytes = 1 << 20});
  EXPECT_EQ(alone.pool.lease({.rows = rows, .batch = 1}).bytes(), rows * bytes_of_row);
  EXPECT_EQ(alone.pool.lease({.rows = rows, .batch = 2}).bytes(), 2 * rows * bytes_of_row);
  Pool shared({.cache_bytes = 1 << 20}, true);
  EXPECT_EQ(shared.pool.lease({.rows = rows, .batch = 1}).stacked, rows * bytes_of_row);
  EXPECT_EQ(shared.pool.lease({.rows = rows, .batch = 2}).stacked, 0);  // guided: runs alone
  Pool causal({.cache_bytes = 1 << 20}, false, block_causal_package());
  EXPECT_EQ(causal.pool.lease({.rows = rows, .batch = 1}).own, 2 * rows * bytes_of_row);
  EXPECT_EQ(alone.pool.used_bytes(), 0);
}

PackageInfo that_holds_scores() {
  PackageInfo package = scripted_package();
  package.score_bytes = 10;
  return package;
}

TEST(CachePool, CountsScoresWhereTheGraphHoldsThemAll) {
  Pool p({.cache_bytes = 5000}, false, that_holds_scores());
  EXPECT_EQ(p.pool.lease({.pairs = 100}).bytes(), 1000);
  EXPECT_EQ(p.pool.lease({.batch = 2, .pairs = 100}).bytes(), 2000);
  EXPECT_EQ(p.pool.lease({.rows = 1, .pairs = 100}).bytes(), 1000 + bytes_of_row);
  Lease one = p.pool.lease({.pairs = 300}), two = p.pool.lease({.pairs = 300});
  EXPECT_TRUE(p.pool.admit(one));
  EXPECT_FALSE(p.pool.admit(two));
  p.pool.give_back(one);
  EXPECT_TRUE(p.pool.admit(two));
  EXPECT_EQ(p.pool.used_bytes(), 3000);
  EXPECT_EQ(Pool({.cache_bytes = 5000}).pool.lease({.pairs = 100}).bytes(), 0);
}

TEST(CachePool, ScoresThatNeverFitAreRefusedByName) {
  Pool p({.cache_bytes = 5000}, false, that_holds_scores());
  for (const std::int64_t pairs : {std::int64_t{501}, std::int64_t{1} << 62}) {
    try {
      static_cast<void>(p.pool.lease({.pairs = pairs}));
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::bad_config);
      const std::string text = error.what();
      EXPECT_NE(text.find("for attention scores, which this graph holds all at once"), text.npos);
      EXPECT_NE(text.find("cache_bytes, 5000"), text.npos) << text;
    }
  }
}

TEST(CachePool, AdmitsWhileThereIsRoomAndGivesItBack) {
  Pool p({.cache_bytes = 2 * rows * bytes_of_row});
  Lease one = p.request(), two = p.request();
  EXPECT_EQ(p.pool.used_bytes(), 2 * rows * bytes_of_row);
  Lease three = p.pool.lease({.rows = 1, .batch = 1});
  EXPECT_FALSE(p.pool.admit(three));
  p.pool.give_back(one);
  EXPECT_TRUE(p.pool.admit(three));
  p.pool.give_back(two);
  p.pool.give_back(three);
  EXPECT_EQ(p.pool.used_bytes(), 0);
  EXPECT_EQ(p.pool.stacked_bytes(), 0);
}

TEST(CachePool, ALeaseThatWasNeverAdmittedTakesNothingAlong) {
  Pool p({.cache_bytes = 1 << 20}, true);
  Lease running = p.request(), waiting = p.pool.lease({.rows = rows, .batch = 1});
  p.pool.give_back(waiting);
  EXPECT_EQ(p.pool.used_bytes(), 2 * rows * bytes_of_row);
  EXPECT_EQ(p.pool.stacked_bytes(), rows * bytes_of_row);
  p.pool.give_back(running);
}

TEST(CachePool, WhatCanNeverFitIsRefused) {
  Pool p({.cache_bytes = rows * bytes_of_row - 1});
  EXPECT_THROW(static_cast<void>(p.pool.lease({.rows = rows, .batch = 1})), Error);
}

TEST(CachePool, ARequestGoesOnFromTheCacheThatHasMostOfIt) {
  Pool p({.max_batch = 4, .cache_bytes = 1 << 20}, false, block_causal_package());
  p.converse(ids_from(0));
  p.converse(ids_from(100));
  Lease lease = p.pool.lease({.rows = rows, .batch = 1});
  ASSERT_TRUE(p.pool.admit(lease));
  p.pool.open(lease, [](const BlockCache& cache) { return cache.reusable_rows(ids_from(100), 4); });
  EXPECT_EQ(lease.cache->reusable_rows(ids_from(100), 4), rows);
  EXPECT_EQ(p.pool.num_idle(), 1);
}

TEST(CachePool, ConversationsAreKeptWhileThereIsAPlaceForThem) {
  Pool p({.max_batch = 2, .cache_bytes = 1 << 20}, false, block_causal_package());
  p.converse(ids_from(0));
  p.converse(ids_from(100));
  EXPECT_EQ(p.pool.num_idle(), 2);
  Lease lease = p.request();  // both places are taken: the oldest is written over
  EXPECT_EQ(lease.cache->reusable_rows(ids_from(0), 4), rows);
  EXPECT_EQ(p.pool.num_idle(), 1);
}

TEST(CachePool, TheOldestConversationsGoWhereMemoryIsWanted) {
  // Each conversation holds the rows once, a request sets them aside twice.
  Pool p({.max_batch = 8, .cache_bytes = 4 * rows * bytes_of_row}, false, block_causal_package());
  for (const std::int32_t first : {0, 100, 200}) p.converse(ids_from(first));
  EXPECT_EQ(p.pool.num_idle(), 3);
  Lease lease = p.request();
  EXPECT_EQ(p.pool.num_idle(), 2);
  const auto of_the_last = [](const BlockCache& c) { return c.reusable_rows(ids_from(200), 4); };
  Lease next = p.pool.lease({.rows = rows, .batch = 1});
  ASSERT_TRUE(p.pool.admit(next));
  p.pool.open(next, of_the_last);
  EXPECT_EQ(of_the_last(*next.cache), rows);
  EXPECT_EQ(p.pool.used_bytes(), 4 * rows * bytes_of_row);
  EXPECT_EQ(p.pool.num_idle(), 0);
}

TEST(CachePool, TheMemoryOfALargerFormerRequestIsChargedOrLeft) {
  for (const bool room : {true, false}) {
    Pool p({.max_batch = 1, .cache_bytes = (room ? 65 : 64) * bytes_of_row});
    Lease large = p.request(64);
    large.cache->refresh(64, 64, 64);
    p.pool.give_back(large);
    Lease small = p.request(8);
    if (room) {
      EXPECT_EQ(small.cache->bytes(), 64 * bytes_of_row);
      EXPECT_EQ(p.pool.used_bytes(), 64 * bytes_of_row);
    }
    EXPECT_LE(p.pool.used_bytes(), (room ? 65 : 64) * bytes_of_row);
    EXPECT_EQ(p.pool.used_bytes(), std::max(small.cache->bytes(), 8 * bytes_of_row));
  }
}

TEST(CachePool, AGuidedRequestsCacheIsWrittenOverByAnotherOnly) {
  Pool p({.max_batch = 4, .cache_bytes = 1 << 20});
  Lease guided = p.request(rows, 2);
  const BlockCache* made = guided.cache.get();
  p.pool.give_back(guided);
  EXPECT_NE(p.request(rows, 1).cache.get(), made);
  EXPECT_EQ(p.request(rows, 2).cache.get(), made);
}

}  // namespace
}  // namespace fastdllm::testing
