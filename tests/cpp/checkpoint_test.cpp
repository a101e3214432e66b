// Files of weights in a program without Python: what loads, and what an error names.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "small_detector.h"
#include "support.h"
#include "tilewright/models/checkpoint.h"
#include "tilewright/models/state.h"

namespace {

using tilewright::FasterRCNN;
using tilewright::StateDict;

class Checkpoint : public ::testing::Test {
 protected:
  void SetUp() override { path_ = temporary("checkpoint.pt"); }
  void TearDown() override { std::filesystem::remove(path_); }

  void write(const std::vector<char>& bytes) {
    std::ofstream(path_, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  // As torch.save(dict(state), path) writes it in Python.
  void write(const StateDict& state) {
    c10::Dict<std::string, torch::Tensor> dict;
    for (const auto& item : state) dict.insert(item.key(), item.value());
    write(torch::pickle_save(dict));
  }

  // The message of a load that fails, once it is sure that it wrote nothing.
  std::string failure() {
    FasterRCNN model(small_options());
    StateDict before;
    for (const auto& item : tilewright::state_dict(*model)) {
      before.insert(item.key(), item.value().clone());
    }
    const auto message = message_of([&] { tilewright::load_module(*model, path_); });
    EXPECT_NE(message.find(path_), std::string::npos) << message;
    for (const auto& item : tilewright::state_dict(*model)) {
      EXPECT_TRUE(torch::equal(item.value(), before[item.key()])) << item.key();
    }
    return message;
  }

  std::string path_;
};

TEST_F(Checkpoint, LoadsAPickledDict) {
  FasterRCNN source(small_options()), model(small_options());
  write(tilewright::state_dict(*source));
  tilewright::load_module(*model, path_);
  for (const auto& item : tilewright::state_dict(*model)) {
    EXPECT_TRUE(torch::equal(item.value(), tilewright::state_dict(*source)[item.key()]));
  }
  EXPECT_EQ(tilewright::read_checkpoint(path_).size(), tilewright::state_dict(*source).size());
}

TEST_F(Checkpoint, NamesTheKeysThatDoNotFit) {
  StateDict state;
  for (const auto& item : tilewright::state_dict(*FasterRCNN(small_options()))) {
    if (item.key() == "rpn.head.cls_logits.bias") continue;
    const bool shrunk = item.key() == "rpn.head.bbox_pred.bias";
    state.insert(item.key(), shrunk ? torch::zeros({2}) : item.value() + 1);
  }
  state.insert("foreign", torch::zeros({1}));
  write(state);
  const auto message = failure();
  EXPECT_NE(message.find("key rpn.head.cls_logits.bias is missing"), std::string::npos) << message;
  EXPECT_NE(message.find("key foreign is not in the model"), std::string::npos) << message;
  EXPECT_NE(message.find("rpn.head.bbox_pred.bias must have shape (12,), got (2,)"),
            std::string::npos)
      << message;
}

TEST_F(Checkpoint, NamesAFileThatIsCutShort) {
  tilewright::save_module(*FasterRCNN(small_options()), path_);
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) / 2);
  const auto message = failure();
  EXPECT_NE(message.find("is cut short or damaged"), std::string::npos) << message;
}

TEST_F(Checkpoint, NamesFilesOfOtherKinds) {
  write(std::vector<char>{'t', 'e', 'x', 't'});
  EXPECT_NE(failure().find("is not a torch archive"), std::string::npos);
  write(std::vector<char>{'\x80', '\x02', '\x8a', '\x0a'});
  EXPECT_NE(failure().find("was written by torch.save before 1.6"), std::string::npos);
  write(torch::pickle_save(c10::IValue(3)));
  EXPECT_NE(failure().find("must hold a dict of tensors, got a Int"), std::string::npos);
  c10::Dict<std::string, int64_t> epochs;
  epochs.insert("epoch", 3);
  write(torch::pickle_save(epochs));
  EXPECT_NE(failure().find("entry epoch must be a tensor, got a Int"), std::string::npos);
}

}  // namespace
