// The walk of NMS. Results depend neither on the number of threads nor on how the walk is cut:
// every candidate is tested exactly against the boxes kept before it.
#include "tilewright/detection/nms_walk.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>

#include "tilewright/core/math.h"

namespace tilewright {
namespace {

// A class of so many boxes is worth all threads; smaller ones are spread over them.
constexpr int64_t kBigGroup = 4096;
// Candidates that one thread visits before the kept among them enter the index.
constexpr int64_t kBlock = 128;
// Candidates that several threads test before one settles them: so many that about kNewlyKept are
// kept, since these are compared with each other by the one.
constexpr int64_t kLeastBlock = 1024, kMostBlock = 4096, kNewlyKept = 256;
// Pairs of boxes (with an index: candidates) below which a second thread costs more than it brings.
constexpr int64_t kGrainPairs = 1 << 18, kGrainCandidates = 512, kGrainBoxes = 16384;
// The index is built when so many boxes are kept, and so many candidates remain for each of them.
constexpr int64_t kIndexFrom = 512;
// Below, too much can reach the threshold with a box for an index to leave out much.
constexpr double kLeastOverlap = 0.05;
constexpr int64_t kMostIndexed = int64_t(1) << 30;  // places are 32-bit

template <class T>
class Index {
 public:
  Index(const NmsWalk<T>& walk, const NmsCpuParams<T>& params, const NmsProgress& progress) {
    const int64_t boxes = progress.moved + params.count - progress.visited;
    // A register's width of zeros at the end, of the widest registers.
    const int64_t places = boxes + 64 / int64_t(sizeof(T));
    index_.bits = 6;
    while (index_.bits < 24 && int64_t(1) << index_.bits < boxes) ++index_.bits;
    const int64_t buckets = int64_t(1) << index_.bits;
    places_.reset(new T[size_t(kNmsArrays * places)]());
    buckets_.reset(new int32_t[size_t(2 * buckets)]());
    occupied_.reset(new uint64_t[size_t(buckets / 64)]());
    bucket_of_ = uninitialized<int32_t>(params.count);
    for (int a = 0; a < kNmsArrays; ++a) index_.boxes[a] = places_.get() + a * places;
    if (params.origin != nullptr) {
      origin_.assign(size_t(places), -1);
      index_.origin = origin_.data();
    }
    index_.buckets = buckets_.get();
    index_.occupied = occupied_.get();
    index_.bucket_of = bucket_of_.get();
    index_.overlap = walk.reach.overlap;
    index_.divisor = walk.reach.divisor;
    // Classes about as wide as the ratio of sides that can meet: there are three to look into.
    constexpr int kOctave = 52;  // bits of a float64 below its exponent
    index_.class_shift = index_.overlap >= 0.5    ? kOctave
                         : index_.overlap >= 0.25 ? kOctave + 1
                                                  : kOctave + 2;
    index_.cells_per_side = index_.overlap >= 0.85 ? 2 : index_.overlap >= 0.7 ? 1 : 0;
    at::parallel_for(0, params.count, kGrainBoxes, [&](int64_t begin, int64_t end) {
      walk.kernels.find_buckets(params, index_, progress, begin, end);
    });
    walk.kernels.build_index(params, index_, progress);
  }
  const NmsIndex<T>* get() const { return &index_; }

 private:
  NmsIndex<T> index_{};
  std::unique_ptr<T[]> places_;
  std::unique_ptr<int32_t[]> buckets_, bucket_of_;
  std::unique_ptr<uint64_t[]> occupied_;
  std::vector<int64_t> origin_;
};

template <class T>
void walk_group(const NmsWalk<T>& walk, int64_t begin, int64_t end, bool parallel) {
  NmsCpuParams<T> params{};
  for (int a = 0; a < kNmsArrays; ++a) params.boxes[a] = walk.boxes[a] + begin;
  params.count = end - begin;
  params.threshold = walk.threshold;
  params.keep = walk.keep + begin;
  if (walk.shapes != nullptr) {
    params.shapes = walk.shapes + begin;
    params.origin = walk.origin + begin;
  }
  params.max_output = walk.max_output;
  NmsProgress progress;
  std::unique_ptr<Index<T>> index;
  bool dropped[kMostBlock];
  int64_t parallel_block = kLeastBlock;
  while (progress.visited < params.count && progress.kept < params.max_output) {
    if (index == nullptr && progress.moved >= kIndexFrom && walk.reach.overlap >= kLeastOverlap &&
        params.count - progress.visited >= progress.moved && params.count <= kMostIndexed) {
      index = std::make_unique<Index<T>>(walk, params, progress);
      params.index = index->get();
    }
    const int64_t first = progress.visited;
    const int64_t grain =
        index != nullptr ? kGrainCandidates : 1 + kGrainPairs / (1 + progress.moved);
    const int64_t block = min_of(params.count - first, parallel ? parallel_block : kBlock);
    if (!parallel || block <= grain) {
      walk.kernels.settle(params, progress, first + block, nullptr);
      continue;
    }
    at::parallel_for(first, first + block, grain, [&](int64_t from, int64_t to) {
      walk.kernels.test(params, progress, from, to, dropped + (from - first));
    });
    const int64_t kept = progress.kept;
    walk.kernels.settle(params, progress, first + block, dropped);
    parallel_block = block * kNewlyKept / max_of<int64_t>(progress.kept - kept, 1);
    parallel_block = min_of(max_of(parallel_block, kLeastBlock), kMostBlock);
  }
}

template <class T>
void walk_groups(const NmsWalk<T>& walk, const NmsOrder& order) {
  const auto& begins = order.group_begins;
  const int64_t groups = int64_t(begins.size()) - 1;
  const bool parallel = at::get_num_threads() > 1 && !at::in_parallel_region();
  const auto is_big = [&](int64_t g) { return parallel && begins[g + 1] - begins[g] >= kBigGroup; };
  int64_t in_small = 0;
  for (int64_t g = 0; g < groups; ++g) {
    if (is_big(g)) {
      walk_group(walk, begins[g], begins[g + 1], true);
    } else {
      in_small += begins[g + 1] - begins[g];
    }
  }
  if (in_small == 0) return;
  std::atomic<int64_t> next = 0;
  const auto take_groups = [&](int64_t, int64_t) {
    for (int64_t g; (g = next.fetch_add(1, std::memory_order_relaxed)) < groups;) {
      if (!is_big(g)) walk_group(walk, begins[g], begins[g + 1], false);
    }
  };
  constexpr int64_t kBoxesPerThread = 1024;
  const int64_t threads = min_of<int64_t>(at::get_num_threads(), groups);
  at::parallel_for(0, min_of(threads, ceil_div(in_small, kBoxesPerThread)), 1, take_groups);
}

}  // namespace

void nms_walk(const NmsWalk<float>& walk, const NmsOrder& order) { walk_groups(walk, order); }
void nms_walk(const NmsWalk<double>& walk, const NmsOrder& order) { walk_groups(walk, order); }

at::Tensor nms_list_kept(const NmsOrder& order, const bool* keep, int64_t max_output) {
  const int64_t n = order.count;
  std::unique_ptr<int64_t[]> by_rank;  // the box of each rank that is kept, or -1
  if (order.rank != nullptr) {
    by_rank = uninitialized<int64_t>(n);
    for (int64_t i = 0; i < n; ++i) by_rank[order.rank[i]] = keep[i] ? order.box[i] : -1;
  }
  int64_t kept = std::count(keep, keep + n, true);
  if (max_output >= 0) kept = min_of(kept, max_output);
  at::Tensor result = at::empty({kept}, at::kLong);
  int64_t* out = result.mutable_data_ptr<int64_t>();
  for (int64_t i = 0, listed = 0; listed < kept; ++i) {
    const int64_t box = by_rank ? by_rank[i] : keep[i] ? order.box[i] : -1;
    if (box >= 0) out[listed++] = box;
  }
  return result;
}

}  // namespace tilewright
