// The four gathers of a bilinear sample.
#include "tilewright/deform/deform_samples.h"

#include <ATen/ATen.h>

namespace tilewright {

at::Tensor bilinear_samples(const at::Tensor& planes, int64_t height, int64_t width,
                            const at::Tensor& y, const at::Tensor& x) {
  const at::Tensor inside =
      (y >= -1).logical_and(y < height).logical_and(x >= -1).logical_and(x < width);  // NaN is not
  const at::Tensor safe_y = at::where(inside, y, -1.0), safe_x = at::where(inside, x, -1.0);
  const at::Tensor top = safe_y.detach().floor(), left = safe_x.detach().floor();
  const at::Tensor down = safe_y - top, right = safe_x - left;
  const int64_t samples = c10::multiply_integers(y.sizes().slice(2));
  const std::vector<int64_t> flat{y.size(0), y.size(1), 1, samples};
  at::Tensor sum;
  for (int corner = 0; corner < 4; ++corner) {
    const at::Tensor row = (top + (corner & 2 ? 1 : 0)).to(at::kLong);
    const at::Tensor column = (left + (corner & 1 ? 1 : 0)).to(at::kLong);
    const at::Tensor there = inside.logical_and(row >= 0)
                                 .logical_and(row < height)
                                 .logical_and(column >= 0)
                                 .logical_and(column < width);
    const at::Tensor place = at::where(there, row * width + column, 0).reshape(flat);
    const at::Tensor value =
        planes.gather(3, place.expand({flat[0], flat[1], planes.size(2), samples}));
    const at::Tensor weight = (corner & 2 ? down : 1 - down) * (corner & 1 ? right : 1 - right);
    const at::Tensor part = at::where(there.reshape(flat), value * weight.reshape(flat), 0.0);
    sum = sum.defined() ? sum + part : part;
  }
  return sum;
}

}  // namespace tilewright
