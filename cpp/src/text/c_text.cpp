// The C API of text.
#include "c_api/c_api.hpp"
#include "fastdllm/fastdllm_text.h"
#include "fastdllm/llm.hpp"

using namespace fastdllm;
using namespace fastdllm::c_api;

struct fastdllm_codec {
  Failure failure;
  std::shared_ptr<const TextCodec> codec;  // streams keep it
};

struct fastdllm_text_stream {
  Failure failure;  // of opening it, or the first one later
  std::shared_ptr<const TextCodec> codec;
  std::optional<TextStream> stream;
  std::string piece;
};

struct fastdllm_llm {
  Failure failure;
  std::optional<LLM> llm;
  fastdllm_engine engine;
};

namespace {

const TextCodec& open_codec(const fastdllm_codec* codec) {
  return *require_open(codec, "codec").codec;
}

LLM& open_llm(fastdllm_llm* llm) {
  return *require_open(llm, "llm").llm;
}

std::vector<Message> messages_of(const fastdllm_message* messages, std::int64_t count) {
  std::vector<Message> all;
  for (const fastdllm_message& message : span_of(messages, count, "messages")) {
    all.push_back(
        {&require(message.role, "a message's role"), &require(message.content, "its content")});
  }
  return all;
}

std::vector<std::string> strings_of(const char* const* strings, std::int64_t count) {
  std::vector<std::string> all;
  for (const char* string : span_of(strings, count, "stop")) {
    all.emplace_back(&require(string, "a stop string"));
  }
  return all;
}

// The event's text does not end with a NUL; this one does, and grows by the pieces.
TextCallback text_callback(const fastdllm_text_options& options) {
  const auto call = options.on_text;
  if (call == nullptr) return {};
  return [call, user_data = options.user_data, piece = std::string(),
          text = std::string()](const TextEvent& event) mutable {
    piece = event.piece;
    text += event.piece;
    const fastdllm_commit_event commit = event_of(event.commit);
    const fastdllm_text_event passed{.struct_size = sizeof(fastdllm_text_event),
                                     .commit = &commit,
                                     .piece = piece.c_str(),
                                     .num_piece_bytes = std::ssize(piece),
                                     .text = text.c_str(),
                                     .num_text_bytes = std::ssize(text)};
    return call(&passed, user_data);
  };
}

Answer answer_of(Completion completion) {
  return {.result = {std::move(completion.token_ids), std::move(completion.logprobs),
                     completion.num_passes, completion.finish_reason, completion.stats},
          .text = std::move(completion.text),
          .stop = std::move(completion.stop),
          .prompt_tokens = completion.prompt_tokens,
          .completion_tokens = completion.completion_tokens};
}

// `start` gets the LLM and what was asked beside the prompt.
template <typename Start>
fastdllm_status submit(fastdllm_llm* llm, bool wait, const fastdllm_config* given_config,
                       const fastdllm_text_options* given, fastdllm_request** request,
                       const Start& start) noexcept {
  const fastdllm_status status = make(request, [&](fastdllm_request& handle) {
    LLM& opened = open_llm(llm);
    if (wait) opened.engine().require_other_thread();
    const GenerationConfig config =
        given_config == nullptr ? default_text_config() : config_of(given_config);
    const fastdllm_text_options c =
        read_struct(given, fastdllm_text_options{}, "fastdllm_text_options");
    const TextOptions options{.stop = strings_of(c.stop, c.num_stop), .raw = c.raw != 0};
    follow(handle,
           start(opened, config, options, text_callback(c), done_callback(c.on_done, c.user_data)),
           &answer_of);
    handle.has_text = true;
  });
  return status == FASTDLLM_OK && wait ? settle(**request) : status;
}

fastdllm_status submit_prompt(fastdllm_llm* llm, bool wait, const char* prompt,
                              const fastdllm_config* config, const fastdllm_text_options* options,
                              fastdllm_request** request) noexcept {
  return submit(llm, wait, config, options, request, [&](LLM& opened, auto&&... rest) {
    return opened.submit(&require(prompt, "prompt"), std::forward<decltype(rest)>(rest)...);
  });
}

fastdllm_status submit_messages(fastdllm_llm* llm, bool wait, const fastdllm_message* messages,
                                std::int64_t count, const fastdllm_config* config,
                                const fastdllm_text_options* options,
                                fastdllm_request** request) noexcept {
  return submit(llm, wait, config, options, request, [&](LLM& opened, auto&&... rest) {
    return opened.submit_chat(messages_of(messages, count), std::forward<decltype(rest)>(rest)...);
  });
}

// What a call on a stream makes becomes its piece.
template <typename Call>
fastdllm_status next_piece(fastdllm_text_stream* stream, const char** piece,
                           const Call& call) noexcept {
  if (piece == nullptr) return FASTDLLM_NULL_ARGUMENT;
  *piece = "";
  if (stream == nullptr) return FASTDLLM_NULL_ARGUMENT;
  if (stream->failure.status() != FASTDLLM_OK) return stream->failure.status();
  return guard(stream->failure, [&] {
    stream->piece = call(*stream->stream);
    *piece = stream->piece.c_str();
  });
}

}  // namespace

fastdllm_status fastdllm_codec_open(const char* package, fastdllm_codec** codec) {
  return make(codec, [&](fastdllm_codec& handle) {
    handle.codec = std::make_shared<const TextCodec>(&require(package, "package"));
  });
}

void fastdllm_codec_free(fastdllm_codec* codec) {
  delete codec;
}

const char* fastdllm_codec_error(const fastdllm_codec* codec) {
  return codec == nullptr ? "" : codec->failure.message();
}

bool fastdllm_codec_has_chat(const fastdllm_codec* codec) {
  return codec != nullptr && codec->codec && codec->codec->has_chat();
}

std::int32_t fastdllm_codec_token_id(const fastdllm_codec* codec, const char* token) {
  std::int32_t id = FASTDLLM_NONE;
  Failure unheard;
  guard(unheard, [&] {
    id = open_codec(codec).tokenizer().token_id(&require(token, "token")).value_or(FASTDLLM_NONE);
  });
  return id;
}

fastdllm_status fastdllm_codec_encode(const fastdllm_codec* codec, const char* text,
                                      std::int64_t num_bytes, fastdllm_output** output) {
  return make(output, [&](fastdllm_output& handle) {
    const TextCodec& opened = open_codec(codec);
    const std::string_view given =
        num_bytes == FASTDLLM_NONE
            ? std::string_view(&require(text, "text"))
            : std::string_view(text, span_of(text, num_bytes, "bytes of text").size());
    handle.value = opened.tokenizer().encode(given);
  });
}

fastdllm_status fastdllm_codec_encode_chat(const fastdllm_codec* codec,
                                           const fastdllm_message* messages,
                                           std::int64_t num_messages, fastdllm_output** output) {
  return make(output, [&](fastdllm_output& handle) {
    handle.value = open_codec(codec).encode_chat(messages_of(messages, num_messages));
  });
}

fastdllm_status fastdllm_codec_render_chat(const fastdllm_codec* codec,
                                           const fastdllm_message* messages,
                                           std::int64_t num_messages, fastdllm_output** output) {
  return make(output, [&](fastdllm_output& handle) {
    handle.value = open_codec(codec).render_chat(messages_of(messages, num_messages));
  });
}

fastdllm_status fastdllm_codec_decode(const fastdllm_codec* codec, const std::int32_t* ids,
                                      std::int64_t num_ids, bool skip_special_tokens,
                                      fastdllm_output** output) {
  return make(output, [&](fastdllm_output& handle) {
    handle.value =
        open_codec(codec).tokenizer().decode(span_of(ids, num_ids, "ids"), skip_special_tokens);
  });
}

fastdllm_status fastdllm_text_stream_open(const fastdllm_codec* codec, const std::int32_t* stop_ids,
                                          std::int64_t num_stop_ids, const char* const* stop,
                                          std::int64_t num_stop, fastdllm_text_stream** stream) {
  return make(stream, [&](fastdllm_text_stream& handle) {
    handle.codec = require_open(codec, "codec").codec;
    const auto ids = span_of(stop_ids, num_stop_ids, "stop_ids");
    handle.stream.emplace(*handle.codec, std::vector<std::int32_t>(ids.begin(), ids.end()),
                          strings_of(stop, num_stop));
  });
}

void fastdllm_text_stream_free(fastdllm_text_stream* stream) {
  delete stream;
}

const char* fastdllm_text_stream_error(const fastdllm_text_stream* stream) {
  return stream == nullptr ? "" : stream->failure.message();
}

fastdllm_status fastdllm_text_stream_push(fastdllm_text_stream* stream,
                                          const std::int32_t* positions,
                                          const std::int32_t* token_ids, std::int64_t count,
                                          const char** piece) {
  return next_piece(stream, piece, [&](TextStream& opened) {
    return opened.push(span_of(positions, count, "positions"),
                       span_of(token_ids, count, "token_ids"));
  });
}

fastdllm_status fastdllm_text_stream_finish(fastdllm_text_stream* stream, const char** piece) {
  return next_piece(stream, piece, [](TextStream& opened) { return opened.finish(); });
}

const char* fastdllm_text_stream_text(const fastdllm_text_stream* stream, std::int64_t* num_bytes) {
  const bool is_open = stream != nullptr && stream->stream;
  if (num_bytes != nullptr) *num_bytes = is_open ? std::ssize(stream->stream->text()) : 0;
  return is_open ? stream->stream->text().c_str() : "";
}

const char* fastdllm_text_stream_stop(const fastdllm_text_stream* stream) {
  if (stream == nullptr || !stream->stream || !stream->stream->stop()) return nullptr;
  return stream->stream->stop()->c_str();
}

fastdllm_status fastdllm_llm_open(const char* package, const fastdllm_engine_options* options,
                                  fastdllm_llm** llm) {
  return make(llm, [&](fastdllm_llm& handle) {
    const char& folder = require(package, "package");
    const EngineSetup setup = setup_of(options);
    set_engine(handle.engine, handle.llm.emplace(&folder, setup.session, setup.limits).engine());
  });
}

void fastdllm_llm_free(fastdllm_llm* llm) {
  delete llm;
}

const char* fastdllm_llm_error(const fastdllm_llm* llm) {
  return llm == nullptr ? "" : llm->failure.message();
}

fastdllm_engine* fastdllm_llm_engine(fastdllm_llm* llm) {
  return llm == nullptr || llm->engine.engine == nullptr ? nullptr : &llm->engine;
}

fastdllm_status fastdllm_text_options_default(fastdllm_text_options* options, std::size_t size) {
  return write_struct(options, size, fastdllm_text_options{});
}

fastdllm_status fastdllm_llm_generate(fastdllm_llm* llm, const char* prompt,
                                      const fastdllm_config* config,
                                      const fastdllm_text_options* options,
                                      fastdllm_request** request) {
  return submit_prompt(llm, true, prompt, config, options, request);
}

fastdllm_status fastdllm_llm_submit(fastdllm_llm* llm, const char* prompt,
                                    const fastdllm_config* config,
                                    const fastdllm_text_options* options,
                                    fastdllm_request** request) {
  return submit_prompt(llm, false, prompt, config, options, request);
}

fastdllm_status fastdllm_llm_chat(fastdllm_llm* llm, const fastdllm_message* messages,
                                  std::int64_t num_messages, const fastdllm_config* config,
                                  const fastdllm_text_options* options,
                                  fastdllm_request** request) {
  return submit_messages(llm, true, messages, num_messages, config, options, request);
}

fastdllm_status fastdllm_llm_submit_chat(fastdllm_llm* llm, const fastdllm_message* messages,
                                         std::int64_t num_messages, const fastdllm_config* config,
                                         const fastdllm_text_options* options,
                                         fastdllm_request** request) {
  return submit_messages(llm, false, messages, num_messages, config, options, request);
}

fastdllm_status fastdllm_llm_encode(const fastdllm_llm* llm, const char* prompt, bool raw,
                                    fastdllm_output** output) {
  return make(output, [&](fastdllm_output& handle) {
    handle.value = require_open(llm, "llm").llm->encode(&require(prompt, "prompt"), raw);
  });
}

fastdllm_status fastdllm_request_completion(fastdllm_request* request,
                                            fastdllm_completion* completion, std::size_t size) {
  if (request != nullptr && request->wait && !request->has_text) {
    const fastdllm_status written = write_struct(completion, size, fastdllm_completion{});
    return written == FASTDLLM_OK ? FASTDLLM_BAD_CONFIG : written;
  }
  return write_answer(request, completion, size, [](const Answer& answer) {
    fastdllm_completion c{};
    c.text = answer.text.c_str();
    c.num_text_bytes = std::ssize(answer.text);
    c.stop = answer.stop ? answer.stop->c_str() : nullptr;
    c.prompt_tokens = answer.prompt_tokens;
    c.completion_tokens = answer.completion_tokens;
    return c;
  });
}
