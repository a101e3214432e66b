// Times the prediction of a few rows by a program without Python: tilewright through TreeEnsemble, xgboost and
// lightgbm through their C interfaces, whose libraries are opened by name. benchmarks/predict_rows.py starts it.
//
//   predict_rows tilewright|xgboost|lightgbm LIBRARY MODEL ROWS FEATURES TOTAL COUNT REPEATS
//
// ROWS holds TOTAL rows of FEATURES float32 each; each call predicts the next COUNT of them. Prints a line of
// REPEATS times in microseconds, and one of the predictions of the first COUNT rows.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <dlfcn.h>
#include <torch/script.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "tilewright/trees/tree_ensemble.h"

namespace {

// Predicts `count` rows that begin at `x` into `out`.
using Predict = std::function<void(const float* x, float* out)>;

struct Work {
  std::string library, model;
  int64_t features, count;
};

template <class Function>
Function* symbol(void* library, const char* name) {
  auto* found = reinterpret_cast<Function*>(dlsym(library, name));
  if (found == nullptr) throw std::runtime_error(std::string("no symbol ") + name);
  return found;
}

void* opened(const std::string& library) {
  void* found = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (found == nullptr) throw std::runtime_error(dlerror());
  return found;
}

void succeeded(int code) {
  if (code != 0) throw std::runtime_error("a peer's call failed");
}

Predict tilewright_of(const Work& work) {
  const auto ensemble =
      torch::jit::load(work.model).attr("ensemble").toCustomClass<tilewright::TreeEnsemble>();
  return [=](const float* x, float* out) {
    const c10::InferenceMode mode;
    const at::Tensor rows = at::from_blob(const_cast<float*>(x), {work.count, work.features});
    const at::Tensor found = ensemble->predict(rows);
    std::copy_n(found.const_data_ptr<float>(), work.count, out);
  };
}

Predict xgboost_of(const Work& work) {
  void* library = opened(work.library);
  using Handle = void*;
  Handle booster;
  succeeded(symbol<int(const Handle*, uint64_t, Handle*)>(library, "XGBoosterCreate")(nullptr, 0,
                                                                                      &booster));
  succeeded(
      symbol<int(Handle, const char*)>(library, "XGBoosterLoadModel")(booster, work.model.c_str()));
  succeeded(symbol<int(Handle, const char*, const char*)>(library, "XGBoosterSetParam")(
      booster, "nthread", "2"));
  using FromDense =
      int(Handle, const char*, const char*, Handle, const uint64_t**, uint64_t*, const float**);
  auto* predict = symbol<FromDense>(library, "XGBoosterPredictFromDense");
  const std::string config =
      R"({"type": 0, "training": false, "iteration_begin": 0, "iteration_end": 0,
                                 "strict_shape": false, "cache_id": 0, "missing": NaN})";
  return [=](const float* x, float* out) {
    const std::string rows = "{\"data\": [" + std::to_string(reinterpret_cast<uintptr_t>(x)) +
                             ", true], \"shape\": [" + std::to_string(work.count) + ", " +
                             std::to_string(work.features) +
                             R"(], "typestr": "<f4", "version": 3})";
    const uint64_t* shape;
    uint64_t dims;
    const float* found;
    succeeded(predict(booster, rows.c_str(), config.c_str(), nullptr, &shape, &dims, &found));
    std::copy_n(found, work.count, out);
  };
}

Predict lightgbm_of(const Work& work) {
  void* library = opened(work.library);
  using Handle = void*;
  constexpr int kFloat32 = 0, kNormal = 0, kRowMajor = 1, kAllRounds = -1;
  const char* parameters = "num_threads=2";
  Handle booster;
  int rounds;
  succeeded(symbol<int(const char*, int*, Handle*)>(library, "LGBM_BoosterCreateFromModelfile")(
      work.model.c_str(), &rounds, &booster));
  std::vector<double> found(size_t(work.count), 0);
  if (work.count == 1) {
    Handle fast;
    using Init = int(Handle, int, int, int, int, int32_t, const char*, Handle*);
    succeeded(symbol<Init>(library, "LGBM_BoosterPredictForMatSingleRowFastInit")(
        booster, kNormal, 0, kAllRounds, kFloat32, int32_t(work.features), parameters, &fast));
    auto* predict = symbol<int(Handle, const void*, int64_t*, double*)>(
        library, "LGBM_BoosterPredictForMatSingleRowFast");
    return [=](const float* x, float* out) {
      int64_t length;
      double value;
      succeeded(predict(fast, x, &length, &value));
      *out = float(value);
    };
  }
  using ForMat = int(Handle, const void*, int, int32_t, int32_t, int, int, int, int, const char*,
                     int64_t*, double*);
  auto* predict = symbol<ForMat>(library, "LGBM_BoosterPredictForMat");
  return [=](const float* x, float* out) mutable {
    int64_t length;
    succeeded(predict(booster, x, kFloat32, int32_t(work.count), int32_t(work.features), kRowMajor,
                      kNormal, 0, kAllRounds, parameters, &length, found.data()));
    std::copy_n(found.data(), work.count, out);
  };
}

Predict predict_of(const std::string& who, const Work& work) {
  if (who == "tilewright") return tilewright_of(work);
  if (who == "xgboost") return xgboost_of(work);
  if (who == "lightgbm") return lightgbm_of(work);
  throw std::runtime_error("tilewright, xgboost or lightgbm, got " + who);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 9) {
    std::fprintf(stderr, "usage: %s WHO LIBRARY MODEL ROWS FEATURES TOTAL COUNT REPEATS\n",
                 argv[0]);
    return 2;
  }
  const Work work{argv[2], argv[3], std::stoll(argv[5]), std::stoll(argv[7])};
  const int64_t total = std::stoll(argv[6]), repeats = std::stoll(argv[8]),
                places = total / work.count;
  std::vector<float> rows(size_t(total * work.features)), first(size_t(work.count)),
      out(size_t(work.count));
  std::ifstream(argv[4], std::ios::binary)
      .read(reinterpret_cast<char*>(rows.data()), int64_t(rows.size() * 4));
  const Predict predict = predict_of(argv[1], work);
  predict(rows.data(), first.data());
  for (int64_t i = 0; i < 20 + repeats; ++i) {
    const float* x = rows.data() + (i % places) * work.count * work.features;
    const auto start = std::chrono::steady_clock::now();
    predict(x, out.data());
    const std::chrono::duration<double, std::micro> taken =
        std::chrono::steady_clock::now() - start;
    if (i >= 20) std::printf("%.3f ", taken.count());
  }
  std::printf("\n");
  for (const float value : first) std::printf("%.9g ", value);
  std::printf("\n");
}
