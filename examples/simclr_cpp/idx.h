// Reads MNIST's IDX files: two zeros, a type, the number of dimensions, their sizes as big-endian
// 32-bit numbers, and the values.
#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

// Bytes of an uncompressed file with `dim` dimensions, uint8. Throws std::runtime_error, with the
// name of the file, for any other.
inline torch::Tensor read_idx(const std::string& path, int64_t dim) {
  const auto check = [&path](bool good, const std::string& problem) {
    if (!good) throw std::runtime_error(path + ": " + problem);
  };
  std::ifstream file(path, std::ios::binary);
  check(std::filesystem::is_regular_file(path) && bool(file), "cannot be opened");
  const std::vector<unsigned char> bytes{std::istreambuf_iterator<char>(file), {}};
  check(bytes.size() < 2 || bytes[0] != 0x1f || bytes[1] != 0x8b, "is compressed: gunzip it first");
  const size_t header = 4 + 4 * size_t(dim);
  check(bytes.size() >= header && bytes[0] == 0 && bytes[1] == 0, "is no IDX file");
  constexpr unsigned char kBytes = 8;
  check(bytes[2] == kBytes && bytes[3] == dim,
        "must hold bytes (type 8) in " + std::to_string(dim) + " dimensions, got type " +
            std::to_string(bytes[2]) + " in " + std::to_string(bytes[3]));
  std::vector<int64_t> sizes;
  int64_t count = 1;  // of values, as far as the file can hold them
  for (size_t at = 4; at < header; at += 4) {
    sizes.push_back(int64_t(bytes[at]) << 24 | int64_t(bytes[at + 1]) << 16 |
                    int64_t(bytes[at + 2]) << 8 | int64_t(bytes[at + 3]));
    check(sizes.back() > 0, "has a dimension of size 0");
    check(count <= int64_t(bytes.size()) / sizes.back(), "is shorter than its header says");
    count *= sizes.back();
  }
  check(int64_t(bytes.size() - header) == count, "must have " + std::to_string(count) +
                                                     " values after its header, got " +
                                                     std::to_string(bytes.size() - header));
  auto values = torch::empty(sizes, torch::kUInt8);
  std::copy(bytes.begin() + int64_t(header), bytes.end(), values.data_ptr<uint8_t>());
  return values;
}

struct LabelledImages {
  torch::Tensor images;  // (N, 1, H, W) float32 in [0, 1]
  torch::Tensor labels;  // (N,) int64
};

inline LabelledImages read_labelled(const std::string& images, const std::string& labels) {
  LabelledImages out{read_idx(images, 3).unsqueeze(1).to(torch::kFloat).div_(255),
                     read_idx(labels, 1).to(torch::kLong)};
  if (out.images.size(0) != out.labels.size(0)) {
    throw std::runtime_error(labels + ": must have a label for each of " +
                             std::to_string(out.images.size(0)) + " images, got " +
                             std::to_string(out.labels.size(0)));
  }
  return out;
}
