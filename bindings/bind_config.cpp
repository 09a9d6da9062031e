#include <string>
#include <utility>

#include "option_values.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace fastdllm::python {
namespace {

using Config = GenerationConfig;

Config config_from(const nb::kwargs& options) {
  Config config;
  for (const auto& [key, value] : options) {
    const auto name = nb::cast<std::string>(key);
    if (!set_by_name(config, name, value)) {
      reject_option("GenerationConfig", name, names_of<Config>());
    }
  }
  return config;
}

void init_config(Config* self, const nb::kwargs& options) {
  Config config = config_from(options);
  validate(config);
  new (self) Config(std::move(config));
}

Config config_with(const nb::kwargs& options) {
  Config config = with_default_rule(config_from(options));
  validate(config);
  return config;
}

nb::dict to_dict(const Config& config) {
  nb::dict values;
  for_each_option<Config>(
      [&](const auto& row) { values[row.name.data()] = to_python(row, config.*row.member); });
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

// copy.copy and pickle: a new object of the same options.
nb::tuple reduce(const Config& config) {
  const nb::object make = nb::module_::import_("functools").attr("partial");
  return nb::make_tuple(make(nb::type<Config>(), **to_dict(config)), nb::tuple());
}

}  // namespace

void bind_config(nb::module_& m) {
  const std::string doc =
      "Options of one generation.\n\n"
      ">>> GenerationConfig(max_new_tokens=64, threshold=0.9).cache\n'auto'\n\n" +
      help_of(OptionGroup::generation) +
      "Errors: ConfigError naming the option, what is allowed and what was found.";
  const std::string keywords = "*" + keywords_of<Config>();
  nb::class_<Config> config(m, "GenerationConfig", doc.c_str());
  config.def("__init__", &init_config,
             nb::sig(("def __init__(self, " + keywords + ") -> None").c_str()));
  for_each_option<Config>([&config](const auto& row) {
    const std::string type = annotation_of<ValueOf<Config, decltype(row)>>(row);
    const std::string of_value = concat("def ", row.name, "(self) -> ", type);
    const std::string of_setter = concat("def ", row.name, "(self, value: ", type, ", /) -> None");
    config.def_prop_rw(
        row.name.data(), [&row](const Config& c) { return to_python(row, c.*row.member); },
        [&row](Config& c, nb::handle value) { set_from_python(c, row, value); },
        nb::for_getter(nb::sig(of_value.c_str())), nb::for_setter(nb::sig(of_setter.c_str())),
        nb::for_setter(nb::arg().none()), row.help.data());
  });
  config
      .def("to_dict", &to_dict, nb::sig("def to_dict(self) -> dict[str, object]"),
           "The options by name.")
      .def("__reduce__", &reduce, nb::sig("def __reduce__(self) -> tuple[object, tuple[()]]"))
      .def("__eq__", &equals, nb::arg().none(),
           nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__", &refuse_hash)
      .def("__repr__", &repr);
  m.def("config_with", &config_with,
        nb::sig(("def config_with(" + keywords + ") -> GenerationConfig").c_str()),
        "The config of named options: threshold 0.9 unless they name a rule or a schedule.\n\n"
        "Errors: ConfigError, TypeError.");
}

}  // namespace fastdllm::python
