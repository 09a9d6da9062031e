// Text in, text out, by a backend that is scripted: token i is the i-th letter.
#include "fastdllm/llm.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "fastdllm/error.hpp"
#include "scripted_session.hpp"
#include "text_package.hpp"

namespace fastdllm::testing {
namespace {

using namespace std::chrono_literals;
using Ids = std::vector<std::int32_t>;
using Strings = std::vector<std::string>;

// Every position p predicts the letter p % 10; `script` may say otherwise.
struct ScriptedLLM {
  explicit ScriptedLLM(ScriptedSession::Script script = own_position,
                       const PackageInfo& package = scripted_package(), bool chat = false)
      : files("llm", true) {
    auto made = std::make_unique<ScriptedSession>(package);
    session = made.get();
    session->script = std::move(script);
    if (chat) files.with_chat(letter_format());
    llm = std::make_unique<LLM>(Engine(package, std::move(made)), TextCodec(files.write()));
  }

  // Of letters that the tokenizer has.
  static nlohmann::json letter_format() {
    nlohmann::json format = chat_format();
    format["begin"] = "b";
    format["generation_prompt"] = "g";
    format["first_system"] = nullptr;
    for (auto& [role, turn] : format["roles"].items()) {
      turn["before"] = role.substr(0, 1) == "u" ? "c" : "a";
      turn["after"] = "d";
    }
    return format;
  }

  TextPackage files;
  ScriptedSession* session;
  std::unique_ptr<LLM> llm;
};

// Surest on the right: text waits for what is left of it.
Answer from_the_right(std::int64_t, std::int64_t position) {
  return {.token_id = position % 10, .confidence = 0.5 + 0.001 * static_cast<double>(position)};
}

// Keeps the engine's thread in a callback until it is opened.
class Gate {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

TEST(LLM, AnswersWithTextAndWhatTheEngineSays) {
  ScriptedLLM scripted;
  const Completion answer = scripted.llm->generate("ab", {.max_new_tokens = 4});
  EXPECT_EQ(answer.text, "cdef");
  EXPECT_EQ(answer.token_ids, (Ids{2, 3, 4, 5}));
  EXPECT_EQ(answer.logprobs.size(), 4U);
  EXPECT_EQ(answer.finish_reason, FinishReason::length);
  EXPECT_EQ(answer.stop, std::nullopt);
  EXPECT_EQ(answer.num_passes, 4);
  EXPECT_EQ(answer.prompt_tokens, 2);
  EXPECT_EQ(answer.completion_tokens, 4);
  EXPECT_GT(answer.stats.rows_computed, 0);
}

TEST(LLM, WithoutAConfigTheThresholdIsThePapers) {
  EXPECT_EQ(default_text_config().threshold, 0.9);
  ScriptedLLM scripted(
      [](auto, std::int64_t) { return Answer{.token_id = 1, .confidence = 0.95}; });
  EXPECT_EQ(scripted.llm->generate("a").num_passes, 4);  // of 128 tokens, 32 at once
}

TEST(LLM, EndsWithTheEndOfTextTokenAndCountsIt) {
  const auto ends_at_6 = [](auto, std::int64_t position) {
    return Answer{.token_id = position == 6 ? eos_id : position, .confidence = 0.95};
  };
  ScriptedLLM scripted(ends_at_6);
  const Completion answer = scripted.llm->generate("abcd", {.max_new_tokens = 8, .threshold = 0.9});
  EXPECT_EQ(answer.text, "ef");
  EXPECT_EQ(answer.token_ids, (Ids{4, 5, eos_id}));
  EXPECT_EQ(answer.completion_tokens, 3);
  EXPECT_EQ(answer.finish_reason, FinishReason::stop);
  const Completion block = scripted.llm->generate(
      "abcd", {.max_new_tokens = 8, .block_length = 4, .threshold = 0.9, .stop_at = StopAt::block});
  EXPECT_EQ(block.text, "efh");
  EXPECT_EQ(block.completion_tokens, 3);
  EXPECT_EQ(block.token_ids.size(), 4U);
  const Completion whole =
      scripted.llm->generate("abcd", {.max_new_tokens = 8, .threshold = 0.9, .ignore_eos = true});
  EXPECT_EQ(whole.text, "efhijkl");
  EXPECT_EQ(whole.completion_tokens, 8);
  EXPECT_EQ(whole.finish_reason, FinishReason::length);
}

TEST(LLM, AStopStringEndsTheRequestWithThePassThatCompletesIt) {
  ScriptedLLM scripted;
  const Completion answer =
      scripted.llm->generate("", {.max_new_tokens = 64}, {.stop = {"zz", "def"}});
  EXPECT_EQ(answer.text, "abc");
  EXPECT_EQ(answer.stop, "def");
  EXPECT_EQ(answer.finish_reason, FinishReason::stop);
  EXPECT_EQ(answer.token_ids, (Ids{0, 1, 2}));
  EXPECT_EQ(answer.logprobs.size(), 3U);
  EXPECT_EQ(answer.completion_tokens, 6);
  EXPECT_EQ(answer.num_passes, 6);
  EXPECT_EQ(scripted.session->runs, 6);
}

TEST(LLM, PiecesAddUpToTheTextWhateverTheOrder) {
  for (const auto& script :
       {ScriptedSession::Script(own_position), ScriptedSession::Script(from_the_right)}) {
    for (const Strings& stop : {Strings{}, Strings{"fgz"}, Strings{"hi"}}) {
      ScriptedLLM scripted(script);
      std::string pieces;
      std::int64_t passes = 0;
      const Completion answer = scripted.llm->generate("", {.max_new_tokens = 7, .block_length = 3},
                                                       {.stop = stop}, [&](const TextEvent& event) {
                                                         pieces += event.piece;
                                                         passes +=
                                                             event.commit.positions.empty() ? 0 : 1;
                                                         EXPECT_EQ(event.text, pieces);
                                                         return true;
                                                       });
      EXPECT_EQ(answer.text, "abcdefg");
      EXPECT_EQ(pieces, answer.text);
      EXPECT_EQ(passes, answer.num_passes);
    }
  }
}

TEST(LLM, ACallbackEndsItsAnswerAndIsNotCalledAgain) {
  ScriptedLLM scripted;
  int calls = 0;
  const Completion answer = scripted.llm->generate("", {.max_new_tokens = 9}, {.stop = {"cz"}},
                                                   [&](const TextEvent&) { return ++calls < 3; });
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(answer.text, "abc");
  EXPECT_EQ(answer.finish_reason, FinishReason::abort);
}

TEST(LLM, WhatACallbackThrowsComesOutOfResultEachTime) {
  ScriptedLLM scripted;
  const TextRequest request =
      scripted.llm->submit("", {.max_new_tokens = 9}, {},
                           [](const TextEvent&) -> bool { throw std::runtime_error("enough"); });
  EXPECT_THROW(static_cast<void>(request.result()), std::runtime_error);
  EXPECT_THROW(static_cast<void>(request.result()), std::runtime_error);
  EXPECT_EQ(scripted.llm->generate("", {.max_new_tokens = 2}).text, "ab");
}

TEST(LLM, TokensThatCanBeEditedAreTextWithTheirBlock) {
  // Position 1 is "z" first and edited to "b" once the block is filled.
  const auto edits = [](std::int64_t pass, std::int64_t position) {
    const bool early = pass < 4;
    return Answer{.token_id = position == 1 && early ? 13 : position % 10, .confidence = 0.9};
  };
  ScriptedLLM scripted(edits);
  std::string pieces;
  bool unfinished_text = false;
  const Completion answer = scripted.llm->generate(
      "", {.max_new_tokens = 8, .block_length = 4, .editing_threshold = 0.5}, {},
      [&](const TextEvent& event) {
        pieces += event.piece;
        unfinished_text |= !event.piece.empty() && !event.commit.block_finished;
        return true;
      });
  EXPECT_EQ(answer.text, "abcdefgh");
  EXPECT_EQ(pieces, answer.text);
  EXPECT_FALSE(unfinished_text);
}

TEST(LLM, APromptIsAMessageWhereThereIsAChatTemplate) {
  ScriptedLLM scripted(own_position, scripted_package(), true);
  EXPECT_EQ(scripted.llm->encode("a"), (Ids{1, 2, 0, 3, 6}));  // b c a d g
  EXPECT_EQ(scripted.llm->encode("a", true), Ids{0});
  const std::vector<Message> messages{{"user", "a"}, {"assistant", "e"}, {"user", "f"}};
  const Completion answer = scripted.llm->chat(messages, {.max_new_tokens = 2});
  EXPECT_EQ(answer.prompt_tokens, 11);
  EXPECT_EQ(answer.text, "bc");
  EXPECT_EQ(scripted.llm->generate("a", {.max_new_tokens = 1}, {.raw = true}).prompt_tokens, 1);
  const std::vector<Message> tool{{"tool", "a"}};
  EXPECT_THROW(static_cast<void>(scripted.llm->chat(tool)), Error);
}

TEST(LLM, RefusesBadInputBeforeAnyPass) {
  ScriptedLLM scripted;
  const auto refused = [&](std::string_view prompt, const GenerationConfig& config,
                           const TextOptions& options) {
    try {
      static_cast<void>(scripted.llm->generate(prompt, config, options));
      return false;
    } catch (const Error& error) {
      return error.code() == ErrorCode::bad_config;
    }
  };
  EXPECT_TRUE(refused("", {}, {.stop = {""}}));
  EXPECT_TRUE(refused("", {.max_new_tokens = 0}, {}));
  EXPECT_TRUE(refused("a<|mask|>", {}, {}));
  EXPECT_EQ(scripted.session->runs, 0);
}

TEST(LLM, ACancelledAnswerHasTheTextSoFar) {
  ScriptedLLM scripted;
  Gate gate;
  std::atomic<int> calls{0};
  std::string pieces;
  const TextRequest request = scripted.llm->submit("", {.max_new_tokens = 300}, {.stop = {"cz"}},
                                                   [&](const TextEvent& event) {
                                                     pieces += event.piece;
                                                     if (++calls == 3) gate.pass();
                                                     return true;
                                                   });
  EXPECT_FALSE(request.wait_for(1ms));
  while (calls < 3) std::this_thread::sleep_for(1ms);
  request.cancel();
  gate.open();
  const Completion answer = request.result();
  EXPECT_EQ(answer.finish_reason, FinishReason::abort);
  EXPECT_EQ(answer.text, "abc");  // "c" was held back, and is given out at the end
  EXPECT_EQ(pieces, answer.text);
  EXPECT_TRUE(request.done());
  request.cancel();
  EXPECT_EQ(request.result().text, "abc");
}

TEST(LLM, AnAnswerThatEndsWithThePassKeepsItsEndWhoeverEndsItThen) {
  ScriptedLLM scripted;
  Gate gate;
  TextRequest request;
  request = scripted.llm->submit("", {.max_new_tokens = 3}, {}, [&](const TextEvent& event) {
    gate.pass();
    if (event.text == "abc") request.cancel();
    return true;
  });
  gate.open();
  EXPECT_EQ(request.result().finish_reason, FinishReason::length);
  EXPECT_EQ(request.result().text, "abc");

  const auto says_no = [](const TextEvent& event) { return event.text != "abc"; };
  EXPECT_EQ(scripted.llm->generate("", {.max_new_tokens = 3}, {}, says_no).finish_reason,
            FinishReason::length);
  // A stop string and the reader's no in one pass.
  const auto at_c = [](const TextEvent& event) { return event.text != "ab"; };
  const Completion stopped =
      scripted.llm->generate("", {.max_new_tokens = 9}, {.stop = {"c"}}, at_c);
  EXPECT_EQ(stopped.text, "ab");
}

TEST(LLM, AnAnswerMayBeAskedForByManyThreadsAndOutliveTheLLM) {
  TextRequest request, left;
  Gate gate;
  std::atomic<int> done{0};
  std::jthread opener;
  {
    ScriptedLLM scripted;
    request = scripted.llm->submit("ab", {.max_new_tokens = 5}, {}, {}, [&] { ++done; });
    {
      std::vector<std::jthread> threads;
      for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] { EXPECT_EQ(request.result().text, "cdefg"); });
      }
    }
    left = scripted.llm->submit(
        "", {.max_new_tokens = 300}, {},
        [&](const TextEvent&) {
          gate.pass();
          return true;
        },
        [&] { ++done; });
    opener = std::jthread([&] {
      std::this_thread::sleep_for(20ms);
      gate.open();
    });
  }
  EXPECT_EQ(request.result().text, "cdefg");
  EXPECT_EQ(left.result().finish_reason, FinishReason::abort);
  EXPECT_EQ(done, 2);
}

TEST(LLM, OnDoneHasReturnedBeforeAnotherThreadHasTheAnswer) {
  ScriptedLLM scripted;
  for (int i = 0; i < 20; ++i) {
    Gate assigned, begun;
    std::atomic<bool> returned{false};
    TextRequest request;
    request = scripted.llm->submit("ab", {.max_new_tokens = 5}, {}, {}, [&] {
      assigned.pass();
      EXPECT_TRUE(request.wait_for({}));  // here it is there
      EXPECT_EQ(request.result().text, "cdefg");
      begun.open();
      std::this_thread::sleep_for(2ms);
      returned = true;
    });
    assigned.open();
    begun.pass();
    EXPECT_TRUE(request.done());
    EXPECT_EQ(request.result().text, "cdefg");
    EXPECT_TRUE(returned);
  }
}

TEST(LLM, ACallThatWouldWaitForItselfIsRefused) {
  ScriptedLLM scripted;
  TextRequest inner;
  const Completion outer =
      scripted.llm->generate("", {.max_new_tokens = 1}, {}, [&](const TextEvent&) {
        EXPECT_THROW(static_cast<void>(scripted.llm->generate("")), Error);
        inner = scripted.llm->submit("a", {.max_new_tokens = 2});
        EXPECT_THROW(static_cast<void>(inner.result()), Error);
        return true;
      });
  EXPECT_EQ(outer.text, "a");
  EXPECT_EQ(inner.result().text, "bc");
}

TEST(LLM, ThreadsGetTheirOwnAnswers) {
  ScriptedLLM scripted;
  const auto work = [&](std::size_t length) {
    const std::string prompt(length, 'a');
    const std::string all = "abcdefghij";
    for (int i = 0; i < 40; ++i) {
      std::string pieces;
      const Completion answer = scripted.llm->generate(
          prompt, {.max_new_tokens = 6}, {.stop = i % 2 == 0 ? Strings{} : Strings{"nothing"}},
          [&](const TextEvent& event) {
            pieces += event.piece;
            return true;
          });
      EXPECT_EQ(answer.text, (all + all).substr(length % 10, 6));
      EXPECT_EQ(pieces, answer.text);
    }
  };
  std::vector<std::jthread> threads;
  for (const std::size_t length : {1U, 4U, 7U}) threads.emplace_back([&, length] { work(length); });
}

}  // namespace
}  // namespace fastdllm::testing
