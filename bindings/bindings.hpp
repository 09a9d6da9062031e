// One init function per public header, and what they share.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace fastdllm::python {

void bind_errors(nanobind::module_& m);
void bind_options(nanobind::module_& m);
void bind_config(nanobind::module_& m);
void bind_generation(nanobind::module_& m);
void bind_package(nanobind::module_& m);
void bind_request(nanobind::module_& m);
void bind_engine(nanobind::module_& m);

/// Copies ids from a 1-D int32 array or any iterable of integers.
/// Errors: TypeError for what is no integer, Error{bad_config} for one that is no int32.
[[nodiscard]] std::vector<std::int32_t> ids_from(nanobind::handle ids, std::string_view what);

}  // namespace fastdllm::python
