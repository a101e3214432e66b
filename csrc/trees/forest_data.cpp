#include "tilewright/trees/forest_data.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tilewright/core/math.h"
#include "tilewright/trees/feature_args.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

constexpr int64_t kCopiedRows = 1024;  // that are read at a time

// Rows of a table begin where as few lines of the cache as can be are touched.
int64_t padded(int64_t bytes) {
  int64_t power = 1;
  while (power < bytes && power < 64) power *= 2;
  return bytes <= 64 ? power : ceil_div(bytes, 64) * 64;
}

}  // namespace

ForestData::ForestData(const InputTable& x, const Tensor& weights, int64_t max_bin, Rows layout)
    : rows_(x.rows()), weights_(weights) {
  max_bin = std::clamp<int64_t>(rows_, 2, max_bin);  // no more bins than values: tables are wide
  const auto [cuts, count] = x.cuts(weights, max_bin);
  cuts_ = cuts.contiguous();
  bins_ = (count + 1).contiguous();
  const int64_t features = x.features(), size = int64_t(c10::elementSize(code_type(cuts)));
  const int64_t stride = layout == Rows::kAligned ? padded(features * size) : features * size;
  codes_ = HugeBuffer(std::max<int64_t>(rows_ * stride, 1));
  x.for_codes(cuts, count, [&](int64_t first, const Tensor& codes) {
    const auto* from = static_cast<const uint8_t*>(codes.const_data_ptr());
    uint8_t* const to = codes_.as<uint8_t>() + first * stride;
    for (int64_t row = 0; row < codes.size(0); ++row) {
      std::memcpy(to + row * stride, from + row * features * size, size_t(features * size));
    }
  });
  table_.codes = codes_.as<void>();
  table_.stride = stride / size;
  table_.features = features;
  table_.wide = size > 1;
  table_.num_codes = codes_of(max_bin);
  table_.missing = int32_t(table_.num_codes - 1);
  table_.bins = bins_.const_data_ptr<int32_t>();
  table_.max_bin = max_bin;
  least_ = at::full({features, max_bin}, HUGE_VALF, at::kFloat);
  most_ = at::full({features, max_bin}, -HUGE_VALF, at::kFloat);
  table_.least = least_.const_data_ptr<float>();
  table_.most = most_.const_data_ptr<float>();
  x.for_columns([&](int64_t first, const Tensor& values) { find_extremes(first, values); });
}

void ForestData::find_extremes(int64_t begins, const Tensor& x) {
  const int64_t features = x.size(1), max_bin = table_.max_bin;
  auto* least = least_.mutable_data_ptr<float>() + begins * max_bin;
  auto* most = most_.mutable_data_ptr<float>() + begins * max_bin;
  const double* weights = weights_.defined() ? weights_.const_data_ptr<double>() : nullptr;
  const int64_t block = std::max<int64_t>(ceil_div(features, at::get_num_threads()), 1);
  at::parallel_for(0, ceil_div(features, block), 1, [&](int64_t first, int64_t last) {
    const int64_t begin = first * block, end = std::min(last * block, features);
    const Tensor block_of_x = x.slice(1, begin, end);
    for (int64_t from = 0; from < rows_; from += kCopiedRows) {  // a copy of few rows at a time
      const int64_t to = std::min(from + kCopiedRows, rows_);
      const Tensor values = block_of_x.slice(0, from, to).to(at::kFloat).contiguous();
      const auto* value = values.const_data_ptr<float>();
      const auto bound = [&](auto codes) {
        for (int64_t row = from; row < to; ++row) {
          if (weights != nullptr && weights[row] == 0) continue;
          for (int64_t f = begin; f < end; ++f) {
            const int32_t code = codes[row * table_.stride + begins + f];
            if (code == table_.missing) continue;
            // Infinite values would leave no threshold between.
            const int64_t at = (row - from) * (end - begin) + f - begin;
            const float v = std::clamp(value[at], -3.0e38f, 3.0e38f);
            float &low = least[f * max_bin + code], &high = most[f * max_bin + code];
            low = std::min(low, v);
            high = std::max(high, v);
          }
        }
      };
      table_.wide ? bound(codes_.as<uint16_t>()) : bound(codes_.as<uint8_t>());
    }
  });
}

void ForestData::set_labels(const Tensor& labels, int64_t num_class) {
  labels_ = labels;
  table_.labels = labels_.const_data_ptr<ForestLabel>();
  table_.outputs = num_class;
  table_.weight_unit = 1;
}

void ForestData::set_values(const Tensor& values) {
  // The middle of the range: unlike a mean it does not depend on the order of rows.
  const Tensor taken = weights_.defined() ? values.index({weights_ > 0}) : values;
  const Tensor least = taken.amin({0}), most = taken.amax({0});
  centre_ = (least / 2 + most / 2).contiguous();
  values_ = (values - centre_).contiguous();
  greatest_ = (taken - centre_).abs().max().item<double>();
  table_.values = values_.const_data_ptr<double>();
  table_.centre = centre_.const_data_ptr<double>();
  table_.outputs = values.size(1);
  table_.weight_unit = 1;
}

}  // namespace tilewright::trees
