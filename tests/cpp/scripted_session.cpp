#include "scripted_session.hpp"

#include <stdexcept>

namespace fastdllm::testing {

void ScriptedSession::read_past(std::int64_t length) {
  const TensorView& past = input("past_key_values.0.key");
  const auto* keys = static_cast<const float*>(past.data);
  seen_past.clear();
  for (std::int64_t p = 0; p < length; ++p) {
    seen_past.push_back(static_cast<std::int64_t>(keys[p * past.shape.dims[3]]) - 1);
  }
}

void ScriptedSession::write_answer(std::size_t i, const Answer& answer) {
  static_cast<std::int64_t*>(output("token_ids").value().data)[i] = answer.token_id;
  static_cast<float*>(output("complement").value().data)[i] =
      static_cast<float>(1.0 - answer.confidence);
  if (const auto& second = output("second_confidence")) {
    static_cast<float*>(second->data)[i] = static_cast<float>(answer.second_confidence);
  }
  if (const auto& entropy = output("entropy")) {
    static_cast<float*>(entropy->data)[i] = static_cast<float>(answer.entropy);
  }
}

void ScriptedSession::run() {
  RecordedPass pass;
  const TensorView& ids = input("input_ids");
  const TensorView& past = input("past_key_values.0.key");
  const std::int64_t rows = ids.shape.dims[1];
  pass.batch = ids.shape.dims[0];
  if (before_run) before_run(pass.batch);
  pass.ids = int64s(ids);
  pass.positions = int64s(input("position_ids"));
  pass.past_length = past.shape.dims[2];
  pass.present_length = int64s(input("present_length")).at(0);
  const TensorView& mask = input("attention_mask");
  pass.attended = mask.shape.dims[3];
  pass.mask_rows = mask.shape.dims[2];
  const auto* visible = static_cast<const std::uint8_t*>(mask.data);
  pass.mask.assign(visible, visible + mask.shape.elements());
  pass.logits_bound = output("logits").has_value();
  if (pass.attended != pass.past_length + rows) throw std::logic_error("mask and keys differ");
  const std::vector<std::int64_t> indices = int64s(input("logit_indices"));
  const std::size_t wanted = indices.size() / static_cast<std::size_t>(pass.batch);
  const auto position_of = [&](std::size_t i) {  // of the i-th prediction of the whole batch
    const std::size_t row = i / wanted * static_cast<std::size_t>(rows);
    return pass.positions.at(row + static_cast<std::size_t>(indices[i]));
  };
  // The same row again is padding.
  const auto is_padding = [&](std::size_t i) {
    return i % wanted > 0 && indices[i] == indices[i - 1];
  };
  for (std::size_t i = 0; i < wanted; ++i) {
    if (!is_padding(i)) pass.wanted.push_back(position_of(i));
  }

  read_past(pass.past_length);
  for (std::int64_t layer = 0; layer < num_layers(); ++layer) {
    write_present(pass, std::to_string(layer) + ".key");
    write_present(pass, std::to_string(layer) + ".value");
  }

  const auto number = static_cast<std::int64_t>(passes.size());
  for (std::size_t i = 0; i < wanted * static_cast<std::size_t>(pass.batch); ++i) {
    if (is_padding(i)) continue;
    const std::int64_t position = position_of(i);
    if (pass.logits_bound) {
      const TensorView& logits = *output("logits");
      const std::int64_t vocab = logits.shape.dims[2];
      for (std::int64_t v = 0; v < vocab; ++v) {
        static_cast<float*>(logits.data)[static_cast<std::int64_t>(i) * vocab + v] =
            logit_script(static_cast<std::int64_t>(i / wanted), position, v);
      }
    } else {
      write_answer(i, script(number, position));
    }
  }
  passes.push_back(std::move(pass));
  ++runs;
}

void ScriptedSession::write_present(const RecordedPass& pass, const std::string& suffix) {
  const std::optional<TensorView>& present = output("present." + suffix);
  if (!present) return;
  const auto [batch, heads, length, dim] = present->shape.dims;
  if (length != pass.present_length) throw std::logic_error("present is not present_length rows");
  const std::vector<std::int64_t> rows = [&] {
    std::vector<std::int64_t> all = seen_past;
    all.insert(all.end(), pass.positions.begin(), pass.positions.end());
    return all;
  }();
  auto* data = static_cast<float*>(present->data);
  for (std::int64_t i = 0; i < batch * heads * length * dim; ++i) {
    data[i] = static_cast<float>(rows.at(static_cast<std::size_t>(i / dim % length)) + 1);
  }
}

}  // namespace fastdllm::testing
