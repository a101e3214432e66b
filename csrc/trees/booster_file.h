// What the files of both kinds of boosters have in common.
#pragma once
#include <limits>
#include <memory>
#include <utility>

#include "tilewright/trees/booster_options.h"
#include "tilewright/trees/model_file.h"
#include "tilewright/trees/objectives.h"

namespace tilewright::trees {

inline void put_booster(ModelFile& file, const BoosterOptions& options, const Objective& objective,
                        bool own_objective) {
  put_options(file, options);
  file.put("own_objective", own_objective);
  file.put("targets", objective.targets());
}

// A booster with a file's options. `objective` is given where the saved one was given its own.
template <class Model>
Model unfitted_booster(const ModelFile& file, std::shared_ptr<Objective> objective) {
  const bool own = file.whole("own_objective", 0, 1) == 1;
  if (own != (objective != nullptr)) {
    file.fail("own_objective", own ? "says that the booster was given its objective: so must load"
                                   : "says that the booster was not given its objective");
  }
  const auto options = get_options<BoosterOptions>(file);
  return file.made([&] { return Model(options, std::move(objective)); });
}

// The columns that the labels had.
inline void take_targets(const ModelFile& file, Objective& objective) {
  const int64_t targets = file.whole("targets", 1, std::numeric_limits<int32_t>::max());
  file.made([&] { objective.set_targets(targets); });
}

}  // namespace tilewright::trees
