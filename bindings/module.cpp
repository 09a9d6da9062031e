#include "fastdllm/error.hpp"

#include <nanobind/stl/string.h>

#include "bindings.hpp"

namespace nb = nanobind;

namespace fastdllm::python {
namespace {

struct ErrorTypes {
  PyObject* package;
  PyObject* config;
  PyObject* backend;
  PyObject* overloaded;
  PyObject* numeric;
};

PyObject* add_error(nb::module_& m, const char* name, const char* doc, nb::handle bases) {
  const nb::object qualified = nb::str("{}.{}").format(m.attr("__name__"), name);
  const nb::object type = nb::steal(PyErr_NewExceptionWithDoc(
      nb::cast<std::string>(qualified).c_str(), doc, bases.ptr(), nullptr));
  if (!type.is_valid()) throw nb::python_error();
  m.attr(name) = type;
  return type.ptr();  // the module keeps it alive
}

void translate(const std::exception_ptr& problem, void* payload) {
  const auto* types = static_cast<const ErrorTypes*>(payload);
  try {
    std::rethrow_exception(problem);
  } catch (const Error& error) {
    PyObject* type = types->package;
    switch (error.code()) {
      case ErrorCode::bad_package: type = types->package; break;
      case ErrorCode::bad_config: type = types->config; break;
      case ErrorCode::backend: type = types->backend; break;
      case ErrorCode::overloaded: type = types->overloaded; break;
      case ErrorCode::numeric: type = types->numeric; break;
    }
    PyErr_SetString(type, error.what());
  }
}

}  // namespace

void bind_errors(nb::module_& m) {
  const nb::handle base =
      add_error(m, "Error", "Base of all errors of fastdllm.", PyExc_RuntimeError);
  const nb::tuple value_bases = nb::make_tuple(base, nb::handle(PyExc_ValueError));
  static ErrorTypes types{
      add_error(m, "PackageError", "The package is missing, damaged or from the future.", base),
      add_error(m, "ConfigError", "An option or a prompt that cannot be honoured.", value_bases),
      add_error(m, "BackendError", "The inference library is missing, too old, or failed.", base),
      add_error(m, "OverloadedError", "Too many requests are waiting: try again later.", base),
      add_error(m, "NumericError", "The model answered with what is no probability.", base)};
  nb::register_exception_translator(translate, &types);
}

}  // namespace fastdllm::python

NB_MODULE(_core, m) {
  nb::set_leak_warnings(false);  // a library does not print; what others hold at exit is theirs
  m.doc() = "The C++ runtime of fastdllm. Use it through the package `fastdllm`.";
  fastdllm::python::bind_errors(m);
  fastdllm::python::bind_options(m);
  fastdllm::python::bind_config(m);
  fastdllm::python::bind_generation(m);
  fastdllm::python::bind_package(m);
  fastdllm::python::bind_request(m);
  fastdllm::python::bind_engine(m);
}
