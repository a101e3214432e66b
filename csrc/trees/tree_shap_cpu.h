// What the CPU kernel of tree_shap is called with: trees as lists of edges.
//
// A leaf of value v below the features D weighs, for feature i of D,
//   v (o_i - z_i) sum over S in D without i of |S|! (|D| - |S| - 1)! / |D|! prod_S o prod_rest z
// with o_j = 1 where the row goes to the leaf at all of j's nodes on the path, else 0, and z_j the
// product of the shares that these nodes send its way. The weights are Beta integrals, so it is
//   integral over t in [0, 1] of prod over j in D without i of (t o_j + (1 - t) z_j),
// a polynomial of degree |D| - 1, which a Gauss-Legendre rule of ceil(|D| / 2) points integrates
// without error. All its terms are positive: nothing cancels. Point by point the products run down
// the tree and the sums over leaves run up, as in Linear TreeSHAP (arXiv:2209.08192), and a feature
// takes (o - z) / (t o + (1 - t) z) of its edge's sum.
//
// A pair i, j takes (o_i - z_i) (o_j - z_j) / 2 times the integral of the product without both.
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "tilewright/core/cpu/isa.h"

namespace tilewright {

// From a node, the parent, to a child. Those of a tree stand as a walk from the root meets their
// children, the left one first.
struct ShapEdge {
  double share;  // of the rows at the parent that go this way when not asked
  double above;  // the product of shares of the same feature's edges above: 1 where there is none
  float threshold;
  int32_t feature;  // the parent's, among those used
  int32_t depth;    // of the child; the root's is 0
  int32_t earlier;  // the child's depth of the nearest edge above of the same feature, or 0
  int64_t parent;   // among the caller's nodes
  int64_t child;
  bool right, leaf, default_left;
};

struct ShapTree {
  int64_t begin, end;     // its edges
  int64_t point, points;  // its rule in the tables
  int32_t output;         // -1: leaves are vectors
};

struct ShapParams {
  const void* x;
  c10::ScalarType dtype;
  int64_t rows, row, column;  // strides in elements
  int64_t features, outputs;  // columns of the result: features + 1
  const int32_t* used;        // the features that trees ask for
  int64_t used_count;
  const ShapEdge* edges;
  const ShapTree* trees;
  int64_t tree_count;
  const double *points, *rests, *weights;  // t, 1 - t, and weights of the rules
  const float* value;                      // (M, values)
  int64_t values;
  const int64_t* category_ptr;  // by the caller's node, or null
  const int32_t* categories;
  const double* expected;         // (outputs,)
  int64_t most_depth, most_size;  // of the trees: depth; depth times points
  int64_t block_rows;             // that walk together: a multiple of kShapRows
  float* out;  // zeros: (N, outputs, features + 1), of pairs (N, outputs, features + 1, the same)
};

constexpr int64_t kShapRows = 8;  // whole registers on all machines

// Rows [begin, end); begin is a multiple of kShapRows.
TILEWRIGHT_CPU_KERNEL(tree_shap_rows, void(const ShapParams&, int64_t begin, int64_t end))
TILEWRIGHT_CPU_KERNEL(tree_shap_pair_rows, void(const ShapParams&, int64_t begin, int64_t end))

}  // namespace tilewright
