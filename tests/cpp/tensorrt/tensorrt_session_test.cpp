// What the TensorRT backend does with an engine that another session computes.
#include <gtest/gtest.h>

#include <cstdlib>
#include <future>
#include <numeric>

#include "fixture.hpp"

namespace fastdllm::testing {
namespace {

using fake_nvinfer::Enqueued;
using Ids = std::vector<std::int32_t>;

Ids prompt_of(std::int64_t length) {
  Ids ids(static_cast<std::size_t>(length));
  std::iota(ids.begin(), ids.end(), 0);
  for (std::int32_t& id : ids) id %= 10;
  return ids;
}

// One token per pass, in blocks of 8.
GenerationConfig slow(std::int64_t new_tokens = 16) {
  GenerationConfig config;
  config.max_new_tokens = new_tokens;
  config.block_length = 8;
  config.cache = CacheMode::dual;
  config.ignore_eos = true;
  return config;
}

using TensorRtSession = TensorRt;

TEST_F(TensorRtSession, DecodesAsTheSessionBehindIt) {
  for (const bool block_causal : {false, true}) {
    use(block_causal ? block_causal_package() : scripted_package());
    for (const CacheMode cache : {CacheMode::none, CacheMode::prefix, CacheMode::dual}) {
      for (const bool graph : {true, false}) {
        GenerationConfig config = slow(21);
        config.cache = cache;
        config.threshold = 0.79;
        options.cuda_graph = graph;
        Scripted plain(package);
        const GenerationResult expected = plain.engine.generate(prompt_of(5), config);
        scripted->passes.clear();
        const GenerationResult result = engine().generate(prompt_of(5), config);
        EXPECT_EQ(result.token_ids, expected.token_ids);
        EXPECT_EQ(result.logprobs, expected.logprobs);
        ASSERT_EQ(scripted->passes.size(), plain.session->passes.size());
        for (std::size_t i = 0; i < scripted->passes.size(); ++i) {
          EXPECT_EQ(scripted->passes[i].ids, plain.session->passes[i].ids) << i;
          EXPECT_EQ(scripted->passes[i].positions, plain.session->passes[i].positions) << i;
          EXPECT_EQ(scripted->passes[i].mask, plain.session->passes[i].mask) << i;
        }
        EXPECT_EQ(scripted->seen_past, plain.session->seen_past);
      }
    }
  }
}

// The shipped model, computed by ONNX Runtime on the memory of the fake GPU.
TEST_F(TensorRtSession, DecodesAWholeModelAsOnnxRuntimeDoes) {
  const char* folder_of_package = std::getenv("FASTDLLM_TEST_PACKAGE");
  if (folder_of_package == nullptr) GTEST_SKIP() << "FASTDLLM_TEST_PACKAGE names no package";
  const PackageInfo real = read_package(folder_of_package);
  const auto runs_it = open_session(real, {.threads = 1});
  use(real, {.batch = 3});
  fake_nvinfer::state().kernels = [&](fake_nvinfer::Work& work) { run_on(*runs_it, work, true); };
  Engine plain(folder_of_package, {.threads = 1}, {.max_batch = 4});
  Engine on_gpu = engine({.max_batch = 4});

  GenerationConfig config;
  config.max_new_tokens = 50;
  config.block_length = 16;
  config.threshold = 0.9;
  std::vector<GenerationConfig> configs(5, config);
  configs[1].cache = CacheMode::prefix;
  configs[2].temperature = 0.7;  // by the logits
  configs[3].cfg_scale = 0.5;    // a batch of two
  configs[4].remasking = Remasking::margin;
  std::vector<Request> expected, found;
  for (std::int32_t i = 0; i < 15; ++i) {
    const Ids prompt{1 + i, 40, 7, 300 - i};
    configs[static_cast<std::size_t>(i) % 5].seed = static_cast<std::uint64_t>(i);
    expected.push_back(plain.submit(prompt, configs[static_cast<std::size_t>(i) % 5]));
    found.push_back(on_gpu.submit(prompt, configs[static_cast<std::size_t>(i) % 5]));
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].result().token_ids, expected[i].result().token_ids) << i;
    EXPECT_EQ(found[i].result().logprobs, expected[i].result().logprobs) << i;
  }
  EXPECT_GT(fake_cuda::state().counts.copies_on_device, 0) << "no runs were shared";

  // Alone, so that its steps follow each other: side by side, they may all alternate.
  const Ids prompt = prompt_of(20);
  config.threshold.reset();
  EXPECT_EQ(on_gpu.generate(prompt, config).token_ids, plain.generate(prompt, config).token_ids);
  EXPECT_GT(fake_cuda::state().counts.graph_launches, 0);
}

TEST_F(TensorRtSession, ARefreshAndAStepHaveTheirProfiles) {
  options.cuda_graph = false;
  static_cast<void>(engine().generate(prompt_of(30), slow(8)));
  const std::vector<Enqueued>& runs = fake_nvinfer::state().runs;
  ASSERT_EQ(runs.size(), 8U);
  EXPECT_EQ(runs[0].profile, 0);
  EXPECT_EQ(runs[0].sizes.at("rows"), 38);
  EXPECT_EQ(runs[0].sizes.at("kept"), 32);
  for (std::size_t i = 1; i < runs.size(); ++i) {
    EXPECT_EQ(runs[i].profile, 1);
    EXPECT_EQ(runs[i].sizes.at("rows"), 8);
    EXPECT_EQ(runs[i].sizes.at("cached"), 32);
    EXPECT_EQ(runs[i].sizes.at("kept"), 0);
  }
}

TEST_F(TensorRtSession, PresentIsTheNextPastWithoutACopy) {
  options.cuda_graph = false;
  static_cast<void>(engine().generate(prompt_of(30), slow(8)));
  const std::vector<Enqueued>& runs = fake_nvinfer::state().runs;
  for (std::size_t i = 1; i < runs.size(); ++i) {
    for (const char* part : {"0.key", "0.value", "1.key", "1.value"}) {
      EXPECT_EQ(runs[i].addresses.at(std::string("past_key_values.") + part),
                runs[0].addresses.at(std::string("present.") + part));
    }
  }
  const fake_cuda::Counts& counts = fake_cuda::state().counts;
  EXPECT_EQ(counts.copies_on_device, 0);
  EXPECT_EQ(counts.copies_to_device, 8) << "one per pass";
  EXPECT_EQ(counts.copies_to_host, 8) << "one per pass";
}

TEST_F(TensorRtSession, StepsAreReplayedAsAGraph) {
  Engine made = engine();
  static_cast<void>(made.generate(prompt_of(30), slow(8)));
  const fake_cuda::Counts& counts = fake_cuda::state().counts;
  EXPECT_EQ(fake_nvinfer::state().runs.size(), 3U) << "refresh, first step, captured step";
  EXPECT_EQ(counts.captures, 1);
  EXPECT_EQ(counts.graph_launches, 6);
  EXPECT_EQ(scripted->passes.size(), 8U) << "the kernels of all passes ran";
  const int shape_changes = fake_nvinfer::state().shape_changes;
  const int address_changes = fake_nvinfer::state().address_changes;

  // The same again has the same shapes and addresses: nothing is told anew, and the refresh repeats
  // the one before it and is captured too.
  static_cast<void>(made.generate(prompt_of(30), slow(8)));
  EXPECT_EQ(counts.captures, 2);
  EXPECT_EQ(counts.graph_launches, 6 + 8);
  EXPECT_EQ(fake_nvinfer::state().shape_changes, shape_changes);
  EXPECT_EQ(fake_nvinfer::state().address_changes, address_changes);
}

TEST_F(TensorRtSession, AnotherShapeDropsTheGraph) {
  Engine made = engine();
  static_cast<void>(made.generate(prompt_of(30), slow(8)));
  static_cast<void>(made.generate(prompt_of(50), slow(8)));
  const fake_cuda::Counts& counts = fake_cuda::state().counts;
  EXPECT_EQ(counts.captures, 2);
  EXPECT_EQ(counts.graph_launches, 12);
  GenerationConfig margin = slow(8);
  margin.remasking = Remasking::margin;  // another output is bound
  static_cast<void>(made.generate(prompt_of(50), margin));
  EXPECT_EQ(counts.graph_frees, 2);
  EXPECT_EQ(counts.graph_launches, 18);
}

TEST_F(TensorRtSession, WithoutGraphsNothingIsCaptured) {
  options.cuda_graph = false;
  Scripted plain(package);
  EXPECT_EQ(engine().generate(prompt_of(9), slow()).token_ids,
            plain.engine.generate(prompt_of(9), slow()).token_ids);
  EXPECT_EQ(fake_cuda::state().counts.captures, 0);
}

TEST_F(TensorRtSession, RunsUncapturedWhereCaptureFails) {
  fake_nvinfer::state().fails_in_capture = true;
  Scripted plain(package);
  EXPECT_EQ(engine().generate(prompt_of(30), slow()).token_ids,
            plain.engine.generate(prompt_of(30), slow()).token_ids);
  EXPECT_EQ(fake_cuda::state().counts.graph_launches, 0);
  EXPECT_LE(fake_cuda::state().counts.captures, 2) << "once per profile, and never again";
}

TEST_F(TensorRtSession, ARunThatIsWarmAllocatesNothing) {
  Engine made = engine();
  static_cast<void>(made.generate(prompt_of(40), slow(24)));
  const fake_cuda::Counts before = fake_cuda::state().counts;
  static_cast<void>(made.generate(prompt_of(40), slow(24)));
  static_cast<void>(made.generate(prompt_of(20), slow(24)));
  EXPECT_EQ(fake_cuda::state().counts.allocations, before.allocations);
  EXPECT_EQ(fake_cuda::state().counts.pinned_allocations, before.pinned_allocations);
}

TEST_F(TensorRtSession, ARequestThatIsTooLargeIsRefusedBeforeItStarts) {
  use(scripted_package(), {.rows = 64, .cached = 48, .rows_per_step = 16});
  Engine made = engine();
  const auto refusal = [&](std::int64_t prompt, const GenerationConfig& config) {
    return refusal_of([&] { static_cast<void>(made.generate(prompt_of(prompt), config)); },
                      ErrorCode::bad_config);
  };
  GenerationConfig config = slow(8);
  config.cache = CacheMode::none;
  EXPECT_EQ(refusal(60, config),
            "the request needs passes of 68 rows; the engine takes 64 at most: build it with "
            "fastdllm build-engine --max-rows 68");
  EXPECT_EQ(refusal(50, slow(8)),
            "the request needs passes of 58 cached rows; the engine takes 48 at most: build it "
            "with fastdllm build-engine --max-context 58");
  config.block_length = 20;
  config.max_new_tokens = 20;
  EXPECT_EQ(refusal(5, config),
            "the request needs passes of 20 rows of logits; the engine takes 16 at most: build it "
            "with fastdllm build-engine --rows-per-step 20");
  config = slow(8);
  config.cfg_scale = 1.0;
  EXPECT_EQ(refusal(5, config),
            "the request needs passes of 2 batch rows; the engine takes 1 at most: build it with "
            "fastdllm build-engine --max-batch 2");
  EXPECT_TRUE(fake_nvinfer::state().runs.empty());
  EXPECT_EQ(refusal(40, slow(8)), "accepted");
}

TEST_F(TensorRtSession, APassThatNoProfileTakesIsRefused) {
  use(scripted_package(), {.rows = 64, .rows_per_step = 16});
  Engine made = engine();
  const Ids ids = prompt_of(70);
  const Ids positions{1};
  EXPECT_EQ(
      refusal_of([&] { (void)made.logits(ids, positions); }, ErrorCode::bad_config),
      "no profile of the engine takes this pass: input_ids is [1, 70]; the engine takes up to "
      "[1, 64]. Build the engine with larger --max-context, --max-rows, --rows-per-step or "
      "--max-batch");
  EXPECT_FALSE(made.generate(prompt_of(5), slow(8)).token_ids.empty());
}

TEST_F(TensorRtSession, RequestsShareRunsAsFarAsTheEngineGoes) {
  use(scripted_package(), {.batch = 3});
  Engine made = engine({.max_batch = 8});
  std::vector<Request> requests;
  // The first one waits for the others, so that they run side by side however fast a pass is.
  std::promise<void> all_are_there;
  const std::shared_future<void> others = all_are_there.get_future().share();
  requests.push_back(made.submit(prompt_of(20), slow(32), [&](const CommitEvent&) {
    others.wait();
    return true;
  }));
  while (std::ssize(requests) < 8) requests.push_back(made.submit(prompt_of(20), slow(32)));
  all_are_there.set_value();
  for (const Request& request : requests) EXPECT_EQ(request.result().token_ids.size(), 32U);
  std::int64_t most = 0;
  for (const RecordedPass& pass : scripted->passes) most = std::max(most, pass.batch);
  EXPECT_EQ(most, 3);
}

TEST_F(TensorRtSession, ARunThatFailsIsAnErrorOfItsRequestOnly) {
  Engine made = engine();
  Scripted plain(package);
  const GenerationResult expected = plain.engine.generate(prompt_of(30), slow());
  const auto ask = [&] { return made.generate(prompt_of(30), slow()); };
  EXPECT_EQ(ask().token_ids, expected.token_ids);

  fake_cuda::state().failures["cudaGraphLaunch"] = 700;
  EXPECT_EQ(refusal_of(ask), "CUDA failed in launching a graph: fake error (700)");
  fake_cuda::state().failures.clear();
  EXPECT_EQ(ask().token_ids, expected.token_ids);

  fake_nvinfer::state().fails_in_run = true;
  EXPECT_EQ(refusal_of([&] { (void)made.generate(prompt_of(31), slow()); }),
            "TensorRT failed in a pass: a kernel failed");
  fake_nvinfer::state().fails_in_run = false;
  EXPECT_EQ(ask().token_ids, expected.token_ids);
}

TEST_F(TensorRtSession, MemoryThatIsNotThereIsAnErrorOfItsRequestOnly) {
  Engine made = engine({.cache_bytes = 1 << 30});
  static_cast<void>(made.generate(prompt_of(5), slow(8)));
  fake_cuda::state().memory = fake_cuda::state().used + 1000;
  const std::string message =
      refusal_of([&] { static_cast<void>(made.generate(prompt_of(100), slow())); });
  EXPECT_NE(message.find("of K/V rows (1 MB are free on the GPU): out of memory"),
            std::string::npos)
      << message;
  fake_cuda::state().memory = std::size_t{512} << 20;
  EXPECT_EQ(made.generate(prompt_of(100), slow()).token_ids.size(), 16U);
}

TEST_F(TensorRtSession, TheCacheMayTakeHalfOfWhatIsFreeOnTheGpu) {
  EXPECT_EQ(open()->free_device_bytes() / 1'000'000, 536);  // 512 MiB
  fake_cuda::state().integrated = 1;
  EXPECT_EQ(open()->free_device_bytes(), 0) << "it is the host's";
  fake_cuda::state().integrated = 0;
  fake_cuda::state().memory = fake_cuda::state().used + 20'000;
  Engine small = engine();
  const std::string message = refusal_of(
      [&] { static_cast<void>(small.generate(prompt_of(200), slow())); }, ErrorCode::bad_config);
  EXPECT_NE(message.find("expected at most cache_bytes, "), std::string::npos) << message;
}

}  // namespace
}  // namespace fastdllm::testing
