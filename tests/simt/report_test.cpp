// The memory report of the emulated device, on accesses whose cost is known. This file is compiled
// as device code is.
#include "simt/checker.h"
#include "simt/report_kernels.cuh"
#include "simt/test_support.h"

using namespace tilewright;

namespace {

// The figures of one launch: requests, sectors, fewest; requests, wavefronts, fewest.
template <auto Kernel, class... Arguments>
std::vector<int64_t> report_of(LaunchConfig config, const Arguments&... arguments) {
  simt::set_checks(true);
  simt::set_tracing(true);
  launch<Kernel>(config, arguments...);
  simt::set_tracing(false);
  simt::set_checks(false);
  const auto report = simt::memory_report();
  EXPECT_EQ(report.size(), 1u);
  EXPECT_EQ(report[0].second[0], int64_t(config.block.x));
  EXPECT_EQ(report[0].second[1], int64_t(config.shared_bytes));
  return {report[0].second.begin() + 2, report[0].second.end()};
}

using Figures = std::vector<int64_t>;

class Report : public testing::Test {
 protected:
  Report() : values(32 * 33 + 32) {
    const size_t words = reinterpret_cast<uintptr_t>(values.data()) % 128 / 4;
    input = values.data() + (32 - words) % 32;  // a sector's start, and more
    simt::lend({values.data(), values.size() * 4, 4, false, "input", nullptr});
    simt::lend({output, sizeof(output), 4, true, "output", nullptr});
  }
  static LaunchConfig config(size_t floats) {
    return {.grid = 1, .block = 32, .shared_bytes = floats * 4};
  }
  float* to() { return output; }
  const simt::MemoryScope scope;
  std::vector<float> values;
  const float* input;
  alignas(128) float output[128];
};

}  // namespace

TEST_F(Report, RowsAreCoalescedAndFreeOfConflicts) {
  // 32 loads of 4 sectors and a store; 32 stores without conflicts, and a load by columns, whose
  // 32 words lie in one bank.
  EXPECT_EQ((report_of<matrix_kernel>(config(32 * 32), input, to(), 32, false)),
            (Figures{33, 33 * 4, 33 * 4, 33, 32 + 32, 33}));
}

TEST_F(Report, ColumnsAreNeither) {
  EXPECT_EQ((report_of<matrix_kernel>(config(32 * 32), input, to(), 32, true)),
            (Figures{33, 32 * 32 + 4, 33 * 4, 33, 33 * 32, 33}));
}

TEST_F(Report, APaddedTileHasNoConflicts) {
  const Figures figures = report_of<matrix_kernel>(config(32 * 33), input, to(), 33, true);
  EXPECT_EQ(figures[4], 33);
  EXPECT_EQ(figures[5], 33);
}

TEST_F(Report, PacksAreOneRequest) {
  EXPECT_EQ((report_of<pack_report_kernel<4>>(config(128), input, to())),
            (Figures{2, 16 + 4, 16 + 4, 2, 4 + 1, 4 + 1}));
  EXPECT_EQ((report_of<pack_report_kernel<2>>(config(64), input, to())),
            (Figures{2, 8 + 4, 8 + 4, 2, 2 + 1, 2 + 1}));
}

TEST_F(Report, AddsUpWhileTracingIsOn) {
  simt::set_checks(true);
  simt::set_tracing(true);
  launch<pack_report_kernel<2>>(config(64), input, to());
  launch<pack_report_kernel<2>>(config(64), input, to());
  simt::set_tracing(false);
  launch<pack_report_kernel<2>>(config(64), input, to());
  simt::set_checks(false);
  EXPECT_EQ(simt::memory_report().at(0).second.at(2), 4);
  simt::set_tracing(true);
  simt::set_tracing(false);
  EXPECT_TRUE(simt::memory_report().empty());
}
