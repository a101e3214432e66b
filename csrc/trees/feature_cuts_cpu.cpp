// Quantiles of features and bins of values on the CPU.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tilewright/core/check.h"
#include "tilewright/core/huge_pages.h"
#include "tilewright/core/radix_sort.h"
#include "tilewright/trees/cut_placer.h"
#include "tilewright/trees/feature_args.h"
#include "tilewright/trees/feature_cpu.h"

namespace tilewright {
namespace {

constexpr int64_t kQuantizedRows = 1024;  // that a thread takes at once, at least
constexpr int64_t kReadFeatures = 4, kShareOfTable = 16;

FeatureTable table_of(const at::Tensor& x) {
  return {x.const_data_ptr(), x.scalar_type(), x.stride(0), x.stride(1)};
}

struct Value {
  uint32_t key, index;  // among the sampled rows
};

// A different value and how much it weighs.
struct Weighed {
  float value;
  double weight;
};

int32_t place_cuts(const std::vector<Weighed>& values, int64_t max_bin, float* cuts) {
  double total = 0;
  for (const Weighed& v : values) total += v.weight;
  CutPlacer placer(int64_t(values.size()), total, max_bin, cuts);
  for (size_t i = 1; i < values.size(); ++i) {
    placer.between(values[i - 1].value, values[i - 1].weight, values[i].value, values[i].weight);
  }
  return placer.placed();
}

// The same of ascending keys, each of which weighs 1.
int32_t place_cuts(const uint32_t* keys, int64_t count, int64_t max_bin, float* cuts) {
  int64_t different = count > 0;
  for (int64_t i = 1; i < count; ++i) different += keys[i] != keys[i - 1];
  CutPlacer placer(different, double(count), max_bin, cuts);
  const auto end_of_run = [&](int64_t begin) {
    int64_t end = begin + 1;
    while (end < count && keys[end] == keys[begin]) ++end;
    return end;
  };
  for (int64_t begin = 0, end = count > 0 ? end_of_run(0) : 0; end < count;) {
    const int64_t next = end_of_run(end);
    placer.between(from_ascending_bits(keys[begin]), double(end - begin),
                   from_ascending_bits(keys[end]), double(next - end));
    begin = end;
    end = next;
  }
  return placer.placed();
}

// The different values of one feature, ascending.
std::vector<Weighed> weigh(const float* values, const std::vector<double>& weights) {
  std::vector<Value> items;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!std::isnan(values[i]) && weights[i] != 0) {
      items.push_back({ascending_bits(values[i]), uint32_t(i)});
    }
  }
  std::vector<Value> scratch(items.size());
  radix_sort(items.data(), scratch.data(), int64_t(items.size()));
  std::vector<Weighed> out;
  for (const Value& item : items) {
    const float value = from_ascending_bits(item.key);
    if (!out.empty() && out.back().value == value) {
      out.back().weight += weights[item.index];
    } else {
      out.push_back({value, weights[item.index]});
    }
  }
  return out;
}

std::tuple<at::Tensor, at::Tensor> feature_cuts_cpu(const at::Tensor& x,
                                                    const std::optional<at::Tensor>& sample_weight,
                                                    int64_t max_bin) {
  check_feature_cuts(x, sample_weight, max_bin);
  const int64_t rows = x.size(0), features = x.size(1);
  at::Tensor cuts = at::full({features, max_bin}, std::numeric_limits<float>::infinity(),
                             x.options().dtype(at::kFloat));
  at::Tensor count = at::zeros({features}, x.options().dtype(at::kInt));
  const int64_t sampled = std::min(rows, kSampledRows);
  std::vector<double> weights;  // of the sampled rows, or none
  if (sample_weight.has_value()) {
    const at::Tensor given = sample_weight->to(at::kDouble).contiguous();
    const auto* w = given.const_data_ptr<double>();
    for (int64_t i = 0; i < rows; ++i) {
      TILEWRIGHT_CHECK("feature_cuts", w[i] >= 0 && w[i] < HUGE_VAL,
                       "sample_weight must be finite and not negative; that of row ", i, " is ",
                       w[i]);
    }
    for (int64_t i = 0; i < sampled; ++i) weights.push_back(w[sampled_row(i, rows, sampled)]);
  }
  const FeatureTable table = table_of(x);
  auto* const places = cuts.mutable_data_ptr<float>();
  auto* const placed = count.mutable_data_ptr<int32_t>();
  // Rows are long: some features are read together, which take a small share of the table.
  const int64_t together = std::clamp<int64_t>(
      rows * features / (kShareOfTable * std::max<int64_t>(sampled, 1)), 1, kReadFeatures);
  at::parallel_for(0, ceil_div(features, together), 1, [&](int64_t begin, int64_t end) {
    // Not malloc's, which would keep it: the fit that follows needs other sizes.
    const int64_t sorted = weights.empty() ? 2 * sampled : 0;  // keys, and as many of scratch
    HugeBuffer memory((sampled * together + sorted + 1) * int64_t(sizeof(float)));
    auto* const values = memory.as<float>();
    auto* const keys = memory.as<uint32_t>() + sampled * together;
    for (int64_t first = begin * together; first < std::min(end * together, features);
         first += together) {
      const int64_t last = std::min(first + together, features);
      feature_sample(table, first, last, rows, sampled, values);
      for (int64_t f = first; f < last; ++f) {
        const float* own = values + (f - first) * sampled;
        if (!weights.empty()) {
          placed[f] = place_cuts(weigh(own, weights), max_bin, places + f * max_bin);
          continue;
        }
        int64_t present = 0;
        for (int64_t i = 0; i < sampled; ++i) {
          keys[present] = ascending_bits(own[i]);
          present += !std::isnan(own[i]);
        }
        radix_sort_keys(keys, keys + sampled, present);
        placed[f] = place_cuts(keys, present, max_bin, places + f * max_bin);
      }
    }
  });
  return {cuts, count};
}

at::Tensor quantize_features_cpu(const at::Tensor& x, const at::Tensor& cuts,
                                 const at::Tensor& count) {
  check_quantize_features(x, cuts, count);
  const int64_t rows = x.size(0), features = x.size(1);
  at::Tensor codes = at::empty({rows, features}, x.options().dtype(code_type(cuts)));
  const at::Tensor from = cuts.contiguous(), counts = count.contiguous();
  const auto* most = counts.const_data_ptr<int32_t>();
  for (int64_t f = 0; f < features; ++f) {
    TILEWRIGHT_CHECK("quantize_features", most[f] >= 0 && most[f] < cuts.size(1),
                     "count must lie in [0, ", cuts.size(1), "), that of feature ", f, " is ",
                     most[f]);
  }
  QuantizeParams params{table_of(x), from.const_data_ptr<float>(),
                        most,        codes.mutable_data_ptr(),
                        features,    from.size(1)};
  at::parallel_for(0, rows, kQuantizedRows,
                   [&](int64_t begin, int64_t end) { quantize_rows(params, begin, end); });
  return codes;
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) {
  m.impl("feature_cuts", &feature_cuts_cpu);
  m.impl("quantize_features", &quantize_features_cpu);
}

}  // namespace tilewright
