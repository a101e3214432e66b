// Columns by radix sort.
#include "tilewright/trees/exact_columns.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/trees/tree_workspace.h"

namespace tilewright::trees {
namespace {

constexpr uint32_t kMissing = ~uint32_t(0);
constexpr int kPasses = 3, kDigitBits = 11;
constexpr uint32_t kDigits = uint32_t(1) << kDigitBits;

// An integer that is less where the value is.
uint32_t key_of(float value) {
  if (std::isnan(value)) return kMissing;
  value += 0.0f;  // -0 to 0
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits ^ (bits >> 31 != 0 ? kMissing : uint32_t(1) << 31);
}
float value_of(uint32_t key) {
  const uint32_t bits = key ^ (key >> 31 != 0 ? uint32_t(1) << 31 : kMissing);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

struct Entry {
  uint32_t key;
  int32_t row;
};
struct Sorter {
  std::vector<Entry> entries, spare;
  std::vector<int64_t> counts;

  // Digit by digit from the lowest: equal keys stay in the order of rows.
  void sort(const float* column, int64_t rows, int32_t* places, float* values) {
    entries.resize(size_t(rows)), spare.resize(size_t(rows));
    counts.assign(kPasses * kDigits, 0);
    for (int64_t row = 0; row < rows; ++row) {
      const uint32_t key = key_of(column[row]);
      entries[size_t(row)] = {key, int32_t(row)};
      for (int pass = 0; pass < kPasses; ++pass) ++counts[place_of(key, pass)];
    }
    for (int pass = 0; pass < kPasses; ++pass) {
      int64_t begin = 0;
      for (uint32_t digit = 0; digit < kDigits; ++digit) {
        int64_t& at = counts[pass * kDigits + digit];
        begin += std::exchange(at, begin);
      }
      for (const Entry& entry : entries) spare[size_t(counts[place_of(entry.key, pass)]++)] = entry;
      entries.swap(spare);
    }
    for (int64_t i = 0; i < rows; ++i) {
      places[i] = entries[size_t(i)].row;
      values[i] = value_of(entries[size_t(i)].key);
    }
  }
  static size_t place_of(uint32_t key, int pass) {
    return size_t(pass) * kDigits + (key >> (pass * kDigitBits) & (kDigits - 1));
  }
};

}  // namespace

ExactColumns::ExactColumns(const InputTable& table)
    : rows_(table.rows()),
      features_(table.features()),
      places_(rows_ * features_ * int64_t(sizeof(int32_t))),
      values_(rows_ * features_ * int64_t(sizeof(float))) {
  TILEWRIGHT_CHECK("trees", rows_ < int64_t(1) << 31, "x may have less than 2^31 rows, got ",
                   rows_);
  std::vector<Sorter> sorters(static_cast<size_t>(at::get_num_threads()));
  const int64_t width = std::max<int64_t>(InputTable::kBlockCells / rows_, 1);
  table.for_columns([&](int64_t first, const at::Tensor& x) {
    for (int64_t part = 0; part < x.size(1); part += width) {
      const int64_t count = std::min(width, x.size(1) - part);
      const at::Tensor columns = x.detach().narrow(1, part, count).t().to(at::kFloat).contiguous();
      const auto* from = columns.const_data_ptr<float>();
      run_tree_tasks(count, [&](int64_t c, int64_t thread) {
        const int64_t at = (first + part + c) * rows_;
        sorters[size_t(thread)].sort(from + c * rows_, rows_, places_.as<int32_t>() + at,
                                     values_.as<float>() + at);
      });
    }
  });
}

}  // namespace tilewright::trees
