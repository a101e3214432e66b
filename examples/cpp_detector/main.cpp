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
#include <sstream>
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

// What LibTorch says in one line: without stack traces, and of an error in the model's own code
// only the end, where the reason stands.
std::string in_a_line(const std::string& message) {
  std::istringstream lines(message);
  std::string line;
  std::string told;
  bool in_model = false;
  while (std::getline(lines, line)) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (!told.empty() && !in_model) break;
    in_model = in_model || line.find("failed in the TorchScript interpreter") != std::string::npos;
    told = line;
  }
  return told;
}

// A detector takes a list of images and gives (losses, detections), a dictionary for each image.
void check_detector(const torch::jit::Module& model, const std::string& path) {
  const std::string expected = path + ": expected a detector that tilewright exported, with " +
                               "forward(Tensor[] images, ...) -> (Dict(str, Tensor) losses, " +
                               "Dict(str, Tensor)[] detections); ";
  const auto forward = model.find_method("forward");
  if (!forward) throw std::runtime_error(expected + "it has no forward");
  const auto& schema = forward->function().getSchema();
  const auto& inputs = schema.arguments();
  const auto named = c10::DictType::create(c10::StringType::get(), c10::TensorType::get());
  const auto output = c10::TupleType::create({named, c10::ListType::create(named)});
  bool fits = inputs.size() >= 2 && *inputs[1].type() == *c10::ListType::ofTensors() &&
              schema.returns().size() == 1 && *schema.returns()[0].type() == *output;
  for (size_t i = 2; i < inputs.size(); ++i) fits = fits && inputs[i].default_value().has_value();
  if (fits) return;
  std::string got = "forward(";
  for (size_t i = 1; i < inputs.size(); ++i) {
    got += (i > 1 ? ", " : "") + inputs[i].type()->str() + " " + inputs[i].name();
  }
  got += ") ->";
  for (const auto& result : schema.returns()) got += " " + result.type()->str();
  throw std::runtime_error(expected + "it has " + got);
}

torch::jit::Module load_model(const std::string& path) {
  if (!std::ifstream(path)) throw std::runtime_error(path + ": cannot be opened");
  try {
    auto model = torch::jit::load(path);
    check_detector(model, path);
    model.eval();
    return model;
  } catch (const c10::Error& error) {
    throw std::runtime_error(path + ": not a TorchScript file that this program can run: " +
                             in_a_line(error.what_without_backtrace()));
  }
}

void detect(torch::jit::Module& model, const std::string& path) {
  c10::List<torch::Tensor> images({read_ppm(path)});
  const auto output = model.forward({images}).toTuple();  // (losses, detections)
  const auto detections = output->elements()[1].toList();
  if (detections.size() != 1) {
    throw std::runtime_error(path + ": expected the detections of one image from the model, got " +
                             std::to_string(detections.size()));
  }
  const auto detection = detections.get(0).toGenericDict();
  for (const char* key : {"boxes", "labels", "scores"}) {
    if (!detection.contains(key)) {
      throw std::runtime_error(path + ": expected boxes, labels and scores from the model, got " +
                               "no " + key);
    }
  }
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
  } catch (const c10::Error& error) {
    std::cerr << "cpp_detector: " << in_a_line(error.what_without_backtrace()) << '\n';
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "cpp_detector: " << in_a_line(error.what()) << '\n';
    return 1;
  }
  return 0;
}
