// Rotated boxes, once, for every machine and for tensors: where their points lie, the upright box
// around them, and the area that two of them share.
//
// A rotated box is (cx, cy, w, h, angle). The angle is in radians and counter-clockwise as seen on
// the screen, where y points down: the box's own x axis turns towards the top of the image.
#pragma once
#include <cmath>

#include "tilewright/core/math.h"

namespace tilewright {

// Data that passes between machines, so not within the namespace of one.
template <class V>
struct RotatedBox {
  V cx, cy, w, h;
  V cos, sin;  // of the angle
};

}  // namespace tilewright

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Where the point lies that is (dx, dy) from the centre before the rotation.
template <class V>
TILEWRIGHT_HD void rotated_point(const RotatedBox<V>& box, const V& dx, const V& dy, V& x, V& y) {
  x = box.cx + dx * box.cos + dy * box.sin;
  y = box.cy - dx * box.sin + dy * box.cos;
}

// The other way: the place of (x, y) in the box's own axes, from its centre.
template <class V>
TILEWRIGHT_HD void unrotated_point(const RotatedBox<V>& box, const V& x, const V& y, V& dx, V& dy) {
  dx = (x - box.cx) * box.cos - (y - box.cy) * box.sin;
  dy = (x - box.cx) * box.sin + (y - box.cy) * box.cos;
}

template <class T>
TILEWRIGHT_HD RotatedBox<T> make_rotated_box(T cx, T cy, T w, T h, T angle) {
  return {cx, cy, w, h, T(std::cos(angle)), T(std::sin(angle))};
}

// Half the sides of the upright box around a rotated one.
template <class T>
TILEWRIGHT_HD void rotated_extent(const RotatedBox<T>& box, T& half_width, T& half_height) {
  half_width = T(0.5) * (std::abs(box.w * box.cos) + std::abs(box.h * box.sin));
  half_height = T(0.5) * (std::abs(box.w * box.sin) + std::abs(box.h * box.cos));
}

// numerator / denominator, and 0 where that is 0. The tensor code has its own
// (box_iou_rotated.cpp), as it has min_of and max_of.
TILEWRIGHT_HD double ratio_or_zero(double numerator, double denominator) {
  return denominator == 0 ? 0 : numerator / denominator;
}

template <class V>
TILEWRIGHT_HD V clamp_of(const V& value, const V& low, const V& high) {
  return max_of(min_of(value, high), low);
}

// The integral of an edge's y, clamped to [-half_height, half_height], less `level`, over the
// edge's run along x within [-half_width, half_width]. The edge goes from (xa, ya) to (xb, yb).
template <class V>
TILEWRIGHT_HD V area_under_edge(const V& xa, const V& ya, const V& xb, const V& yb,
                                const V& half_width, const V& half_height, const V& level) {
  const V left = half_width * -1.0, top = half_height * -1.0;
  const V zero = half_width * 0.0, one = zero + 1.0;
  const auto share = [&](const V& part, const V& whole) {
    return clamp_of(ratio_or_zero(part, whole), zero, one);
  };
  const V from = clamp_of(xa, left, half_width), to = clamp_of(xb, left, half_width);
  const V y_from = ya + share(from - xa, xb - xa) * (yb - ya);
  const V y_to = yb - share(xb - to, xb - xa) * (yb - ya);
  const V low = min_of(y_from, y_to), high = max_of(y_from, y_to);
  // The shares of the run on which y is below the range, and above it.
  const V below = share(top - low, high - low), above = share(high - half_height, high - low);
  const V between = (clamp_of(low, top, half_height) + clamp_of(high, top, half_height)) * 0.5;
  const V mean = half_height * (above - below) + (one - below - above) * between;
  return (to - from) * (mean - level);
}

// In b's own axes b is upright, and of any section of a along y the part in b is as long as its
// ends, clamped to b, are apart. So the area that both share is an integral along the four edges of
// a: a continuous function of them, without a list of corners, and without cases for edges that
// coincide.
template <class V>
TILEWRIGHT_HD V rotated_intersection(const RotatedBox<V>& a, const RotatedBox<V>& b) {
  V x, y;
  unrotated_point(b, a.cx, a.cy, x, y);
  // Half a's sides in b's axes: the angle between the boxes is that of a less that of b.
  const V cos = a.cos * b.cos + a.sin * b.sin, sin = a.sin * b.cos - a.cos * b.sin;
  const V ux = a.w * cos * 0.5, uy = a.w * sin * -0.5, vx = a.h * sin * 0.5, vy = a.h * cos * 0.5;
  const V width = b.w * 0.5, height = b.h * 0.5;
  const V level = clamp_of(y, height * -1.0, height);  // keeps the terms small
  const V x0 = x - ux - vx, y0 = y - uy - vy, x1 = x + ux - vx, y1 = y + uy - vy;
  const V x2 = x + ux + vx, y2 = y + uy + vy, x3 = x - ux + vx, y3 = y - uy + vy;
  const V area = area_under_edge(x2, y2, x3, y3, width, height, level) +
                 area_under_edge(x3, y3, x0, y0, width, height, level) +
                 area_under_edge(x0, y0, x1, y1, width, height, level) +
                 area_under_edge(x1, y1, x2, y2, width, height, level);
  const V most = min_of(a.w * a.h, b.w * b.h);
  return clamp_of(area * -1.0, most * 0.0, most);
}

// Intersection over union; NaN where neither has an area or one overflows.
template <class V>
TILEWRIGHT_HD V rotated_overlap(const RotatedBox<V>& a, const RotatedBox<V>& b) {
  const V intersection = rotated_intersection(a, b);
  return intersection / (a.w * a.h + b.w * b.h - intersection);
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
