#include "fastdllm/llm.hpp"

#include <algorithm>
#include <future>
#include <map>
#include <mutex>
#include <numeric>
#include <utility>

namespace fastdllm {

// One request and its text. All but the handles' functions runs on the engine's thread, so that a
// stop string ends its request with the pass that completes it, and texts are made in one place.
struct TextRequest::State {
  State(std::shared_ptr<const TextCodec> shared, const PackageInfo& package, std::int64_t tokens,
        const GenerationConfig& config, const TextOptions& options, TextCallback callback,
        DoneCallback done);

  // Submits it. Errors: those of Engine::submit().
  static TextRequest start(const std::shared_ptr<State>& state, Engine& engine,
                           std::span<const std::int32_t> ids, const GenerationConfig& config);
  bool take(const CommitEvent& commit);
  void finish();
  Completion complete(GenerationResult result);

  std::shared_ptr<const TextCodec> codec;  // of the LLM and its requests, whoever lives longest
  std::int64_t prompt_tokens;
  std::vector<std::int32_t> end_ids;  // tokens that end the answer
  bool edits;                         // tokens are final with their block only
  bool watched;                       // every pass is looked at
  TextStream text;
  std::map<std::int32_t, std::int32_t> unsettled;  // tokens that can still be edited, by position
  TextCallback on_text;
  DoneCallback on_done;

  std::mutex starting;  // who ends waits until the request is known
  Request request;
  std::promise<Completion> promise;
  std::shared_future<Completion> answer{promise.get_future()};
};

namespace {

std::vector<std::int32_t> end_ids_of(const PackageInfo& package, const GenerationConfig& config) {
  if (config.ignore_eos) return {};
  return config.stop_token_ids.value_or(package.eos_token_ids);
}

}  // namespace

TextRequest::State::State(std::shared_ptr<const TextCodec> shared, const PackageInfo& package,
                          std::int64_t tokens, const GenerationConfig& config,
                          const TextOptions& options, TextCallback callback, DoneCallback done)
    : codec(std::move(shared)),
      prompt_tokens(tokens),
      end_ids(end_ids_of(package, config)),
      edits(config.editing_threshold.has_value()),
      watched(callback || !options.stop.empty()),
      text(*codec, config.stop_at == StopAt::token ? end_ids : std::vector<std::int32_t>{},
           options.stop),
      on_text(std::move(callback)),
      on_done(std::move(done)) {}

TextRequest TextRequest::State::start(const std::shared_ptr<State>& state, Engine& engine,
                                      std::span<const std::int32_t> ids,
                                      const GenerationConfig& config) {
  CommitCallback on_commit;
  if (state->watched)
    on_commit = [state](const CommitEvent& commit) { return state->take(commit); };
  const std::lock_guard lock(state->starting);
  state->request = engine.submit(ids, config, std::move(on_commit), [state] { state->finish(); });
  return TextRequest(state);
}

bool TextRequest::State::take(const CommitEvent& commit) {
  std::string piece;
  if (!edits) {
    piece = text.push(commit.positions, commit.token_ids);
  } else {
    for (std::size_t i = 0; i < commit.positions.size(); ++i) {
      unsettled.insert_or_assign(commit.positions[i], commit.token_ids[i]);
    }
    if (commit.block_finished) {
      std::vector<std::int32_t> positions, token_ids;
      for (const auto& [position, token] : std::exchange(unsettled, {})) {
        positions.push_back(position);
        token_ids.push_back(token);
      }
      piece = text.push(positions, token_ids);
    }
  }
  const bool goes_on = !on_text || on_text({commit, piece, text.text()});
  if (!goes_on) on_text = {};  // it wants no more
  return goes_on && !text.stop();
}

void TextRequest::State::finish() {
  {
    const std::lock_guard lock(starting);
  }
  try {
    promise.set_value(complete(request.result()));
  } catch (...) {
    promise.set_exception(std::current_exception());
  }
  on_text = {};
  if (const DoneCallback done = std::exchange(on_done, {})) done();
}

Completion TextRequest::State::complete(GenerationResult result) {
  std::vector<std::int32_t>& ids = result.token_ids;
  std::vector<std::int32_t> positions(ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  std::string piece = text.push(positions, ids);
  piece += text.finish();
  if (on_text && !piece.empty()) {
    CommitEvent nothing;
    nothing.step = result.num_passes;
    on_text({nothing, piece, text.text()});
  }
  const auto ends = [&](std::int32_t id) {
    return std::find(end_ids.begin(), end_ids.end(), id) != end_ids.end();
  };
  const auto end = std::find_if(ids.begin(), ids.end(), ends);
  Completion completion;
  completion.completion_tokens = end - ids.begin() + (end != ids.end() ? 1 : 0);
  completion.finish_reason = result.finish_reason;
  if (text.stop()) {
    completion.finish_reason = FinishReason::stop;
    completion.completion_tokens = text.tokens_of(text.text() + *text.stop());
    const auto kept = static_cast<std::size_t>(text.tokens_of(text.text()));
    ids.resize(std::min(kept, ids.size()));
    result.logprobs.resize(ids.size());
  }
  completion.text = text.text();
  completion.token_ids = std::move(ids);
  completion.logprobs = std::move(result.logprobs);
  completion.stop = text.stop();
  completion.num_passes = result.num_passes;
  completion.prompt_tokens = prompt_tokens;
  completion.stats = result.stats;
  return completion;
}

TextRequest::TextRequest(std::shared_ptr<State> state) noexcept : state_(std::move(state)) {}

Completion TextRequest::result() const {
  if (!wait_for({})) state_->request.require_other_thread();
  while (!wait_for(std::chrono::hours(1))) {
  }
  return state_->answer.get();
}

bool TextRequest::wait_for(std::chrono::nanoseconds time) const {
  return state_->request.on_engine_thread() ? done() : state_->request.wait_for(time);
}

bool TextRequest::done() const {
  return state_->answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

void TextRequest::cancel() const noexcept {
  state_->request.cancel();
}

GenerationConfig default_text_config() {
  return {.threshold = 0.9};
}

struct LLM::State {
  std::shared_ptr<const TextCodec> codec;
  Engine engine;

  TextRequest submit(std::span<const std::int32_t> ids, const GenerationConfig& config,
                     const TextOptions& options, TextCallback on_text, DoneCallback on_done) {
    auto request =
        std::make_shared<TextRequest::State>(codec, engine.package(), std::ssize(ids), config,
                                             options, std::move(on_text), std::move(on_done));
    return TextRequest::State::start(request, engine, ids, config);
  }
};

LLM::LLM(const std::filesystem::path& package, const SessionOptions& options,
         const EngineLimits& limits)
    : LLM(Engine(package, options, limits), TextCodec(package)) {}

LLM::LLM(Engine engine, TextCodec codec)
    : state_(new State{std::make_shared<const TextCodec>(std::move(codec)), std::move(engine)}) {}

LLM::~LLM() = default;
LLM::LLM(LLM&&) noexcept = default;
LLM& LLM::operator=(LLM&&) noexcept = default;

Completion LLM::generate(std::string_view prompt, const GenerationConfig& config,
                         const TextOptions& options, const TextCallback& on_text) {
  state_->engine.require_other_thread();
  return submit(prompt, config, options, on_text).result();
}

Completion LLM::chat(std::span<const Message> messages, const GenerationConfig& config,
                     const TextOptions& options, const TextCallback& on_text) {
  state_->engine.require_other_thread();
  return submit_chat(messages, config, options, on_text).result();
}

TextRequest LLM::submit(std::string_view prompt, const GenerationConfig& config,
                        const TextOptions& options, TextCallback on_text, DoneCallback on_done) {
  std::vector<std::int32_t> ids;
  if (options.raw || !codec().has_chat()) {
    ids = codec().tokenizer().encode(prompt);
  } else {
    const Message message{"user", std::string(prompt)};
    ids = codec().encode_chat({&message, 1}, options.chat_template_kwargs);
  }
  return state_->submit(ids, config, options, std::move(on_text), std::move(on_done));
}

TextRequest LLM::submit_chat(std::span<const Message> messages, const GenerationConfig& config,
                             const TextOptions& options, TextCallback on_text,
                             DoneCallback on_done) {
  return state_->submit(codec().encode_chat(messages, options.chat_template_kwargs), config,
                        options, std::move(on_text), std::move(on_done));
}

std::vector<std::int32_t> LLM::encode(std::string_view prompt, bool raw) const {
  if (raw || !codec().has_chat()) return codec().tokenizer().encode(prompt);
  const Message message{"user", std::string(prompt)};
  return codec().encode_chat({&message, 1});
}

Engine& LLM::engine() noexcept {
  return state_->engine;
}

const TextCodec& LLM::codec() const noexcept {
  return *state_->codec;
}

}  // namespace fastdllm
