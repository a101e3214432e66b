// What a growing tree does with rows: parts them, adds them to histograms.
#include <algorithm>
#include <mutex>

#include "tilewright/trees/tree_growth.h"

namespace tilewright {
namespace {

// Rows of a node that are divided together.
constexpr int64_t kDividedRows = 16384;
// Features that are flushed under one lock.
constexpr int64_t kFlushedFeatures = 16;
// Features whose pairs are added together.
constexpr int64_t kPairFeatures = 8;

}  // namespace

std::vector<TreeGrowth::RowChunk> TreeGrowth::chunks_of(const std::vector<int64_t>& nodes,
                                                        int64_t rows) const {
  std::vector<RowChunk> chunks;
  for (const int64_t id : nodes) {
    const Node& node = nodes_[size_t(id)];
    for (int64_t at = node.begin; at < node.end; at += rows) {
      chunks.push_back({id, at, std::min(at + rows, node.end), 0});
    }
  }
  return chunks;
}

// How many rows of each node go left; flags tell which.
std::vector<int64_t> TreeGrowth::flag_rows(const std::vector<int64_t>& batch,
                                           std::vector<RowChunk>& chunks) {
  chunks = chunks_of(batch, kDividedRows);
  run_tree_tasks(int64_t(chunks.size()), [&](int64_t c, int64_t) {
    RowChunk& chunk = chunks[size_t(c)];
    const Node& node = nodes_[size_t(chunk.node)];
    const uint8_t* table = node.table < 0 ? nullptr : tables_[size_t(node.table)].data();
    chunk.left =
        tree_flag_left(work_.codes, node.split, table, work_.rows_at(node.side, chunk.begin),
                       chunk.end - chunk.begin, work_.flags.as<uint8_t>() + chunk.begin);
  });
  std::vector<int64_t> left_counts;
  for (const RowChunk& chunk : chunks) {
    if (chunk.begin == nodes_[size_t(chunk.node)].begin) left_counts.push_back(0);
    left_counts.back() += chunk.left;
  }
  return left_counts;
}

// Rows of nodes to their children, as flags tell; leaves of the last level need no more than flags.
void TreeGrowth::divide_rows(const std::vector<RowChunk>& chunks) {
  std::vector<int64_t> left_at, right_at;
  int64_t low = 0, high = 0;
  for (const RowChunk& chunk : chunks) {
    const Node& node = nodes_[size_t(chunk.node)];
    if (chunk.begin == node.begin) {
      low = node.begin;
      high = nodes_[size_t(tree_.right[size_t(chunk.node)])].begin;
    }
    left_at.push_back(low), right_at.push_back(high);
    low += chunk.left;
    high += chunk.end - chunk.begin - chunk.left;
  }
  const auto out_at = [&](int side, int64_t place) {
    return TreeRowsOut{work_.rows[side].as<int32_t>() + place, work_.words_at(side, place)};
  };
  run_tree_tasks(int64_t(chunks.size()), [&](int64_t c, int64_t) {
    const RowChunk& chunk = chunks[size_t(c)];
    const Node& node = nodes_[size_t(chunk.node)];
    if (is_last_level(node)) return;
    const int side = other_side(node.side);
    tree_divide(work_.flags.as<uint8_t>() + chunk.begin, work_.rows_at(node.side, chunk.begin),
                work_.words_at(node.side, chunk.begin), chunk.end - chunk.begin,
                out_at(side, left_at[size_t(c)]), out_at(side, right_at[size_t(c)]));
  });
}

void TreeGrowth::build_histograms(const std::vector<int64_t>& nodes) {
  for (const int64_t id : nodes) nodes_[size_t(id)].histogram = work_.histograms->take();
  if (work_.few_rows) return build_from_pairs(nodes);
  const std::vector<RowChunk> chunks = chunks_of(nodes, kTreeWordRows);
  const TreeCodes& codes = work_.codes;
  // Sums are integers, so the order in which threads add theirs to a node's does not show.
  std::vector<std::mutex> locks(64);
  const int64_t outputs = work_.histograms_of_node();
  work_.packed.resize(std::max(work_.packed.size(), size_t(at::get_num_threads())));
  run_tree_tasks(int64_t(chunks.size()) * outputs, [&](int64_t task, int64_t thread) {
    const RowChunk& chunk = chunks[size_t(task / outputs)];
    const int64_t output = task % outputs;
    const int side = nodes_[size_t(chunk.node)].side;
    auto& packed = work_.packed[size_t(thread)];
    packed.resize(size_t(codes.features * codes.codes));
    TreeCount* sums = work_.histograms->at(nodes_[size_t(chunk.node)].histogram) +
                      output * codes.features * codes.codes;
    int64_t gathered[kTreeWordRows];
    const int64_t count = chunk.end - chunk.begin;
    const int64_t* words = work_.words_of(output, side, chunk.begin, count, gathered);
    tree_accumulate(codes, words, work_.rows_at(side, chunk.begin), count, packed.data());
    for (int64_t first = 0; first < codes.features; first += kFlushedFeatures) {
      const int64_t last = std::min(first + kFlushedFeatures, codes.features);
      const std::lock_guard<std::mutex> guard(locks[size_t((chunk.node + first) % 64)]);
      tree_flush(packed.data() + first * codes.codes, sums + first * codes.codes,
                 (last - first) * codes.codes);
    }
  });
}

void TreeGrowth::build_from_pairs(const std::vector<int64_t>& nodes) {
  const TreeCodes& codes = work_.codes;
  const int64_t blocks = ceil_div(codes.features, kPairFeatures);
  const int64_t outputs = work_.histograms_of_node();
  run_tree_tasks(int64_t(nodes.size()) * outputs * blocks, [&](int64_t task, int64_t) {
    const Node& node = nodes_[size_t(nodes[size_t(task / blocks / outputs)])];
    const int64_t first = task % blocks * kPairFeatures, output = task / blocks % outputs;
    tree_accumulate_pairs(
        codes, work_.pairs.as<TreeCount>() + output * codes.count,
        work_.rows_at(node.side, node.begin), node.rows(), first,
        std::min(first + kPairFeatures, codes.features),
        work_.histograms->at(node.histogram) + output * codes.features * codes.codes);
  });
}

}  // namespace tilewright
