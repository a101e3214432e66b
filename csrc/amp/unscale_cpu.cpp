// unscale_ and unscale_and_norm_ on the CPU: gradients cut into pieces, pieces spread over threads.
#include "tilewright/amp/unscale_cpu.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tilewright/amp/grads_args.h"
#include "tilewright/amp/unscale_args.h"
#include "tilewright/amp/unscale_math.h"

namespace tilewright {
namespace {

using at::Tensor;

// A thread should have so many bytes to read, a tensor counting as some more: half a millisecond's
// work. After a pause, 5,000 tensors of 800 bytes took 1.9 ms with one thread, and 2.1 to 5.8 with
// another that slept.
constexpr int64_t kGrainBytes = 1 << 23, kTensorBytes = 1 << 10;

struct Piece {
  int64_t tensor;
  UnscalePiece work;
};

// Of a gradient's elements in turn; and the first piece of each task, one more at the end. One walk
// over the tensors finds all that is needed of them: of thousands each walk comes from memory.
struct Pieces {
  std::vector<Piece> all;
  std::vector<int64_t> tasks;

  Pieces(at::TensorList grads, float inv_scale, bool write) {
    all.reserve(grads.size());
    int64_t bytes = kGrainBytes;
    for (size_t t = 0; t < grads.size(); ++t) {
      const Tensor& grad = grads[t];
      const int64_t numel = grad.numel(), element = grad.element_size();
      if (numel == 0) continue;
      // Asked here, by one thread: torch may have to copy what is shared until then.
      char* const data = static_cast<char*>(write ? grad.mutable_data_ptr()
                                                  : const_cast<void*>(grad.const_data_ptr()));
      const auto dtype = grad.scalar_type();
      for (int64_t begin = 0; begin < numel; begin += kUnscalePiece) {
        const int64_t count = std::min(numel - begin, kUnscalePiece);
        if (bytes >= kGrainBytes) {
          tasks.push_back(int64_t(all.size()));
          bytes = 0;
        }
        bytes += count * element + kTensorBytes;
        all.push_back({int64_t(t), {data + begin * element, count, dtype, inv_scale, write}});
      }
    }
    tasks.push_back(int64_t(all.size()));
  }
};

// The sum of squares; found_inf and first_bad are written.
double unscale_all(at::TensorList grads, const Tensor& found_inf, const Tensor& inv_scale,
                   const std::optional<Tensor>& first_bad, bool norm, bool write) {
  const Pieces pieces(grads, *inv_scale.const_data_ptr<float>(), write);
  std::vector<UnscaleFound> found(pieces.all.size());
  at::parallel_for(0, int64_t(pieces.tasks.size()) - 1, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = pieces.tasks[begin]; i < pieces.tasks[end]; ++i) {
      found[i] = unscale_piece(pieces.all[i].work, norm);
    }
  });
  double squares = 0;
  int64_t first = -1;
  for (size_t i = 0; i < found.size(); ++i) {
    squares += found[i].squares;
    if (found[i].bad && first < 0) first = pieces.all[i].tensor;
  }
  if (first >= 0) {
    *found_inf.mutable_data_ptr<float>() = 1;
    if (first_bad) {
      int64_t* least = first_bad->mutable_data_ptr<int64_t>();
      *least = std::min(*least, first);
    }
  }
  return squares;
}

void unscale_cpu(at::TensorList grads, const Tensor& found_inf, const Tensor& inv_scale,
                 const std::optional<Tensor>& first_bad, bool write) {
  check_unscale(unscale_name(false), grads, found_inf, inv_scale, first_bad);
  const DenseGrads dense(unscale_name(false), grads);
  unscale_all(dense.tensors(), found_inf, inv_scale, first_bad, false, write);
  if (write) dense.copy_back();
}

Tensor unscale_and_norm_cpu(at::TensorList grads, const Tensor& found_inf, const Tensor& inv_scale,
                            const std::optional<Tensor>& first_bad, bool write) {
  check_unscale(unscale_name(true), grads, found_inf, inv_scale, first_bad);
  const DenseGrads dense(unscale_name(true), grads);
  Tensor norm = empty_norm(grads, found_inf);
  const double root =
      std::sqrt(unscale_all(dense.tensors(), found_inf, inv_scale, first_bad, true, write));
  if (norm.scalar_type() == at::kDouble) {
    *norm.mutable_data_ptr<double>() = root;
  } else {
    *norm.mutable_data_ptr<float>() = float(root);  // infinite where it is beyond float32
  }
  if (write) dense.copy_back();
  return norm;
}

}  // namespace

TORCH_LIBRARY_IMPL(tilewright, CPU, m) {
  m.impl("unscale_", &unscale_cpu);
  m.impl("unscale_and_norm_", &unscale_and_norm_cpu);
}

}  // namespace tilewright
