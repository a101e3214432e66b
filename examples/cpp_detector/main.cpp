// Runs an exported detector on image files: plain LibTorch; the operators come by linking
// tilewright.
//
//   cpp_detector model.pt scene.ppm [more.ppm ...]
//
// For every image it prints `# path: N detections`, then one line for each, best first:
// label score x1 y1 x2 y2, boxes in pixels.
#include <torch/script.h>

#include <cstdint>
#include <exception>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int64_t kMaxNumber = 1 << 16;  // a larger number is a damaged header

// The next number of a PPM header; a comment runs from # to the end of its line.
int64_t read_number(std::istream& file, const std::string& path) {
  while ((file >> std::ws).peek() == '#') {
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  int64_t number = 0;
  if (!(file >> number) || number < 1 || number > kMaxNumber) {
    throw std::runtime_error(path + ": the PPM header is damaged");
  }
  return number;
}

// A binary 8-bit PPM (P6) as floats in [0, 1]: (3, H, W).
torch::Tensor read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  char magic[2] = {};
  file.read(magic, 2);
  if (!file || magic[0] != 'P' || magic[1] != '6') {
    throw std::runtime_error(path + ": not a binary PPM image (P6); convert it, for example with " +
                             "`convert image.png image.ppm`");
  }
  const int64_t width = read_number(file, path);
  const int64_t height = read_number(file, path);
  const int64_t max_value = read_number(file, path);
  if (max_value > 255) throw std::runtime_error(path + ": only 8 bits per channel are supported");
  file.get();  // the single blank between header and pixels
  auto pixels = torch::empty({height, width, 3}, torch::kUInt8);
  file.read(reinterpret_cast<char*>(pixels.data_ptr<uint8_t>()), pixels.numel());
  if (file.gcount() != pixels.numel()) throw std::runtime_error(path + ": the file is cut short");
  return pixels.permute({2, 0, 1})
      .to(torch::kFloat)
      .div(static_cast<double>(max_value))
      .contiguous();
}

torch::jit::Module load_model(const std::string& path) {
  if (!std::ifstream(path)) throw std::runtime_error(path + ": cannot be opened");
  try {
    auto model = torch::jit::load(path);
    model.eval();
    return model;
  } catch (const c10::Error& error) {
    throw std::runtime_error(path + ": not a TorchScript file that this program can run: " +
                             error.what_without_backtrace());
  }
}

void detect(torch::jit::Module& model, const std::string& path) {
  c10::List<torch::Tensor> images({read_ppm(path)});
  const auto output = model.forward({images}).toTuple();  // (losses, detections)
  const auto detection = output->elements()[1].toList().get(0).toGenericDict();
  const auto boxes = detection.at("boxes").toTensor().contiguous();    // (D, 4)
  const auto labels = detection.at("labels").toTensor().contiguous();  // (D,)
  const auto scores = detection.at("scores").toTensor().contiguous();  // (D,)
  std::cout << "# " << path << ": " << boxes.size(0) << " detections\n";
  const auto box = boxes.accessor<float, 2>();
  for (int64_t i = 0; i < boxes.size(0); ++i) {
    std::cout << labels.data_ptr<int64_t>()[i] << ' ' << scores.data_ptr<float>()[i];
    for (int64_t side = 0; side < 4; ++side) std::cout << ' ' << box[i][side];
    std::cout << '\n';
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: cpp_detector model.pt image.ppm [image.ppm ...]\n";
    return 2;
  }
  std::cout << std::setprecision(std::numeric_limits<float>::max_digits10);
  try {
    c10::InferenceMode inference;
    auto model = load_model(argv[1]);
    for (int i = 2; i < argc; ++i) detect(model, argv[i]);
  } catch (const std::exception& error) {
    std::cerr << "cpp_detector: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
