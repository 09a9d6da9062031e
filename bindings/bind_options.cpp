// The table of options in Python, and code shared by the options of several structs.
#include "option_values.hpp"

#include "threads.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace fastdllm::python {
namespace {

/// A row of the table as a Python object.
struct PyOption {
  OptionInfo info;
  std::string annotation;
  nb::object standard;  // its default
};

template <typename Struct>
void add_rows(std::vector<PyOption>& table) {
  const Struct defaults;
  for_each_option<Struct>([&](const auto& row) {
    table.push_back({.info = {},
                     .annotation = annotation_of<ValueOf<Struct, decltype(row)>>(row),
                     .standard = to_python(row, defaults.*row.member)});
  });
}

std::vector<PyOption> rows() {
  std::vector<PyOption> table;
  add_rows<GenerationConfig>(table);
  add_rows<SessionOptions>(table);
  add_rows<EngineLimits>(table);
  std::vector<OptionInfo> infos = option_table();
  for (std::size_t i = 0; i < table.size(); ++i) table[i].info = std::move(infos[i]);
  return table;
}

// For pickle and copy: a row is what its name says.
void init_option(PyOption* self, const std::string& name) {
  for (PyOption& row : rows()) {
    if (row.info.name == name) {
      new (self) PyOption(std::move(row));
      return;
    }
  }
  throw nb::key_error(name.c_str());
}

nb::tuple reduce(const PyOption& option) {
  return nb::make_tuple(nb::type<PyOption>(), nb::make_tuple(std::string(option.info.name)));
}

// A bound of integers is an integer that belongs to them: 2**64 excluded is 2**64 - 1.
nb::object bound(const PyOption& option, const std::optional<double>& value, int inwards) {
  if (!value) return nb::none();
  if (option.info.type == OptionType::number || option.info.type == OptionType::biases) {
    return nb::float_(*value);
  }
  const nb::object exact = nb::steal(PyLong_FromDouble(*value));
  if (!exact.is_valid()) throw nb::python_error();
  return inwards == 0 ? exact : exact + nb::int_(inwards);
}

nb::object minimum(const PyOption& option) {
  return bound(option, option.info.minimum, option.info.minimum_excluded ? 1 : 0);
}

nb::object maximum(const PyOption& option) {
  return bound(option, option.info.maximum, option.info.maximum_excluded ? -1 : 0);
}

nb::tuple choices(const PyOption& option) {
  nb::list names;
  for (const std::string_view name : option.info.choices) names.append(std::string(name));
  return nb::tuple(names);
}

constexpr const char* columns[] = {"group",   "name",    "type",   "annotation", "optional",
                                   "minimum", "maximum", "range",  "choices",    "default",
                                   "since",   "help",    "is_rule"};

nb::list keys(const PyOption&) {
  nb::list names;
  for (const char* name : columns) names.append(name);
  return names;
}

nb::object get_item(nb::handle self, const std::string& key) {
  for (const char* name : columns) {
    if (key == name) return self.attr(name);
  }
  throw nb::key_error(key.c_str());
}

}  // namespace

std::string repr_of(nb::handle value) {
  return nb::cast<std::string>(kept([&] { return nb::repr(value); }));
}

nb::object integer_from(nb::handle value) {
  const nb::object number = nb::steal(kept([&] { return PyNumber_Index(value.ptr()); }));
  if (!number.is_valid()) PyErr_Clear();
  return number;
}

bool read_number(double& number, nb::handle value) {
  number = kept([&] { return PyFloat_AsDouble(value.ptr()); });
  if (PyErr_Occurred() == nullptr) return true;
  PyErr_Clear();
  return false;
}

bool read_integer(std::int64_t& number, nb::handle value) {
  const nb::object exact = integer_from(value);
  return exact.is_valid() && nb::try_cast<std::int64_t>(exact, number);
}

// nanobind would not say what is wrong with a negative seed.
bool read_seed(std::uint64_t& seed, nb::handle value, std::string_view name) {
  const nb::object number = integer_from(value);
  if (!number.is_valid()) return false;
  seed = PyLong_AsUnsignedLongLong(number.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw Error(ErrorCode::bad_config,
                concat(name, " is ", repr_of(number), "; expected an integer in [0, 2**64)"));
  }
  return true;
}

bool read_ids(std::vector<std::int32_t>& ids, nb::handle value, std::string_view name) {
  if (value.is_none() || nb::isinstance<nb::str>(value)) return false;
  ids = ids_from(value, name);
  return true;
}

// Ascending ids, so that equal mappings are equal options. Ids as decimal strings come from JSON.
bool read_biases(Biases& biases, nb::handle value, std::string_view name) {
  if (PyMapping_Check(value.ptr()) == 0) return false;
  if (kept([&] { return PyObject_HasAttrString(value.ptr(), "keys"); }) == 0) return false;
  nb::dict given;
  kept([&] { given.update(value); });
  std::vector<double> numbers;
  nb::list ids;
  for (const auto& [key, bias] : given) {
    nb::object id = nb::borrow(key);
    if (nb::isinstance<nb::str>(key)) {
      id = nb::steal(kept([&] { return PyNumber_Long(key.ptr()); }));
      if (!id.is_valid()) PyErr_Clear();
    }
    if (!id.is_valid() || !read_number(numbers.emplace_back(), bias)) return false;
    ids.append(id);
  }
  const std::vector<std::int32_t> tokens = ids_from(ids, name);
  biases.clear();
  for (std::size_t i = 0; i < tokens.size(); ++i) biases.emplace_back(tokens[i], numbers[i]);
  std::sort(biases.begin(), biases.end());
  return true;
}

bool read_path(std::string& path, nb::handle value) {
  if (value.is_none()) {
    path.clear();
    return true;
  }
  const nb::object text = nb::steal(kept([&] { return PyOS_FSPath(value.ptr()); }));
  if (!text.is_valid()) {
    PyErr_Clear();
    return false;
  }
  return nb::try_cast<std::string>(text, path);
}

std::string help_of(OptionGroup group) {
  constexpr std::size_t width = 96;
  std::string text;
  for (const OptionInfo& option : option_table()) {
    if (option.group != group) continue;
    std::string line = concat(option.name, ": ", option.help);
    if (!option.range.empty()) line += concat("; ", option.range);
    if (!option.choices.empty()) {
      std::string names;
      for (const auto one : option.choices)
        names += concat(names.empty() ? "" : ", ", "'", one, "'");
      line += concat("; one of ", names);
    }
    line += ".";
    while (line.size() > width) {
      const std::size_t space = line.rfind(' ', width);
      text += concat(line.substr(0, space), "\n");
      line = concat("    ", line.substr(space + 1));
    }
    text += concat(line, "\n");
  }
  return text;
}

void reject_option(std::string_view owner, std::string_view name,
                   std::span<const std::string_view> names) {
  throw nb::type_error(concat(owner, " has no option '", name, "'", meant(name, names)).c_str());
}

EngineKeywords engine_keywords(const nb::kwargs& given) {
  EngineKeywords options;
  for (const auto& [key, value] : given) {
    const auto name = nb::cast<std::string>(key);
    if (set_by_name(options.session, name, value) || set_by_name(options.limits, name, value)) {
      continue;
    }
    auto names = names_of<SessionOptions>();
    const auto more = names_of<EngineLimits>();
    names.insert(names.end(), more.begin(), more.end());
    reject_option("Engine", name, names);
  }
  return options;
}

std::string engine_signature() {
  return "def __init__(self, package_dir: str | os.PathLike[str], *" +
         keywords_of<SessionOptions>() + keywords_of<EngineLimits>() + ") -> None";
}

void bind_options(nb::module_& m) {
  const std::string keywords = "*" + keywords_of<SessionOptions>() + keywords_of<EngineLimits>();
  m.def(
      "check_engine_options",
      [](const nb::kwargs& given) {
        const EngineKeywords options = engine_keywords(given);
        validate(options.session);
        validate(options.limits);
      },
      nb::sig(("def check_engine_options(" + keywords + ") -> None").c_str()),
      "Checks keywords of Engine without a package. Errors: TypeError, ConfigError.");
  nb::class_<PyOption>(m, "Option", "A row of option_table(); dict(row) has the same by name.")
      .def_prop_ro(
          "group", [](const PyOption& o) { return std::string(name_of(o.info.group)); },
          "'generation', 'session' or 'engine'.")
      .def_prop_ro("name", [](const PyOption& o) { return std::string(o.info.name); })
      .def_prop_ro(
          "type", [](const PyOption& o) { return std::string(name_of(o.info.type)); },
          "'integer', 'number', 'flag', 'choice', 'text', 'path', 'ids' or 'biases'.")
      .def_prop_ro(
          "annotation", [](const PyOption& o) { return o.annotation; }, "Its type in Python.")
      .def_prop_ro(
          "optional", [](const PyOption& o) { return o.info.optional; },
          "Whether None is a value of it.")
      .def_prop_ro("minimum", &minimum, nb::sig("def minimum(self) -> float | None"))
      .def_prop_ro("maximum", &maximum, nb::sig("def maximum(self) -> float | None"))
      .def_prop_ro(
          "range", [](const PyOption& o) { return o.info.range; },
          "Minimum and maximum in words: 'at least 1', 'in (0, 1]'; '' = any.")
      .def_prop_ro("choices", &choices, nb::sig("def choices(self) -> tuple[str, ...]"))
      .def_prop_ro(
          "default", [](const PyOption& o) { return o.standard; },
          nb::sig("def default(self) -> typing.Any"))
      .def_prop_ro(
          "since", [](const PyOption& o) { return std::string(o.info.since); },
          "The first version that has it.")
      .def_prop_ro("help", [](const PyOption& o) { return std::string(o.info.help); })
      .def_prop_ro(
          "is_rule", [](const PyOption& o) { return o.info.is_rule; },
          "Whether it decides how many positions a pass commits.")
      .def("__init__", &init_option, "name"_a)
      .def("__reduce__", &reduce, nb::sig("def __reduce__(self) -> tuple[object, tuple[str]]"))
      .def("keys", &keys, nb::sig("def keys(self) -> list[str]"))
      .def("__getitem__", &get_item, nb::sig("def __getitem__(self, key: str, /) -> typing.Any"));
  m.def("option_table", &rows, nb::sig("def option_table() -> list[Option]"),
        "All options of generations, sessions and engines, in their order.");
}

}  // namespace fastdllm::python
