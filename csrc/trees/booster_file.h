// What the files of both kinds of boosters have in common.
#pragma once
#include <memory>
#include <utility>

#include "tilewright/trees/booster_options.h"
#include "tilewright/trees/model_file.h"

namespace tilewright::trees {

inline void put_booster(ModelFile& file, const BoosterOptions& options, bool own_objective) {
  put_options(file, options);
  file.put("own_objective", own_objective);
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

}  // namespace tilewright::trees
