// The features of a table, each sorted once: what trees are grown from without bins.
#pragma once
#include "tilewright/core/huge_pages.h"
#include "tilewright/trees/exact_cpu.h"
#include "tilewright/trees/input_table.h"

namespace tilewright::trees {

// Values are float32, as prediction compares them; missing ones come last, and of equal ones the
// lower row first. -0 counts as 0. 8 bytes a value.
class ExactColumns {
 public:
  explicit ExactColumns(const InputTable& table);
  int64_t rows() const { return rows_; }
  int64_t features() const { return features_; }
  // Places are rows.
  SortedColumns sorted() const { return {places_.as<int32_t>(), values_.as<float>(), rows_}; }

 private:
  int64_t rows_, features_;
  HugeBuffer places_, values_;
};

}  // namespace tilewright::trees
