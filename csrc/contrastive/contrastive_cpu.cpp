// contrastive_lse on the CPU: tensors to raw pointers, blocks, and the order of their pairs.
#include "tilewright/contrastive/contrastive_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tilewright/contrastive/contrastive_args.h"

namespace tilewright {
namespace {

using at::Tensor;
using Pairs = std::vector<ContrastivePair>;

int64_t block_of(int64_t count, int64_t blocks, int64_t least) {
  return std::max(least, ceil_div(ceil_div(count, blocks), kContrastiveRows) * kContrastiveRows);
}

// At most so many blocks, none of fewer rows than `least`.
ContrastiveBlocks blocks_of(int64_t queries, int64_t keys, int64_t most, int64_t least) {
  const int64_t q = block_of(queries, most, least), k = block_of(keys, most, least);
  return {q, k, ceil_div(queries, q), ceil_div(keys, k)};
}

// A bound of all scores, in powers of 2, by Cauchy and Schwarz: where it is small it is the shift
// of all of them, and infinity where it does not serve.
double shared_shift(const Tensor& query, const Tensor& key, double scale) {
  // A sum over one long row is cut by the number of threads, and so would all that follows be.
  constexpr int64_t kLongRow = 16384;
  const double none = std::numeric_limits<double>::infinity();
  if (query.size(1) > kLongRow && std::min(query.size(0), key.size(0)) == 1) return none;
  const auto longest = [](const Tensor& rows) {
    const auto type = contrastive_sums_type(rows.scalar_type());
    return at::linalg_vector_norm(rows, 2, 1, false, type).max().item<double>();
  };
  const double first = longest(query), second = key.is_same(query) ? first : longest(key);
  const double bound = std::abs(scale) * first * second * kLog2E * (1 + 1e-5);
  return bound <= kMostSharedShift ? bound : none;
}

// What both passes read; the tensors behind it are kept.
struct ContrastiveInputs {
  ContrastiveInputs(const ContrastiveArgs& args, const Tensor& given_query,
                    const OptionalTensor& given_key, const OptionalTensor& given_exclude)
      : query(given_query.contiguous()), key(given_key ? given_key->contiguous() : query) {
    params.dtype = query.scalar_type();
    params.query = query.const_data_ptr();
    params.key = key.const_data_ptr();
    params.queries = query.size(0);
    params.keys = key.size(0);
    params.depth = query.size(1);
    params.self = !given_key.has_value();
    params.columns = args.columns;
    if (given_exclude) {
      exclude = given_exclude->contiguous();
      params.exclude = exclude.const_data_ptr<int64_t>();
    }
    params.exclude_count = args.exclude_count;
    params.diagonal = args.diagonal;
    params.scale = args.scale;
    params.shift = shared_shift(query, key, args.scale);
  }
  Tensor query, key, exclude;
  ContrastiveCpuParams params{};
};

ContrastiveSums contrastive_lse_cpu(const Tensor& query, const OptionalTensor& key,
                                    const OptionalTensor& exclude, double scale, bool columns,
                                    int64_t exclude_count, bool diagonal) {
  const ContrastiveArgs args("contrastive_lse", key, scale, columns, exclude_count, diagonal);
  check_contrastive(args, query, key, exclude);
  if (exclude) check_exclude(args, *exclude, key->size(0));
  auto [rows, sums] = contrastive_output(args, query, key);
  if (query.size(0) == 0 || (key && key->size(0) == 0)) {
    rows.fill_(-std::numeric_limits<double>::infinity());
    sums.fill_(-std::numeric_limits<double>::infinity());
    return {rows, sums};
  }
  ContrastiveInputs in(args, query, key, exclude);
  ContrastiveCpuParams& p = in.params;
  constexpr int64_t kMostParts = 64, kLeastRows = 4 * kContrastiveRows;
  p.blocks = blocks_of(p.queries, p.keys, kMostParts, kLeastRows);
  const auto options = rows.options();
  const Tensor row_parts = at::empty({2, p.blocks.key_blocks, p.queries}, options);
  const Tensor column_parts = at::empty({2, columns ? p.blocks.query_blocks : 0, p.keys}, options);
  p.row_most = row_parts[0].data_ptr();
  p.row_sums = row_parts[1].data_ptr();
  p.column_most = column_parts[0].data_ptr();
  p.column_sums = column_parts[1].data_ptr();
  Pairs pairs;
  for (int64_t i = 0; i < p.blocks.query_blocks; ++i) {
    for (int64_t j = p.self ? i : 0; j < p.blocks.key_blocks; ++j) pairs.push_back({i, j});
  }
  at::parallel_for(0, int64_t(pairs.size()), 1, [&](int64_t begin, int64_t end) {
    contrastive_forward(p, pairs.data(), begin, end);
  });
  const auto merge = [&](const Tensor& parts, Tensor& lse) {
    const Tensor most = parts[0], added = parts[1];
    at::parallel_for(0, lse.size(0), 1024, [&](int64_t begin, int64_t end) {
      contrastive_merge(p.dtype, most.const_data_ptr(), added.const_data_ptr(), most.size(0),
                        lse.size(0), lse.data_ptr(), begin, end);
    });
  };
  merge(row_parts, rows);
  if (columns) merge(column_parts, sums);
  return {rows, sums};
}

// Rounds of pairs of which no two share a block of queries' copy or of keys: each round's pairs run
// side by side, and what a block adds up comes in the order of rounds.
class Rounds {
 public:
  explicit Rounds(const ContrastiveCpuParams& p) {
    p.self ? among_themselves(p.blocks.query_blocks) : with_others(p);
  }

  void run(const ContrastiveCpuParams& p) const {
    int64_t begin = 0;
    for (const int64_t end : ends_) {
      at::parallel_for(begin, end, 1, [&](int64_t first, int64_t last) {
        contrastive_backward(p, pairs_.data(), first, last);
      });
      begin = end;
    }
  }

 private:
  void with_others(const ContrastiveCpuParams& p) {
    const int64_t queries = p.blocks.query_blocks, keys = p.blocks.key_blocks;
    // Residues of the side with many blocks, so that few blocks of the other occupy all threads.
    const int64_t residues = std::max(p.query_copies, p.key_copies);
    const bool of_keys = p.query_copies > 1;
    const int64_t few = of_keys ? queries : keys, many = of_keys ? keys : queries;
    const int64_t steps = std::max(few, ceil_div(many, residues));
    for (int64_t round = 0; round < steps; ++round) {
      for (int64_t residue = 0; residue < residues; ++residue) {
        for (int64_t i = 0; i < few; ++i) {
          const int64_t other = (i + round) % steps * residues + residue;
          if (other >= many) continue;
          pairs_.push_back(of_keys ? ContrastivePair{i, other} : ContrastivePair{other, i});
        }
      }
      ends_.push_back(int64_t(pairs_.size()));
    }
  }

  // A tournament: each block meets each other one once, and itself.
  void among_themselves(int64_t blocks) {
    for (int64_t i = 0; i < blocks; ++i) pairs_.push_back({i, i});
    ends_.push_back(blocks);
    const int64_t even = (blocks + 1) / 2 * 2;  // with an odd number one rests
    for (int64_t round = 0; round + 1 < even; ++round) {
      const auto add = [&](int64_t a, int64_t b) {
        if (std::max(a, b) < blocks) pairs_.push_back({std::min(a, b), std::max(a, b)});
      };
      add(even - 1, round);
      for (int64_t i = 1; i < even / 2; ++i) {
        add((round + i) % (even - 1), (round + even - 1 - i) % (even - 1));
      }
      ends_.push_back(int64_t(pairs_.size()));
    }
  }

  Pairs pairs_;
  std::vector<int64_t> ends_;
};

// Copies that let a side of few blocks meet several of the other at a time; their number depends on
// sizes alone.
int64_t copies_for(int64_t few, int64_t many) {
  constexpr int64_t kWanted = 8;
  return few < kWanted && many >= 2 * kWanted ? ceil_div(kWanted, few) : 1;
}

ContrastiveGrads contrastive_lse_backward_cpu(const Tensor& grad_rows, const Tensor& grad_columns,
                                              const Tensor& query, const OptionalTensor& key,
                                              const OptionalTensor& exclude, const Tensor& rows,
                                              const Tensor& columns, double scale,
                                              bool with_columns, int64_t exclude_count,
                                              bool diagonal, ContrastiveNeeds needs) {
  const ContrastiveArgs args("_contrastive_lse_backward", key, scale, with_columns, exclude_count,
                             diagonal);
  check_contrastive_backward(args, {grad_rows, grad_columns}, query, key, exclude, {rows, columns});
  if (exclude) check_exclude(args, *exclude, key->size(0));
  auto [grad_query, grad_key] = contrastive_grads(query, key, needs);
  if (query.size(0) == 0 || (key && key->size(0) == 0)) {
    return {grad_query.zero_(), grad_key.zero_()};
  }
  ContrastiveInputs in(args, query, key, exclude);
  ContrastiveCpuParams& p = in.params;
  constexpr int64_t kMostBlocks = 32, kLeastRows = 2 * kContrastiveRows;
  p.blocks = blocks_of(p.queries, p.keys, kMostBlocks, kLeastRows);
  p.query_copies = p.self ? 1 : copies_for(p.blocks.query_blocks, p.blocks.key_blocks);
  p.key_copies = p.self ? 1 : copies_for(p.blocks.key_blocks, p.blocks.query_blocks);
  const Tensor row_lse = (rows * kLog2E).contiguous(), row_grad = grad_rows.contiguous();
  p.row_lse = row_lse.const_data_ptr();
  p.row_grad = row_grad.const_data_ptr();
  Tensor column_lse, column_grad;
  if (with_columns) {
    column_lse = (columns * kLog2E).contiguous();
    column_grad = grad_columns.contiguous();
    p.column_lse = column_lse.const_data_ptr();
    p.column_grad = column_grad.const_data_ptr();
  }
  const auto sums_of = [&](const Tensor& tensor, int64_t copies) {
    return at::zeros({copies, tensor.size(0), tensor.size(1)}, rows.options());
  };
  Tensor query_sums, key_sums;
  if (needs[0]) {
    query_sums = sums_of(in.query, p.query_copies);
    p.grad_query = query_sums.data_ptr();
  }
  if (p.self) {
    p.grad_key = p.grad_query;
  } else if (needs[1]) {
    key_sums = sums_of(in.key, p.key_copies);
    p.grad_key = key_sums.data_ptr();
  }
  Rounds(p).run(p);
  const auto store = [](const Tensor& sums, Tensor& grad) {
    if (!sums.defined()) return;
    if (sums.size(0) == 1 && sums.scalar_type() == grad.scalar_type()) {
      grad = sums.squeeze(0);
      return;
    }
    const Tensor whole = sums[0];
    for (int64_t i = 1; i < sums.size(0); ++i) whole.add_(sums[i]);
    grad.copy_(whole);
  };
  store(query_sums, grad_query);
  store(key_sums, grad_key);
  return {grad_query, grad_key};
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) {
  m.impl("_contrastive_lse", &contrastive_lse_cpu);
  m.impl("_contrastive_lse_backward", &contrastive_lse_backward_cpu);
}

}  // namespace tilewright
