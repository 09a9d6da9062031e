#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "bindings.hpp"
#include "fastdllm/error.hpp"
#include "fastdllm/generation.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace fastdllm::python {
namespace {

using Config = GenerationConfig;

// An option as Python sees it; the constructor, the properties, to_dict and repr follow this table.
struct Field {
  const char* name;
  const char* type;
  nb::object (*get)(const Config&);
  bool (*set)(Config&, nb::handle);  // false: not of the type
};

template <auto member>
nb::object get_value(const Config& config) {
  return nb::cast(config.*member);
}

template <auto member>
bool set_value(Config& config, nb::handle value) {
  using Value = std::remove_reference_t<decltype(config.*member)>;
  return nb::try_cast<Value>(nb::borrow(value), config.*member);
}

template <auto member>
nb::object get_name(const Config& config) {
  return nb::cast(std::string(name_of(config.*member)));
}

template <auto member, auto parse>
bool set_name(Config& config, nb::handle value) {
  std::string name;
  if (!nb::try_cast<std::string>(nb::borrow(value), name)) return false;
  config.*member = parse(name);
  return true;
}

// nanobind would not say what is wrong with a negative seed.
bool set_seed(Config& config, nb::handle value) {
  const nb::object number = nb::steal(PyNumber_Index(value.ptr()));
  if (!number.is_valid()) {
    PyErr_Clear();
    return false;
  }
  config.seed = PyLong_AsUnsignedLongLong(number.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw Error(ErrorCode::bad_config, "seed is " + nb::cast<std::string>(nb::str(value)) +
                                           "; expected an integer in [0, 2**64)");
  }
  return true;
}

bool set_stop_token_ids(Config& config, nb::handle value) {
  std::optional<std::vector<std::int32_t>> ids;
  if (!value.is_none()) ids = ids_from(value, "stop_token_ids");
  config.stop_token_ids = std::move(ids);
  return true;
}

bool set_banned_token_ids(Config& config, nb::handle value) {
  if (PySequence_Check(value.ptr()) == 0 || nb::isinstance<nb::str>(value)) return false;
  config.banned_token_ids = ids_from(value, "banned_token_ids");
  return true;
}

nb::object get_logit_bias(const Config& config) {
  nb::dict biases;
  for (const auto& [id, bias] : config.logit_bias) biases[nb::int_(id)] = bias;
  return biases;
}

// Ascending ids, so that equal mappings are equal options. Ids as decimal strings come from JSON.
bool set_logit_bias(Config& config, nb::handle value) {
  if (PyMapping_Check(value.ptr()) == 0 || !nb::hasattr(value, "keys")) return false;
  nb::dict given;
  given.update(value);
  std::vector<double> biases;
  nb::list ids;
  for (const auto& [key, bias] : given) {
    nb::object id = nb::borrow(key);
    if (nb::isinstance<nb::str>(key)) {
      id = nb::steal(PyNumber_Long(key.ptr()));
      if (!id.is_valid()) PyErr_Clear();
    }
    if (!id.is_valid() || !nb::try_cast<double>(nb::borrow(bias), biases.emplace_back())) {
      return false;
    }
    ids.append(id);
  }
  const std::vector<std::int32_t> tokens = ids_from(ids, "logit_bias");
  std::vector<std::pair<std::int32_t, double>> pairs;
  for (std::size_t i = 0; i < tokens.size(); ++i) pairs.emplace_back(tokens[i], biases[i]);
  std::sort(pairs.begin(), pairs.end());
  config.logit_bias = std::move(pairs);
  return true;
}

template <auto member>
constexpr Field field(const char* name, const char* type) {
  return {name, type, &get_value<member>, &set_value<member>};
}

constexpr std::array fields{
    field<&Config::max_new_tokens>("max_new_tokens", "int"),
    field<&Config::block_length>("block_length", "int | None"),
    field<&Config::sub_block_length>("sub_block_length", "int | None"),
    field<&Config::steps>("steps", "int | None"),
    field<&Config::steps_per_block>("steps_per_block", "int | None"),
    field<&Config::eps>("eps", "float | None"),
    field<&Config::threshold>("threshold", "float | None"),
    field<&Config::threshold_decay>("threshold_decay", "float"),
    field<&Config::factor>("factor", "float | None"),
    field<&Config::frechet>("frechet", "float | None"),
    field<&Config::entropy_bound>("entropy_bound", "float | None"),
    Field{"cache", "str", &get_name<&Config::cache>, &set_name<&Config::cache, parse_cache_mode>},
    field<&Config::suffix_window>("suffix_window", "int | None"),
    field<&Config::refresh_interval>("refresh_interval", "int | None"),
    field<&Config::deferred_window>("deferred_window", "int | None"),
    field<&Config::refresh_tokens>("refresh_tokens", "int | None"),
    Field{"remasking", "str", &get_name<&Config::remasking>,
          &set_name<&Config::remasking, parse_remasking>},
    field<&Config::temperature>("temperature", "float"),
    field<&Config::top_p>("top_p", "float"),
    field<&Config::top_k>("top_k", "int"),
    field<&Config::min_p>("min_p", "float"),
    Field{"logit_bias", "collections.abc.Mapping[int, float] | collections.abc.Mapping[str, float]",
          &get_logit_bias, &set_logit_bias},
    Field{"banned_token_ids", "collections.abc.Sequence[int]",
          &get_value<&Config::banned_token_ids>, &set_banned_token_ids},
    field<&Config::alg_temp>("alg_temp", "float"),
    field<&Config::cfg_scale>("cfg_scale", "float"),
    Field{"seed", "int", &get_value<&Config::seed>, &set_seed},
    field<&Config::editing_threshold>("editing_threshold", "float | None"),
    field<&Config::max_post_steps>("max_post_steps", "int"),
    Field{"stop_token_ids", "collections.abc.Sequence[int] | None",
          &get_value<&Config::stop_token_ids>, &set_stop_token_ids},
    Field{"stop_at", "str", &get_name<&Config::stop_at>,
          &set_name<&Config::stop_at, parse_stop_at>},
    field<&Config::ignore_eos>("ignore_eos", "bool"),
};

void set(const Field& field, Config& config, nb::handle value) {
  if (field.set(config, value)) return;
  const std::string message = std::string(field.name) + " is " +
                              nb::cast<std::string>(nb::repr(value)) + "; expected " + field.type;
  throw nb::type_error(message.c_str());
}

void init_config(Config* self, const nb::kwargs& options) {
  Config config;
  for (const auto& [key, value] : options) {
    const auto name = nb::cast<std::string>(key);
    const auto* found =
        std::find_if(fields.begin(), fields.end(), [&](const Field& f) { return name == f.name; });
    if (found == fields.end()) {
      throw nb::type_error(("GenerationConfig has no option '" + name + "'").c_str());
    }
    set(*found, config, value);
  }
  validate(config);
  new (self) Config(std::move(config));
}

nb::dict to_dict(const Config& config) {
  nb::dict values;
  for (const Field& field : fields) values[field.name] = field.get(config);
  return values;
}

bool equals(const Config& config, nb::handle other) {
  return nb::isinstance<Config>(other) && config == nb::cast<Config>(other);
}

std::size_t refuse_hash(const Config&) {
  throw nb::type_error("unhashable type: GenerationConfig, its options can change");
}

std::string repr(const Config& config) {
  std::string text = "GenerationConfig(";
  for (const auto& [key, value] : to_dict(config)) {
    if (text.back() != '(') text += ", ";
    text += nb::cast<std::string>(key) + "=" + nb::cast<std::string>(nb::repr(value));
  }
  return text + ")";
}

std::string constructor_signature() {
  std::string text = "def __init__(self, *";
  const nb::dict defaults = to_dict(Config());
  for (const Field& field : fields) {
    text += std::string(", ") + field.name + ": " + field.type + " = " +
            nb::cast<std::string>(nb::repr(defaults[field.name]));
  }
  return text + ") -> None";
}

// copy.copy and pickle: a new object of the same options.
nb::tuple reduce(const Config& config) {
  const nb::object make = nb::module_::import_("functools").attr("partial");
  return nb::make_tuple(make(nb::type<Config>(), **to_dict(config)), nb::tuple());
}

}  // namespace

void bind_config(nb::module_& m) {
  const std::string signature = constructor_signature();
  nb::class_<Config> config(
      m, "GenerationConfig",
      "Options of one generation; the README says what each means.\n\n"
      "max_new_tokens: positions to decode, >= 1. block_length, sub_block_length: positions per\n"
      "block and per part of it that is decoded together, >= 1; None = the package's.\n"
      "steps: passes over the whole generation, divided among the blocks; None = one token per\n"
      "pass. steps_per_block: instead of steps; a threshold then commits at least its share.\n"
      "eps: in (0, 1), the schedule follows time steps from 1 to eps.\n"
      "threshold: commit every position at least this confident, in (0, 1]; `steps` is then\n"
      "ignored. threshold_decay: in [0, 1], how much of it is gone when a block is filled.\n"
      "factor: the factor rule of Fast-dLLM, > 0; wins over threshold and steps. frechet: the\n"
      "Frechet profile's margin, in [0, 1). entropy_bound: nats, >= 0. The latter two stand "
      "alone.\n"
      "cache: 'auto', 'none', 'prefix' or 'dual'. suffix_window: mask tokens behind the block "
      "that\n"
      "a step attends to, >= 0. refresh_interval, refresh_tokens: passes, committed tokens from\n"
      "refresh to refresh, >= 1. deferred_window: positions of a window instead of blocks, >= 1.\n"
      "remasking, what ranks positions: 'low_confidence', 'random', 'margin', 'entropy',\n"
      "'sequential' or 'origin'.\n"
      "temperature: >= 0, 0 = arg-max. top_p: in (0, 1]. top_k: >= 0, 0 = all tokens. min_p: in\n"
      "[0, 1), drops tokens less than this times as probable as the best. logit_bias: finite\n"
      "numbers added to the logits, by token id. banned_token_ids: never proposed.\n"
      "alg_temp: >= 0, temperature of the choice among positions. cfg_scale: >= 0, 0 = no\n"
      "classifier-free guidance. seed: of the noise, in [0, 2**64).\n"
      "editing_threshold: in [0, 1], overwrite committed tokens of the block; max_post_steps:\n"
      "passes that only edit, at most, in [0, 2**20]. stop_token_ids: None = the package's "
      "end-of-text ids.\n"
      "stop_at: 'token' or 'block'. ignore_eos: run every block instead of stopping.\n"
      "Errors: ConfigError naming the option, what is allowed and what was found.");
  config.def("__init__", &init_config, nb::sig(signature.c_str()));
  for (const Field& field : fields) {
    const std::string of_value = std::string("def ") + field.name + "(self) -> " + field.type;
    const std::string of_setter =
        std::string("def ") + field.name + "(self, value: " + field.type + ", /) -> None";
    config.def_prop_rw(
        field.name, [&field](const Config& c) { return field.get(c); },
        [&field](Config& c, nb::handle value) { set(field, c, value); },
        nb::for_getter(nb::sig(of_value.c_str())), nb::for_setter(nb::sig(of_setter.c_str())),
        nb::for_setter(nb::arg().none()));
  }
  config
      .def("to_dict", &to_dict, nb::sig("def to_dict(self) -> dict[str, object]"),
           "The options by name.")
      .def("__reduce__", &reduce, nb::sig("def __reduce__(self) -> tuple[object, tuple[()]]"))
      .def("__eq__", &equals, nb::arg().none(),
           nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__", &refuse_hash)
      .def("__repr__", &repr);
}

}  // namespace fastdllm::python
