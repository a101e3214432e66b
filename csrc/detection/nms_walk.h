// The walk of NMS over the candidates of every class: how it is cut for threads, and when an index
// over the kept boxes is worth building.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "tilewright/detection/nms_cpu.h"
#include "tilewright/detection/nms_cpu_sort.h"

namespace tilewright {

// How far boxes that reach the threshold can lie apart: what NmsIndex documents.
struct NmsReach {
  double overlap, divisor;
};

template <class T>
struct NmsWalk {
  NmsCpuKernels<T> kernels;
  T threshold;
  NmsReach reach;  // of boxes along one axis
  int64_t max_output;
  T* boxes[kNmsArrays];         // all candidates in the order of the walk; overwritten
  bool* keep;                   // (count,), false at first
  const RotatedBox<T>* shapes;  // of rotated boxes, else null
  int64_t* origin;              // (count,), scratch for rotated boxes, else null
};

// Sets `keep` for what NMS keeps within each class.
void nms_walk(const NmsWalk<float>& walk, const NmsOrder& order);
void nms_walk(const NmsWalk<double>& walk, const NmsOrder& order);

// Which boxes of the input are kept, by descending score; at most max_output of them (-1: all).
at::Tensor nms_list_kept(const NmsOrder& order, const bool* keep, int64_t max_output);

}  // namespace tilewright
