// Launches: the limits of sm_80, the order of the blocks, their spread over the cores, and the
// record of which kernels ran.
#include <ATen/Parallel.h>
#include <cxxabi.h>

#include <cstdlib>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <unordered_map>

#include "simt/checker.h"

namespace tilewright::simt {
namespace {

std::atomic<int> order_seed{[] {
  const char* text = std::getenv("TILEWRIGHT_SIMT_ORDER");
  return text ? std::atoi(text) : 0;
}()};

std::atomic<bool> tracing{false};

struct Registry {
  std::mutex mutex;
  std::unordered_map<std::string, KernelRecord> kernels;  // by the tag's name
};
Registry& registry() {
  static Registry instance;
  return instance;
}

std::string demangled(const std::type_info& type) {
  int status = 0;
  char* text = abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
  std::string name = text ? text : type.name();
  std::free(text);
  return name;
}

// "KernelTag<&(void tilewright::on_simt::f<float>(Params))>" -> "void
// tilewright::f<float>(Params)": what cuobjdump prints for the same kernel, but for the name of the
// machine. The name of a kernel that is no template lacks its parameters; they are those of the
// type, "void (Params)".
std::string kernel_name(const std::type_info& tag, const std::type_info& type) {
  std::string name = demangled(tag);
  const std::string opening = "KernelTag<&";
  if (const size_t begin = name.find(opening); begin != std::string::npos && name.back() == '>') {
    name = name.substr(begin + opening.size(), name.size() - begin - opening.size() - 1);
  }
  if (name.front() == '(' && name.back() == ')') {
    name = name.substr(1, name.size() - 2);
  } else {
    const std::string parameters = demangled(type);
    name += parameters.substr(parameters.find('('));
  }
  const std::string machine = "on_simt::";
  for (size_t at; (at = name.find(machine)) != std::string::npos;) name.erase(at, machine.size());
  return name;
}

void check_limits(const KernelRecord& kernel, const LaunchShape& shape) {
  const auto require = [&](bool holds, const std::string& what) {
    if (!holds) throw std::runtime_error("emulated device: " + kernel.name + ": " + what);
  };
  const auto text = [](dim3 v) {
    return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) +
           ")";
  };
  const dim3 grid = shape.grid, block = shape.block;
  require(grid.x <= 0x7fffffff && grid.y <= 65535 && grid.z <= 65535,
          "a grid has at most (2147483647, 65535, 65535) blocks, got " + text(grid));
  require(block.x >= 1 && block.y >= 1 && block.z >= 1 && block.x <= kMaxThreads &&
              block.y <= kMaxThreads && block.z <= 64 &&
              uint64_t(block.x) * block.y * block.z <= kMaxThreads,
          "a block has at most 1024 threads, (1024, 1024, 64) by dimension, got " + text(block));
  const size_t bytes = shape.shared_bytes;
  require(bytes <= kMaxShared,
          "sm_80 has 166912 bytes of shared memory for a block, got " + std::to_string(bytes));
  require(bytes <= kDefaultShared || shape.large_shared,
          "more than 49152 bytes of shared memory take LaunchConfig::large_shared, got " +
              std::to_string(bytes));
}

// A bijection of [0, n): i -> (factor * i + start) % n.
struct BlockOrder {
  BlockOrder(int64_t n, uint64_t seed) : n(n) {
    if (seed == 0) return;
    uint64_t random = seed;
    do {
      random = mix(random);
      factor = int64_t(random % uint64_t(n));
    } while (std::gcd(factor, n) != 1);
    start = int64_t(mix(random) % uint64_t(n));
  }
  int64_t operator()(int64_t i) const { return int64_t((__int128(factor) * i + start) % n); }
  int64_t n, factor = 1, start = 0;
};

// One launch at a time and one block at a time: what another block did earlier is then known.
void launch_checked(const Launch& launch, int64_t blocks, const BlockOrder& order) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  Engine& e = engine_of_this_thread();
  e.begin_launch(launch);
  struct End {
    Engine& e;
    ~End() { e.checker = nullptr, e.end_launch(); }
  } const end{e};
  const auto checker = std::make_unique<Checker>(e, launch);
  e.checker = checker.get();
  if (tracing_is_on()) {
    const dim3 block = launch.shape.block;
    launch.kernel->block_threads = int64_t(block.x) * block.y * block.z;
    launch.kernel->shared_bytes = int64_t(launch.shape.shared_bytes);
  }
  const int64_t x = launch.shape.grid.x, y = launch.shape.grid.y;
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t b = order(i);
    e.run_block(dim3(unsigned(b % x), unsigned(b / x % y), unsigned(b / x / y)));
  }
}

}  // namespace

KernelRecord& kernel_record(const std::type_info& tag, const std::type_info& type) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  KernelRecord& record = r.kernels[tag.name()];
  if (record.name.empty()) record.name = kernel_name(tag, type);
  return record;
}

void set_order(int seed) { order_seed = seed; }

void launch(KernelRecord& record, const LaunchShape& shape, void (*thread)(const void* arguments),
            const void* arguments, size_t arguments_bytes) {
  check_limits(record, shape);
  if (engine && engine->current)
    throw std::runtime_error("emulated device: a kernel cannot launch");
  if (!tracing_is_on()) ++record.launches;  // a launch for the report is no test of the kernel
  const uint64_t seed = uint64_t(unsigned(order_seed.load()));
  const Launch launch{&record, shape, thread, arguments, arguments_bytes, seed};
  const int64_t x = shape.grid.x, y = shape.grid.y, blocks = x * y * shape.grid.z;
  const BlockOrder order(blocks, seed);

  if (checks_are_on()) {
    launch_checked(launch, blocks, order);
    return;
  }

  // Chunks worth an OS thread, of which 16 at most: each keeps up to 1024 stacks.
  const int64_t threads = int64_t(shape.block.x) * shape.block.y * shape.block.z;
  const int64_t grain = std::max((blocks + 15) / 16, 256 / threads + 1);
  std::atomic<bool> failed{false};
  at::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    Engine& e = engine_of_this_thread();
    e.begin_launch(launch);
    try {
      for (int64_t i = begin; i < end && !failed.load(std::memory_order_relaxed); ++i) {
        const int64_t b = order(i);
        e.run_block(dim3(unsigned(b % x), unsigned(b / x % y), unsigned(b / x / y)));
      }
    } catch (...) {
      failed = true;
      e.end_launch();
      throw;
    }
    e.end_launch();
  });
}

int64_t launch_count() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  int64_t sum = 0;
  for (const auto& [tag, record] : r.kernels) sum += record.launches;
  return sum;
}

std::vector<std::string> launched_kernels() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  std::vector<std::string> names;
  for (const auto& [tag, record] : r.kernels)
    if (record.launches > 0) names.push_back(record.name);
  std::sort(names.begin(), names.end());
  return names;
}

void reset_counts() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  for (auto& [tag, record] : r.kernels) {
    record.launches = 0;
  }
}

void set_tracing(bool on) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  for (auto& [tag, record] : r.kernels) {
    if (on) record.block_threads = record.shared_bytes = 0, record.traffic = {};
  }
  tracing = on;
}
bool tracing_is_on() { return tracing; }

std::vector<std::pair<std::string, std::vector<int64_t>>> memory_report() {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  std::vector<std::pair<std::string, std::vector<int64_t>>> report;
  for (const auto& [tag, k] : r.kernels) {
    if (k.block_threads == 0) continue;
    const MemoryTraffic& t = k.traffic;
    report.emplace_back(
        k.name, std::vector<int64_t>{k.block_threads, k.shared_bytes, t.global_requests, t.sectors,
                                     t.fewest_sectors, t.shared_requests, t.wavefronts,
                                     t.fewest_wavefronts});
  }
  std::sort(report.begin(), report.end());
  return report;
}

}  // namespace tilewright::simt
