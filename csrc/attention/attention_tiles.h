// Which tiles the tensor core kernels take, by GPU and head size.
//
// What decides, until figures of a GPU do: no local memory in the main loop, two blocks on each
// multiprocessor where that can be (latency hides behind the other one), and then as many groups
// per warp as the registers hold. Two groups share what a warp reads of the other side's tile,
// which halves the reads of shared memory per product: with one, they and not the tensor cores
// would set the pace. benchmarks/attention_static.py shows what each row comes to.
#pragma once

namespace tilewright {

struct AttentionTiles {
  int capability;  // 10 * major + minor, of this GPU and later ones up to the next row's
  int columns;     // the head size, padded
  bool general;    // of the kernels that take every option
  // Groups of 16 lines that a warp owns: queries in the forward pass and for their gradients, keys
  // for theirs.
  int forward_groups, key_groups, query_groups;
  // Rows of the other side that a step brings in: keys, queries, keys.
  int forward_step, key_step, query_step;
  // Blocks that share a tile of keys: with two, one sums the gradient of keys, one that of values.
  int key_parts;
};

inline constexpr AttentionTiles kAttentionTiles[] = {
    // GPU, columns, general; groups; steps; parts
    {80, 64, false, 2, 2, 2, 64, 32, 32, 1},  // 32 to 49 KB, 224 to 255 registers
    {80, 64, true, 1, 1, 1, 64, 32, 32, 1},   // 26 to 34 KB; the options take the registers
    // Scores of 64 keys would not fit into registers beside the sums of 128 columns. Steps of 32
    // would take 98 KB for the gradient of queries: one block of the 164 KB.
    {80, 128, false, 2, 1, 2, 32, 32, 16, 1},
    {90, 128, false, 2, 1, 2, 32, 32, 32, 1},  // 228 KB hold two
    {80, 128, true, 1, 1, 1, 32, 32, 32, 1},
    // Registers hold the gradient of keys or that of values. The tiles are the same with and
    // without options: one kernel.
    {80, 256, true, 1, 1, 1, 32, 32, 32, 2},  // 132 KB: one block, as it would be with steps of 16
    {86, 256, true, 1, 1, 1, 32, 16, 16, 2},  // 99 KB: all that 8.6, 8.9 and 12.0 grant; two on 9.0
};

constexpr AttentionTiles attention_tiles(int capability, int columns, bool general) {
  AttentionTiles found{};
  for (const AttentionTiles& row : kAttentionTiles) {
    const bool serves = row.columns == columns && row.general == general;
    if (serves && row.capability <= capability) found = row;
  }
  return found;
}

}  // namespace tilewright
