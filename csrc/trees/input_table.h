// The features that fits read, dense or sparse.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <utility>

#include "tilewright/trees/tree_arrays.h"

namespace tilewright::trees {

// A sparse table is never dense as a whole but as bytes of bins: blocks of at most kBlockCells
// values (or one row, one column) are filled at a time.
class InputTable {
 public:
  static constexpr int64_t kBlockCells = int64_t(1) << 22;

  // x: (N, F), floating, NaN missing: dense on any device, or torch's sparse CSR with indices of
  // int64 or int32, on the CPU, whose absent entries are 0. An error where it is neither, or where
  // indices are no CSR's.
  InputTable(const char* name, const at::Tensor& x);

  at::Device device() const { return dense_.defined() ? dense_.device() : at::Device(at::kCPU); }
  int64_t rows() const { return rows_; }
  int64_t features() const { return features_; }
  const at::Tensor& dense() const { return dense_; }  // undefined of a sparse table

  // feature_cuts of the table.
  std::pair<at::Tensor, at::Tensor> cuts(const at::Tensor& weights, int64_t max_bin) const;
  // quantize_features of the rows from `first` on, block by block: nobody holds the codes of all.
  using CodesBlock = std::function<void(int64_t first, const at::Tensor& codes)>;
  void for_codes(const at::Tensor& cuts, const at::Tensor& count, const CodesBlock& body) const;

  // Blocks of rows or of columns, one after the other: a dense table is one block as it is, of a
  // sparse one they are dense float32.
  using Block = std::function<void(int64_t first, const at::Tensor& x)>;
  void for_rows(const Block& body) const;
  void for_columns(const Block& body) const;

  // The table as float32 columns, (F, N), of one on the CPU; missing values are 0.
  at::Tensor columns() const;

  // Adds what the trees answer to scores (K, N), on the table's device: their sum, or one tree
  // after the other, as a fit adds them.
  void add_scores(const EnsembleArrays& trees, at::Tensor& scores) const;
  void add_scores_in_turn(const EnsembleArrays& trees, at::Tensor& scores) const;

 private:
  int64_t rows_, features_;
  at::Tensor dense_;
  at::Tensor row_ptr_, columns_, values_;  // of a sparse table: int64, int64, float32
};

}  // namespace tilewright::trees
