// Stands for an ONNX Runtime that is older than the API this build needs.
extern "C" {

struct ApiBase {
  const void* (*get_api)(unsigned version);
  const char* (*get_version)();
};

__attribute__((visibility("default"))) const ApiBase* OrtGetApiBase() {
  static const ApiBase base{[](unsigned) -> const void* { return nullptr; },
                            []() -> const char* { return "1.23.2"; }};
  return &base;
}
}
