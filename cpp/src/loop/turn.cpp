#include "loop/turn.hpp"

namespace fastdllm {
namespace {

// Requests of more than this times the next one's size do not join its pass: they would slow it.
constexpr double peers = 2.0;
// A request is next when this many times its next pass's rows were computed for others: long enough
// that those of its size can come to want the same shapes and share its run.
constexpr std::int64_t patience = 16;
// Rows of runs that it was too large to join count this many times. It gains nothing from them, and
// among new short requests a long one runs only because it has waited.
constexpr std::int64_t too_large_to_join = 2;

std::size_t index_of_next(std::span<const Turn> turns) noexcept {
  const Turn* least = &turns[0];
  const Turn* longest = nullptr;
  for (const Turn& turn : turns) {
    if (turn.served < least->served) least = &turn;
    const bool waited_too_long = turn.postponed >= patience * turn.rows;
    if (waited_too_long && (longest == nullptr || turn.postponed > longest->postponed)) {
      longest = &turn;
    }
  }
  return static_cast<std::size_t>((longest != nullptr ? longest : least) - turns.data());
}

}  // namespace

std::vector<std::size_t> choose_turns(std::span<const Turn> turns, std::int64_t max_batch,
                                      const CanShare& can_share) {
  if (turns.empty()) return {};
  const std::size_t first = index_of_next(turns);
  std::vector<std::size_t> chosen{first};
  for (std::size_t i = 0; i < turns.size() && std::ssize(chosen) < max_batch; ++i) {
    if (i != first && turns[i].size <= peers * turns[first].size && can_share(first, i)) {
      chosen.push_back(i);
    }
  }
  return chosen;
}

void note_run(std::span<Turn> turns, std::span<const std::size_t> chosen) {
  std::int64_t rows = 0;
  for (const std::size_t i : chosen) rows += turns[i].rows;
  const double largest = chosen.empty() ? 0.0 : peers * turns[chosen.front()].size;
  for (Turn& turn : turns) {
    turn.postponed += turn.size > largest ? too_large_to_join * rows : rows;
  }
  for (const std::size_t i : chosen) {
    Turn& turn = turns[i];
    turn.served += static_cast<double>(turn.rows) * turn.size * turn.size;
    turn.postponed = 0;
  }
}

}  // namespace fastdllm
