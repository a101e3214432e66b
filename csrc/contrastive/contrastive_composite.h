// contrastive_lse's derivatives composed of ATen's operators, for second derivatives.
#pragma once
#include "tilewright/contrastive/contrastive_args.h"

namespace tilewright {

ContrastiveGrads contrastive_composite_backward(const ContrastiveArgs& args,
                                                const ContrastiveSums& grads,
                                                const at::Tensor& query, const OptionalTensor& key,
                                                const OptionalTensor& exclude,
                                                const ContrastiveNeeds& needs);

}  // namespace tilewright
