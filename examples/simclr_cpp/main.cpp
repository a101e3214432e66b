// Trains SimCLR on images of an IDX file, such as MNIST's, without Python and without their labels;
// then tells how well a linear function of the features knows the labels.
//
//   simclr_cpp train weights.pt epochs images labels test-images test-labels
//   simclr_cpp features weights.pt images
//
// The first prints the loss as it falls, and the accuracy of linear probes before and after; it
// writes the weights, which tilewright.models.SimCLR().load reads in Python. The second prints the
// features of each image in a line. digits.py writes such files of 8x8 digits.
#include <tilewright/models/augmentation_options.h>
#include <tilewright/models/simclr.h>
#include <tilewright/models/state.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "idx.h"
#include "probe.h"

namespace {

constexpr int64_t kBatch = 256;
constexpr double kLearningRate = 2e-3;
constexpr double kPi = 3.14159265358979323846;

torch::Tensor represent(tilewright::SimCLR& model, const torch::Tensor& images) {  // (N, F)
  torch::NoGradGuard no_grad;
  model->eval();
  std::vector<torch::Tensor> parts;
  for (const auto& part : images.split(kBatch)) parts.push_back(model->represent(part));
  return torch::cat(parts);
}

void print_probe(const char* of, tilewright::SimCLR& model, const LabelledImages& train,
                 const LabelledImages& test) {
  const Features seen{represent(model, train.images), train.labels};
  const Features unseen{represent(model, test.images), test.labels};
  std::cout << of << " encoder: accuracy " << probe_accuracy(first_of_each(seen, 10), unseen)
            << " with 10 labels of each class, " << probe_accuracy(seen, unseen) << " with all"
            << std::endl;
}

// Batch norm's statistics, without which features of an untrained encoder would not be fair.
void settle(tilewright::SimCLR& model, const torch::Tensor& images) {
  torch::NoGradGuard no_grad;
  model->train();
  for (int i = 0; i < 30; ++i) {
    model->represent(
        images.index_select(0, torch::randint(images.size(0), {kBatch}, torch::kLong)));
  }
}

// So many passes over the images, with a warm-up and a cosine of the learning rate.
void learn(tilewright::SimCLR& model, const torch::Tensor& images, int64_t epochs) {
  const tilewright::AugmentationOptions views("digits");
  torch::optim::AdamW optimizer(model->parameters(),
                                torch::optim::AdamWOptions(kLearningRate).weight_decay(1e-4));
  const int64_t batch = std::min<int64_t>(kBatch, images.size(0));
  const int64_t in_epoch = images.size(0) / batch, steps = epochs * in_epoch;
  const int64_t shown = std::max<int64_t>(steps / 10, 1);
  double mean = 0;  // of the last steps
  torch::Tensor order;
  model->train();
  for (int64_t step = 0; step < steps; ++step) {
    if (step % in_epoch == 0) order = torch::randperm(images.size(0), torch::kLong);
    const double warm = std::min(1.0, double(step + 1) / 20);
    const double cosine = 0.5 + 0.5 * std::cos(kPi * double(step) / double(steps));
    for (auto& group : optimizer.param_groups()) {
      static_cast<torch::optim::AdamWOptions&>(group.options()).lr(kLearningRate * warm * cosine);
    }
    const auto x = images.index_select(0, order.narrow(0, step % in_epoch * batch, batch));
    const auto loss = model(tilewright::augment(x, views), tilewright::augment(x, views));
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    mean += loss.item<double>() / double(shown);
    if ((step + 1) % shown == 0) {
      std::cout << "step " << step + 1 << " of " << steps << ": loss " << mean << std::endl;
      mean = 0;
    }
  }
}

// Now, not when the training is done. Leaves what is there as it is.
void check_can_be_written(const std::string& path) {
  const bool is_new = !std::filesystem::exists(std::filesystem::symlink_status(path));
  const bool opened = bool(std::ofstream(path, std::ios::app));
  if (!opened) throw std::runtime_error(path + ": cannot be written");
  if (is_new) std::filesystem::remove(path);
}

void train(const std::string& path, int64_t epochs, const LabelledImages& seen,
           const LabelledImages& unseen) {
  if (seen.images.size(0) < 2) throw std::runtime_error("there must be two images at least");
  check_can_be_written(path);
  torch::manual_seed(0);
  tilewright::SimCLR model;
  settle(model, seen.images);
  print_probe("untrained", model, seen, unseen);
  learn(model, seen.images, epochs);
  print_probe("trained", model, seen, unseen);
  tilewright::save_module(*model, path);
}

void print_features(const std::string& path, const std::string& images) {
  tilewright::SimCLR model;
  tilewright::load_module(*model, path);
  const auto x = read_idx(images, 3).unsqueeze(1).to(torch::kFloat).div_(255);
  const auto features = represent(model, x).contiguous();
  std::cout << std::setprecision(std::numeric_limits<float>::max_digits10);
  for (int64_t n = 0; n < features.size(0); ++n) {
    for (int64_t i = 0; i < features.size(1); ++i) {
      std::cout << (i ? " " : "") << features[n].data_ptr<float>()[i];
    }
    std::cout << '\n';
  }
  if (!std::cout.flush()) throw std::runtime_error("the features cannot be written");
}

int64_t number(const std::string& word) {
  const bool digits = !word.empty() && word.find_first_not_of("0123456789") == std::string::npos;
  const int64_t found = digits && word.size() < 10 ? std::stoll(word) : 0;
  if (found < 1) throw std::runtime_error("epochs must be a number from 1 on, got " + word);
  return found;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  try {
    if (command == "train" && argc == 8) {
      const int64_t epochs = number(argv[3]);
      train(argv[2], epochs, read_labelled(argv[4], argv[5]), read_labelled(argv[6], argv[7]));
    } else if (command == "features" && argc == 4) {
      print_features(argv[2], argv[3]);
    } else {
      std::cerr
          << "usage: simclr_cpp train weights.pt epochs images labels test-images test-labels\n"
          << "       simclr_cpp features weights.pt images\n";
      return 2;
    }
  } catch (const c10::Error& error) {
    std::cerr << "simclr_cpp: " << error.what_without_backtrace() << '\n';
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "simclr_cpp: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
