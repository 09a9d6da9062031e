// TensorRT's interfaces as of 10.14 with all that the fake has no use for.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <cstdlib>

namespace fake_nvinfer {

using namespace nvinfer1;

class UnusedContext : public apiv::VExecutionContext {
 public:
  IExecutionContext* getPImpl() noexcept override { return nullptr; }
  void setDebugSync(bool) noexcept override {}
  bool getDebugSync() const noexcept override { return false; }
  void setProfiler(IProfiler*) noexcept override {}
  IProfiler* getProfiler() const noexcept override { return nullptr; }
  const ICudaEngine& getEngine() const noexcept override { std::abort(); }
  void setName(const char*) noexcept override {}
  const char* getName() const noexcept override { return ""; }
  void setDeviceMemory(void*) noexcept override {}
  std::int32_t getOptimizationProfile() const noexcept override { return -1; }
  bool allInputDimensionsSpecified() const noexcept override { return false; }
  bool allInputShapesSpecified() const noexcept override { return false; }
  void setErrorRecorder(IErrorRecorder*) noexcept override {}
  IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
  bool executeV2(void* const*) noexcept override { return false; }
  void setEnqueueEmitsProfile(bool) noexcept override {}
  bool getEnqueueEmitsProfile() const noexcept override { return false; }
  bool reportToProfiler() const noexcept override { return false; }
  Dims getTensorStrides(const char*) const noexcept override { return {}; }
  const void* getTensorAddress(const char*) const noexcept override { return nullptr; }
  bool setOutputTensorAddress(const char*, void*) noexcept override { return false; }
  bool setInputConsumedEvent(cudaEvent_t) noexcept override { return false; }
  cudaEvent_t getInputConsumedEvent() const noexcept override { return nullptr; }
  void* getOutputTensorAddress(const char*) const noexcept override { return nullptr; }
  bool setOutputAllocator(const char*, IOutputAllocator*) noexcept override { return false; }
  IOutputAllocator* getOutputAllocator(const char*) noexcept override { return nullptr; }
  std::int64_t getMaxOutputSize(const char*) const noexcept override { return 0; }
  bool setTemporaryStorageAllocator(IGpuAllocator*) noexcept override { return false; }
  IGpuAllocator* getTemporaryStorageAllocator() const noexcept override { return nullptr; }
  void setPersistentCacheLimit(std::size_t) noexcept override {}
  std::size_t getPersistentCacheLimit() const noexcept override { return 0; }
  bool setNvtxVerbosity(ProfilingVerbosity) noexcept override { return false; }
  ProfilingVerbosity getNvtxVerbosity() const noexcept override {
    return ProfilingVerbosity::kNONE;
  }
  void setAuxStreams(cudaStream_t*, std::int32_t) noexcept override {}
  bool setDebugListener(IDebugListener*) noexcept override { return false; }
  IDebugListener* getDebugListener() noexcept override { return nullptr; }
  bool setTensorDebugState(const char*, bool) noexcept override { return false; }
  bool getDebugState(const char*) const noexcept override { return false; }
  bool setAllTensorsDebugState(bool) noexcept override { return false; }
  std::size_t updateDeviceMemorySizeForShapes() noexcept override { return 0; }
  IRuntimeConfig* getRuntimeConfig() const noexcept override { return nullptr; }
  bool setUnfusedTensorsDebugState(bool) noexcept override { return false; }
  bool getUnfusedTensorsDebugState() const noexcept override { return false; }
};

class UnusedEngine : public apiv::VCudaEngine {
 public:
  ICudaEngine* getPImpl() noexcept override { return nullptr; }
  std::int32_t getNbLayers() const noexcept override { return 0; }
  IHostMemory* serialize() const noexcept override { return nullptr; }
  IExecutionContext* createExecutionContextWithoutDeviceMemory() noexcept override {
    return nullptr;
  }
  std::size_t getDeviceMemorySize() const noexcept override { return 0; }
  bool isRefittable() const noexcept override { return false; }
  const char* getName() const noexcept override { return ""; }
  const std::int32_t* getProfileTensorValues(const char*, std::int32_t,
                                             OptProfileSelector) const noexcept override {
    return nullptr;
  }
  EngineCapability getEngineCapability() const noexcept override {
    return EngineCapability::kSTANDARD;
  }
  void setErrorRecorder(IErrorRecorder*) noexcept override {}
  IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
  bool hasImplicitBatchDimension() const noexcept override { return false; }
  TacticSources getTacticSources() const noexcept override { return 0; }
  ProfilingVerbosity getProfilingVerbosity() const noexcept override {
    return ProfilingVerbosity::kNONE;
  }
  IEngineInspector* createEngineInspector() const noexcept override { return nullptr; }
  bool isShapeInferenceIO(const char*) const noexcept override { return false; }
  std::int32_t getTensorBytesPerComponent(const char*) const noexcept override { return 0; }
  std::int32_t getTensorComponentsPerElement(const char*) const noexcept override { return 0; }
  TensorFormat getTensorFormat(const char*) const noexcept override {
    return TensorFormat::kLINEAR;
  }
  const char* getTensorFormatDesc(const char*) const noexcept override { return ""; }
  std::int32_t getTensorVectorizedDim(const char*) const noexcept override { return -1; }
  HardwareCompatibilityLevel getHardwareCompatibilityLevel() const noexcept override {
    return HardwareCompatibilityLevel{};
  }
  std::int32_t getNbAuxStreams() const noexcept override { return 0; }
  std::int32_t getTensorBytesPerComponentV2(const char*, std::int32_t) const noexcept override {
    return 0;
  }
  std::int32_t getTensorComponentsPerElementV2(const char*, std::int32_t) const noexcept override {
    return 0;
  }
  TensorFormat getTensorFormatV2(const char*, std::int32_t) const noexcept override {
    return TensorFormat::kLINEAR;
  }
  const char* getTensorFormatDescV2(const char*, std::int32_t) const noexcept override {
    return "";
  }
  std::int32_t getTensorVectorizedDimV2(const char*, std::int32_t) const noexcept override {
    return -1;
  }
  ISerializationConfig* createSerializationConfig() noexcept override { return nullptr; }
  IHostMemory* serializeWithConfig(ISerializationConfig&) const noexcept override {
    return nullptr;
  }
  std::size_t getDeviceMemorySizeForProfile(std::int32_t) const noexcept override { return 0; }
  IRefitter* createRefitter(ILogger&) noexcept override { return nullptr; }
  bool setWeightStreamingBudget(std::int64_t) noexcept override { return false; }
  std::int64_t getWeightStreamingBudget() const noexcept override { return 0; }
  std::int64_t getMinimumWeightStreamingBudget() const noexcept override { return 0; }
  std::int64_t getStreamableWeightsSize() const noexcept override { return 0; }
  bool isDebugTensor(const char*) const noexcept override { return false; }
  bool setWeightStreamingBudgetV2(std::int64_t) noexcept override { return false; }
  std::int64_t getWeightStreamingBudgetV2() const noexcept override { return 0; }
  std::int64_t getWeightStreamingAutomaticBudget() const noexcept override { return 0; }
  std::int64_t getWeightStreamingScratchMemorySize() const noexcept override { return 0; }
  std::int64_t getDeviceMemorySizeV2() const noexcept override { return 0; }
  const std::int64_t* getProfileTensorValuesV2(const char*, std::int32_t,
                                               OptProfileSelector) const noexcept override {
    return nullptr;
  }
  IExecutionContext* createExecutionContextWithRuntimeConfig(IRuntimeConfig*) noexcept override {
    return nullptr;
  }
  IRuntimeConfig* createRuntimeConfig() noexcept override { return nullptr; }
  std::int64_t getEngineStat(EngineStat) const noexcept override { return 0; }
};

class UnusedRuntime : public apiv::VRuntime {
 public:
  IRuntime* getPImpl() noexcept override { return nullptr; }
  ICudaEngine* deserializeCudaEngine(IStreamReader&) noexcept override { return nullptr; }
  void setDLACore(std::int32_t) noexcept override {}
  std::int32_t getDLACore() const noexcept override { return 0; }
  std::int32_t getNbDLACores() const noexcept override { return 0; }
  void setGpuAllocator(IGpuAllocator*) noexcept override {}
  void setErrorRecorder(IErrorRecorder*) noexcept override {}
  IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
  ILogger* getLogger() const noexcept override { return nullptr; }
  bool setMaxThreads(std::int32_t) noexcept override { return false; }
  std::int32_t getMaxThreads() const noexcept override { return 1; }
  void setTemporaryDirectory(const char*) noexcept override {}
  const char* getTemporaryDirectory() const noexcept override { return ""; }
  void setTempfileControlFlags(TempfileControlFlags) noexcept override {}
  TempfileControlFlags getTempfileControlFlags() const noexcept override { return 0; }
  IPluginRegistry& getPluginRegistry() noexcept override { std::abort(); }
  void setPluginRegistryParent(IPluginRegistry*) noexcept override {}
  IRuntime* loadRuntime(const char*) noexcept override { return nullptr; }
  void setEngineHostCodeAllowed(bool) noexcept override {}
  bool getEngineHostCodeAllowed() const noexcept override { return false; }
  ICudaEngine* deserializeCudaEngineV2(IStreamReaderV2&) noexcept override { return nullptr; }
};

}  // namespace fake_nvinfer
