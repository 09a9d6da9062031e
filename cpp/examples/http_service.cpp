// A small text service: http_service PACKAGE [--host 127.0.0.1] [--port 8080] [--threads 0]
//                       [--max-batch 8] [--max-waiting 16] [--grace-seconds 10]
//                       [--allowed-host NAME ...]
//
//   GET  /health    {"status": "ok", ...}
//   POST /generate  {"prompt": TEXT or "messages": [{"role", "content"}, ...], "stop": TEXT or a
//                   list, "raw": true, "stream": true, and any option of GenerationConfig by its
//                   name}. The answer is JSON, or with "stream" server-sent events: one for each
//                   pass (what was committed, and the text that became final), then the completion,
//                   then [DONE].
// A body is declared as application/json. At a loopback address the Host is localhost, 127.0.0.1,
// [::1] or a name of --allowed-host (which may come again), and the Origin, if there is one, this
// service's own or of such a name: pages of other servers get 403.
//
// Errors are {"error": MESSAGE}: 400 what was asked cannot be honoured, 503 too many are waiting.
// One that comes up during a pass is the answer's "error", since the answer has begun by then. A
// client that leaves ends its request. SIGINT or SIGTERM: no new requests; those under way have the
// grace seconds to end in.
//
// On an open network it belongs behind a proxy that takes requests whole before it passes them on:
// httplib reads header lines without end, and a client that sends slowly holds a thread.
#include <httplib.h>

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <fastdllm/llm.hpp>
#include <future>
#include <iostream>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "http_question.hpp"

namespace {

using nlohmann::ordered_json;
using namespace std::chrono_literals;

ordered_json to_json(const fastdllm::TextEvent& event) {
  const fastdllm::CommitEvent& commit = event.commit;
  return {{"step", commit.step},
          {"block", commit.block},
          {"positions", commit.positions},
          {"token_ids", commit.token_ids},
          {"confidences", commit.confidences},
          {"piece", event.piece}};
}

ordered_json to_json(const fastdllm::Completion& completion) {
  ordered_json fields{{"text", completion.text},
                      {"token_ids", completion.token_ids},
                      {"finish_reason", name_of(completion.finish_reason)},
                      {"stop", nullptr},
                      {"num_passes", completion.num_passes},
                      {"prompt_tokens", completion.prompt_tokens},
                      {"completion_tokens", completion.completion_tokens}};
  if (completion.stop) fields["stop"] = *completion.stop;
  return fields;
}

/// From the engine's thread, which waits for nobody, to the client's.
class Channel {
 public:
  void put(std::string event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    changed_.notify_one();
  }
  void end() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_one();
  }
  /// Waits a while for events; false: there were all.
  bool take(std::deque<std::string>& events) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, 50ms, [&] { return ended_ || !events_.empty(); });
    events.swap(events_);
    return !ended_ || !events.empty();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> events_;
  bool ended_ = false;
};

class Service {
 public:
  Service(fastdllm::LLM llm, std::size_t connections, std::set<std::string> allowed)
      : llm_(std::move(llm)), allowed_(std::move(allowed)) {
    server_.new_task_queue = [connections] { return new httplib::ThreadPool(connections); };
    server_.set_keep_alive_max_count(1);  // a connection that only waits would hold a thread
    server_.set_keep_alive_timeout(2);
    server_.set_read_timeout(2s);
    server_.set_write_timeout(10s);
    server_.set_payload_max_length(http::largest_body);
    server_.Get("/health", [this](const httplib::Request&, httplib::Response& response) {
      const ordered_json health{{"status", "ok"}, {"backend", llm_.engine().backend()}};
      response.set_content(health.dump(), "application/json");
    });
    server_.Post("/generate", [this](const httplib::Request& request, httplib::Response& response) {
      try {
        generate(request, response);
      } catch (const fastdllm::Error& problem) {
        const bool overloaded = problem.code() == fastdllm::ErrorCode::overloaded;
        const bool rejected = problem.code() == fastdllm::ErrorCode::bad_config;
        http::set_error(response, overloaded ? 503 : rejected ? 400 : 500, problem.what());
        if (overloaded) response.set_header("Retry-After", "1");
      } catch (const std::exception& problem) {
        http::set_error(response, 500, problem.what());
      }
    });
    server_.set_pre_routing_handler(
        [this](const httplib::Request& request, httplib::Response& response) {
          return http::admit(request, response, allowed_);
        });
    server_.set_error_handler(httplib::Server::Handler(http::explain));
  }

  /// Serves until SIGINT or SIGTERM, which every thread blocks.
  int run(const std::string& host, int port, const sigset_t& signals, std::chrono::seconds grace) {
    if (port == 0) {
      port = server_.bind_to_any_port(host);
    } else if (!server_.bind_to_port(host, port)) {
      port = -1;
    }
    if (port < 0) throw std::runtime_error("cannot listen on " + host);
    auto served = std::async(std::launch::async, [this] { return server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::sleep_for(1ms);
    std::cout << "listening on http://" << host << ":" << port << std::endl;

    int signal = 0;
    sigwait(&signals, &signal);
    pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);  // the next one ends the process as it stands
    std::unique_lock lock(mutex_);
    stopping_ = true;
    const auto all_ended = [this] { return active_ == 0; };
    const bool in_time = ended_.wait_for(lock, grace, all_ended);
    const auto latest = std::chrono::steady_clock::now() + 1500ms;
    if (!in_time) {
      gives_up_ = true;
      ended_.wait_until(lock, latest, all_ended);
    }
    lock.unlock();
    server_.stop();
    // It waits for every connection. Those that still send or do not read have had their time.
    if (served.wait_until(latest) != std::future_status::ready) std::_Exit(0);
    return served.get() ? 0 : 1;
  }

 private:
  /// Counts a request until its answer is written and the returned object gone. The server is not
  /// stopped before: it would break off answers.
  std::shared_ptr<Service> enter() {
    const std::lock_guard lock(mutex_);
    if (stopping_) throw fastdllm::Error(fastdllm::ErrorCode::overloaded, "the service is ending");
    ++active_;
    return {this, [](Service* service) {
              const std::lock_guard leaving(service->mutex_);
              --service->active_;
              service->ended_.notify_one();
            }};
  }

  void generate(const httplib::Request& asked, httplib::Response& response) {
    const auto entered = enter();
    const http::Question question = http::read_question(asked.body);
    const auto channel = std::make_shared<Channel>();  // of the engine's thread and the client's
    fastdllm::TextCallback on_text;
    if (question.streams) {
      on_text = [channel](const fastdllm::TextEvent& event) {
        channel->put("data: " + to_json(event).dump() + "\n\n");
        return true;
      };
    }
    const auto on_done = [channel] { channel->end(); };
    const fastdllm::TextRequest request =
        question.messages.empty()
            ? llm_.submit(question.prompt, question.config, question.text, on_text, on_done)
            : llm_.submit_chat(question.messages, question.config, question.text, on_text, on_done);
    response.set_chunked_content_provider(
        question.streams ? "text/event-stream" : "application/json",
        [this, entered, channel, request, streams = question.streams](std::size_t,
                                                                      httplib::DataSink& sink) {
          return answer(*channel, request, streams, sink);
        },
        [request](bool) { request.cancel(); });  // however it ended
  }

  /// False: the client has left.
  bool answer(Channel& channel, const fastdllm::TextRequest& request, bool streams,
              httplib::DataSink& sink) {
    std::deque<std::string> events;
    while (channel.take(events)) {
      for (const std::string& event : events) {
        if (!sink.write(event.data(), event.size())) return false;
      }
      events.clear();
      if (!sink.is_writable()) return false;
      if (gives_up_) request.cancel();
    }
    ordered_json last;
    try {
      last = to_json(request.result());
      if (streams) last = {{"completion", last}};
    } catch (const std::exception& problem) {
      last = {{"error", problem.what()}};
    }
    const std::string text =
        streams ? "data: " + last.dump() + "\n\ndata: [DONE]\n\n" : last.dump() + "\n";
    if (!sink.write(text.data(), text.size())) return false;
    sink.done();
    return true;
  }

  fastdllm::LLM llm_;
  std::set<std::string> allowed_;  // names
  httplib::Server server_;
  std::atomic<bool> gives_up_ = false;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool stopping_ = false;
  int active_ = 0;
};

}  // namespace

int main(int argc, char** argv) try {
  std::map<std::string, std::string> settings{{"--host", "127.0.0.1"}, {"--port", "8080"},
                                              {"--threads", "0"},      {"--max-batch", "8"},
                                              {"--max-waiting", "16"}, {"--grace-seconds", "10"}};
  std::set<std::string> allowed;
  for (int i = 2; i < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--allowed-host" && i + 1 < argc) {
      const auto host = http::read_host(argv[i + 1]);
      if (!host || host->port >= 0) http::reject("--allowed-host is no name or address");
      allowed.insert(host->name);
      continue;
    }
    if (!settings.contains(name) || i + 1 == argc) http::reject(name + " is no option");
    settings[name] = argv[i + 1];
  }
  if (argc < 2) http::reject("usage: http_service PACKAGE [--port 8080] [...]");
  const auto integer = [&settings](const std::string& name, int least, int most) {
    return http::read_integer(name, settings[name], least, most);
  };
  const int port = integer("--port", 0, 65535);
  const int threads = integer("--threads", 0, 1024);
  const std::chrono::seconds grace(integer("--grace-seconds", 0, 86400));
  const fastdllm::EngineLimits limits{.max_batch = integer("--max-batch", 1, 256),
                                      .max_waiting = integer("--max-waiting", 0, 512)};
  // Before there are threads, so that signals wait for sigwait().
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  fastdllm::LLM llm(argv[1], {.threads = threads}, limits);
  // A thread for each request that the engine takes on, and more to say that there is no more room
  // and for clients that are slow to ask.
  const auto connections = static_cast<std::size_t>(limits.max_batch + limits.max_waiting + 64);
  Service service(std::move(llm), connections, std::move(allowed));
  return service.run(settings["--host"], port, signals, grace);
} catch (const std::exception& problem) {
  std::cerr << "http_service: " << problem.what() << '\n';
  return 1;
}
