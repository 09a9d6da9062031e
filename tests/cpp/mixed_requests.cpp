#include "mixed_requests.hpp"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <initializer_list>
#include <mutex>
#include <random>
#include <sstream>
#include <thread>
#include <utility>

namespace fastdllm::testing {
namespace {

// The distributions of <random> differ from library to library, the engine does not.
class Dice {
 public:
  explicit Dice(std::uint32_t seed) : engine_(seed) {}
  std::int64_t below(std::int64_t limit) { return static_cast<std::int64_t>(engine_()) % limit; }
  bool one_in(std::int64_t count) { return below(count) == 0; }
  template <typename T>
  T of(std::initializer_list<T> values) {
    return values.begin()[below(std::ssize(values))];
  }

 private:
  std::mt19937 engine_;
};

void choose_rule(Dice& dice, GenerationConfig& config, bool entropies) {
  switch (dice.below(entropies ? 10 : 8)) {
    case 0: config.threshold = 0.4; break;
    case 1:
      config.threshold = 0.9;
      config.threshold_decay = 0.5;
      break;
    case 2: config.factor = 1.0; break;
    case 3: config.frechet = 0.25; break;
    case 4: config.steps = 9; break;
    case 5:
      config.steps_per_block = 3;
      config.alg_temp = dice.of({0.0, 0.5});
      break;
    case 6:
      config.threshold = 0.2;
      config.remasking = Remasking::margin;
      break;
    case 7:
      config.eps = 0.01;
      config.steps = 12;
      config.remasking = Remasking::random;
      break;
    case 8: config.entropy_bound = 1.0; break;
    default: config.remasking = Remasking::entropy; break;
  }
}

std::int32_t token_of(Dice& dice, const PackageInfo& package) {
  const auto id = static_cast<std::int32_t>(dice.below(package.vocab_size));
  return id == package.mask_token_id ? token_of(dice, package) : id;
}

void choose_sampling(Dice& dice, GenerationConfig& config, const PackageInfo& package) {
  const auto any = [&] { return token_of(dice, package); };
  config.seed = static_cast<std::uint64_t>(dice.below(5));
  if (dice.one_in(3)) config.temperature = 0.7;
  if (dice.one_in(6)) config.top_p = 0.8;
  if (dice.one_in(6)) config.top_k = 5;
  if (dice.one_in(8)) config.cfg_scale = 0.7;
  if (dice.one_in(6)) config.logit_bias = {{any(), 2.0}};
  if (dice.one_in(6)) config.banned_token_ids = {any(), any()};
  if (dice.one_in(3)) config.stop_token_ids = {{any(), any()}};
  config.ignore_eos = dice.one_in(3);
}

GenerationConfig config_of(Dice& dice, const PackageInfo& package, bool entropies) {
  GenerationConfig config;
  config.max_new_tokens = dice.of({1, 4, 12, 24, 40});
  config.block_length = dice.of({4, 8, 16});
  config.cache = dice.of(
      {CacheMode::none, CacheMode::prefix, CacheMode::dual, CacheMode::dual, CacheMode::automatic});
  choose_rule(dice, config, entropies);
  choose_sampling(dice, config, package);
  if (dice.one_in(6)) config.refresh_interval = 2;
  if (package.attention == AttentionKind::block_causal) {
    if (package.seed_token && dice.one_in(2)) config.sub_block_length = 4;
  } else if (config.threshold && dice.one_in(2)) {
    config.deferred_window = 24;
  } else if (dice.one_in(4)) {
    config.suffix_window = 6;
  } else if (config.threshold && dice.one_in(2)) {
    config.editing_threshold = 0.9;
  }
  if (!config.deferred_window && dice.one_in(6)) config.stop_at = StopAt::block;
  return config;
}

std::string describe(const Asked& asked, const GenerationResult& found,
                     const GenerationResult& expected) {
  std::ostringstream text;
  text << (asked.infill ? "infill of " : "prompt of ") << asked.ids.size() << " ids, cache "
       << name_of(asked.config.cache) << ", " << asked.config.max_new_tokens << " new tokens:";
  const auto tell = [&](const GenerationResult& result) {
    for (const std::int32_t id : result.token_ids) text << ' ' << id;
    text << ", " << name_of(result.finish_reason);
  };
  tell(found);
  text << "; expected";
  tell(expected);
  return text.str();
}

bool is_right(const Asked& asked, const GenerationResult& found, const GenerationResult& alone) {
  if (found.finish_reason != FinishReason::abort) {
    return found.token_ids == alone.token_ids && found.logprobs == alone.logprobs &&
           found.finish_reason == alone.finish_reason;
  }
  // What an editing rule had yet to overwrite is no beginning of the answer.
  return asked.infill || asked.config.editing_threshold ||
         (found.token_ids.size() <= alone.token_ids.size() &&
          std::equal(found.token_ids.begin(), found.token_ids.end(), alone.token_ids.begin()));
}

}  // namespace

Request Asked::submit(Engine& engine, CommitCallback on_commit, DoneCallback on_done) const {
  return infill ? engine.submit_infill(ids, config, std::move(on_commit), std::move(on_done))
                : engine.submit(ids, config, std::move(on_commit), std::move(on_done));
}

std::vector<Asked> mixed_requests(const PackageInfo& package, std::int64_t count, bool entropies) {
  Dice dice(4);
  std::vector<Asked> all;
  while (std::ssize(all) < count) {
    Asked asked;
    const std::int64_t length = dice.of({1, 2, 8, 19, 31, 60});
    while (std::ssize(asked.ids) < length) asked.ids.push_back(token_of(dice, package));
    asked.config = config_of(dice, package, entropies);
    if (dice.one_in(5)) {
      asked.infill = true;
      for (std::size_t i = 1; i < asked.ids.size(); ++i) {
        if (dice.one_in(3)) asked.ids[i] = package.mask_token_id;
      }
      asked.ids.push_back(package.mask_token_id);
    }
    all.push_back(std::move(asked));
  }
  return all;
}

std::vector<GenerationResult> answer_all(Engine& engine, std::span<const Asked> asked) {
  std::vector<GenerationResult> answers;
  for (const Asked& one : asked) answers.push_back(one.submit(engine).result());
  return answers;
}

std::vector<std::string> differences_side_by_side(Engine& engine, std::span<const Asked> asked,
                                                  std::span<const GenerationResult> alone,
                                                  std::int64_t threads, std::int64_t per_thread) {
  std::mutex mutex;
  std::vector<std::string> wrong;
  const auto note = [&](std::string text) {
    const std::lock_guard lock(mutex);
    wrong.push_back(std::move(text));
  };
  const auto look = [&](std::size_t index, const Request& request) {
    try {
      const GenerationResult found = request.result();
      if (!is_right(asked[index], found, alone[index])) {
        note(describe(asked[index], found, alone[index]));
      }
    } catch (const std::exception& problem) {
      note(problem.what());
    }
  };
  const auto client = [&](std::int64_t number) {
    constexpr std::size_t max_under_way = 4;
    Dice dice(static_cast<std::uint32_t>(number) + 1);
    std::deque<std::pair<std::size_t, Request>> under_way;
    for (std::int64_t i = 0; i < per_thread; ++i) {
      const auto index = static_cast<std::size_t>((number * per_thread + i) % std::ssize(asked));
      if (dice.one_in(10)) {
        under_way.emplace_back(index, asked[index].submit(engine));
        under_way.back().second.cancel();
      }
      under_way.emplace_back(index, asked[index].submit(engine));
      while (under_way.size() >= max_under_way) {
        look(under_way.front().first, under_way.front().second);
        under_way.pop_front();
      }
    }
    for (const auto& [index, request] : under_way) look(index, request);
  };
  std::vector<std::thread> clients;
  for (std::int64_t t = 0; t < threads; ++t) clients.emplace_back(client, t);
  for (std::thread& thread : clients) thread.join();
  return wrong;
}

}  // namespace fastdllm::testing
