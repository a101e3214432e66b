// SimCLR and CPC in C++ programs: both learn small things without labels, and say what is wrong.
#include <torch/torch.h>

#include <vector>

#include "support.h"
#include "tilewright/models/augmentation_options.h"
#include "tilewright/models/augmentations.h"
#include "tilewright/models/cpc.h"
#include "tilewright/models/simclr.h"
#include "tilewright/models/state.h"

namespace {

using torch::Tensor;

// A bar across each image at a slant of its own, and noise: (N, 1, 12, 12) in [0, 1].
Tensor bars(int64_t count, const Tensor& slant) {
  const auto place = torch::rand({count, 1, 1}) * 4 + 4;
  const auto row = torch::arange(12).view({12, 1}) - 5.5, column = torch::arange(12);
  const auto distance = column - place - slant.view({-1, 1, 1}) * row;
  return (torch::exp(-distance.square()) + 0.1 * torch::rand({count, 12, 12}))
      .clamp(0, 1)
      .unsqueeze(1);
}

Tensor slants(int64_t count) { return torch::rand({count}) * 2 - 1; }

// The mean loss of the first and of the last five of so many steps of Adam.
std::pair<double, double> learn(torch::nn::Module& model, const std::function<Tensor()>& loss_of,
                                int steps) {
  torch::optim::Adam optimizer(model.parameters(), torch::optim::AdamOptions(5e-3));
  double first = 0, last = 0;
  for (int step = 0; step < steps; ++step) {
    optimizer.zero_grad();
    const auto loss = loss_of();
    loss.backward();
    optimizer.step();
    if (step < 5) first += loss.item<double>() / 5;
    if (step >= steps - 5) last += loss.item<double>() / 5;
  }
  return {first, last};
}

TEST(SelfSupervised, SimCLRLearnsWhatViewsShare) {
  torch::manual_seed(0);
  torch::set_num_threads(1);
  tilewright::SimCLR model(tilewright::SimCLROptions().widths({8, 16, 32}).projection_features(16));
  // No turns, by which slants would differ between views.
  const auto views = tilewright::AugmentationOptions().degrees(0).crop_scale({0.8, 1});
  const auto [first, last] = learn(
      *model,
      [&] {
        const auto slant = slants(64);
        return model(augment(bars(64, slant), views), augment(bars(64, slant), views));
      },
      80);
  EXPECT_LT(last, 0.85 * first);
  // The slant is linear in the features.
  model->eval();
  torch::NoGradGuard no_grad;
  const auto slant = slants(400);
  const auto features = torch::cat({model->represent(bars(400, slant)), torch::ones({400, 1})}, 1);
  const auto weight = std::get<0>(
      torch::linalg_lstsq(features.slice(0, 0, 300), slant.slice(0, 0, 300).unsqueeze(1)));
  const auto left = torch::matmul(features.slice(0, 300), weight).squeeze(1) - slant.slice(0, 300);
  EXPECT_LT(left.var().item<double>(), 0.2 * slant.var().item<double>());
}

TEST(SelfSupervised, CPCPredictsImagesAndSequences) {
  torch::manual_seed(0);
  torch::set_num_threads(1);
  for (const char* context : {"gru", "attention"}) {
    const auto options = tilewright::CPCOptions().widths({16, 16}).context(context);
    tilewright::CPC of_images(tilewright::CPCOptions(options).context_features(16));
    const auto [first, last] = learn(
        *of_images, [&] { return of_images(bars(32, slants(32))); }, 50);
    EXPECT_LT(last, 0.9 * first) << context;

    tilewright::CPC of_waves(tilewright::CPCOptions(options)
                                 .input("sequences")
                                 .in_channels(2)
                                 .context_features(16)
                                 .steps(3));
    const auto waves = [](int64_t count) {
      const auto angle = torch::rand({count, 1}) * 6.28 +
                         (torch::rand({count, 1}) * 0.5 + 0.1) * torch::arange(64);
      return torch::stack({angle.sin(), angle.cos()}, 1) + 0.1 * torch::randn({count, 2, 64});
    };
    const auto [before, after] = learn(
        *of_waves, [&] { return of_waves(waves(32)); }, 60);
    EXPECT_LT(after, 0.9 * before) << context;
    EXPECT_EQ(of_waves->represent(waves(3)).sizes(), torch::IntArrayRef({3, 16}));
  }
}

TEST(SelfSupervised, EncodersOfOnesOwnAreTaken) {
  class Flat : public tilewright::ImageEncoderImpl {
   public:
    Flat() : layer_(register_module("layer", torch::nn::Linear(144, 7))) {}
    Tensor forward(const Tensor& images) override { return layer_(images.flatten(1)); }
    int64_t out_features() const override { return 7; }

   private:
    torch::nn::Linear layer_;
  };
  tilewright::SimCLR model(std::make_shared<Flat>(), tilewright::SimCLROptions());
  const auto x = bars(5, slants(5));
  model(x, x.flip(0)).backward();
  EXPECT_EQ(model->represent(x).sizes(), torch::IntArrayRef({5, 7}));
  EXPECT_TRUE(state_dict(*model).contains("encoder.layer.weight"));
  EXPECT_MESSAGE(tilewright::SimCLR(std::shared_ptr<tilewright::ImageEncoderImpl>(),
                                    tilewright::SimCLROptions()),
                 "SimCLR: encoder must not be null");
}

TEST(SelfSupervised, AugmentationsRepeatWithTheirGenerator) {
  const auto x = torch::rand({6, 3, 9, 9});
  for (const char* recipe : {"digits", "photographs"}) {
    std::vector<Tensor> views;
    for (const int64_t seed : {1, 1, 2}) {
      auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
      views.push_back(tilewright::augment(x, tilewright::AugmentationOptions(recipe), generator));
    }
    EXPECT_TRUE(torch::equal(views[0], views[1]));
    EXPECT_FALSE(torch::equal(views[0], views[2]));
    EXPECT_EQ(views[0].sizes(), x.sizes());
  }
  EXPECT_TRUE(torch::equal(tilewright::random_horizontal_flip(x, 1.0), x.flip(3)));
}

TEST(SelfSupervised, ErrorsSayWhatWasExpected) {
  using tilewright::CPC;
  using tilewright::CPCOptions;
  using tilewright::SimCLR;
  using tilewright::SimCLROptions;
  EXPECT_MESSAGE(SimCLR(SimCLROptions().widths({})), "SimCLR: widths must hold positive numbers");
  EXPECT_MESSAGE(SimCLR(SimCLROptions().temperature(0)), "temperature must be positive and finite");
  EXPECT_MESSAGE(SimCLR(SimCLROptions().encoder("vit")), "encoder must be conv or resnet, got vit");
  SimCLR simclr(SimCLROptions().widths({4}));
  const auto x = torch::rand({4, 1, 8, 8});
  EXPECT_MESSAGE(simclr(x, x.slice(0, 1)), "second must have first's shape (4, 1, 8, 8), got (3,");
  EXPECT_MESSAGE(simclr(x, x.to(torch::kDouble)), "second must have first's dtype Float, got Dou");
  EXPECT_MESSAGE(simclr->represent(x[0]), "images must have shape (N, C, H, W), got (1, 8, 8)");
  EXPECT_MESSAGE(simclr->represent(x.to(torch::kLong)), "images must be float64, float32,");
  EXPECT_MESSAGE(CPC(CPCOptions().context("lstm")), "context must be gru or attention, got lstm");
  EXPECT_MESSAGE(CPC(CPCOptions().input("sequences").strides({2})), "got 2 and 1");
  CPC cpc(CPCOptions().widths({4}));
  EXPECT_MESSAGE(cpc(torch::rand({4, 1, 6, 8})), "x must have more than 2 rows of patches");
  EXPECT_MESSAGE(cpc->represent(torch::rand({4, 1, 3, 8})), "x must not be smaller than a patch");
  CPC of_waves(CPCOptions().input("sequences").widths({4, 4}));
  EXPECT_MESSAGE(of_waves->represent(torch::rand({4, 1, 9})), "a length of at least 10, for its");
  EXPECT_MESSAGE(of_waves(torch::rand({4, 1, 17})), "got 2 (the least length is 18)");
  EXPECT_MESSAGE(tilewright::augment(255 * x, tilewright::AugmentationOptions("digits")),
                 "(divide images in 0..255 by 255, and normalise after augmenting)");
  EXPECT_MESSAGE(tilewright::AugmentationOptions("faces"), "recipe must be digits, photographs");
  EXPECT_MESSAGE(tilewright::augment(x, tilewright::AugmentationOptions().zoom({2, 1})),
                 "Augmentation: zoom must be two positive numbers");
}

}  // namespace
