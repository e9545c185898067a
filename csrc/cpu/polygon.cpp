// Draws a polygon, pixel by pixel as pycocotools does.
//
// Points are rounded to a grid five times as fine as the pixels. An edge is sampled at each step of
// its longer axis; where the samples pass the middle of a column, from 5x + 2 to 5x + 3, the higher
// of the two (the smaller y) is rounded up to a row, and the mask toggles from that pixel on. Only
// these samples are computed, by the same arithmetic in float64: what an edge costs depends on how
// many columns of the mask it crosses, not on how long it is.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "../coco.h"

namespace sa1b::cpu {
namespace {

constexpr double kScale = 5;
constexpr double kMostOnGrid = 2147483647;

struct Point {
  int64_t x, y;  // on the fine grid
};

// The integer towards zero.
int64_t truncated(double value) { return static_cast<int64_t>(value); }

class PolygonDrawer {
 public:
  PolygonDrawer(uint32_t h, uint32_t w) : h_(h), w_(w) {}

  void add_edge(Point from, Point to) {
    const int64_t dx = std::abs(to.x - from.x), dy = std::abs(to.y - from.y);
    if (dx >= dy ? from.x > to.x : from.y > to.y) std::swap(from, to);
    // The columns whose middles lie between the two points.
    const int64_t left = std::min(from.x, to.x), right = std::max(from.x, to.x);
    const int64_t first = left <= 2 ? 0 : (left + 2) / 5;
    const int64_t last = right < 3 ? -1 : std::min((right - 3) / 5, int64_t{w_} - 1);
    if (first > last) return;
    if (dx >= dy) {
      const double slope = static_cast<double>(to.y - from.y) / static_cast<double>(dx);
      for (int64_t column = first; column <= last; ++column) {
        const int64_t step = 5 * column + 2 - from.x + (slope < 0);
        const double y = static_cast<double>(from.y) + slope * static_cast<double>(step);
        toggle(column, truncated(y + .5));
      }
      return;
    }
    const double slope = static_cast<double>(to.x - from.x) / static_cast<double>(dy);
    for (int64_t column = first; column <= last; ++column) {
      const int64_t middle = 5 * column + 2;
      // Samples are monotonic: find the first one past the middle, from a guess that is nearly it.
      const auto is_past = [&](int64_t step) {
        const double x = static_cast<double>(from.x) + slope * static_cast<double>(step);
        return slope > 0 ? truncated(x + .5) > middle : truncated(x + .5) <= middle;
      };
      const double guess = (static_cast<double>(middle - from.x) + .5) / slope;
      int64_t step = std::clamp(truncated(guess), int64_t{1}, dy);
      while (step < dy && !is_past(step)) ++step;
      while (step > 1 && is_past(step - 1)) --step;
      toggle(column, from.y + step - 1);
    }
  }

  void finish(std::vector<uint8_t>* chars) {
    std::sort(toggles_.begin(), toggles_.end());
    const auto pixels = static_cast<uint32_t>(uint64_t{h_} * w_);
    chars->resize(kMaxCharsPerCount * (toggles_.size() + 1));
    CountWriter writer(chars->data());
    uint32_t position = 0;
    for (size_t i = 0; i < toggles_.size() && toggles_[i] < pixels;) {
      const uint32_t toggle = toggles_[i];
      bool odd = false;
      for (; i < toggles_.size() && toggles_[i] == toggle; ++i) odd = !odd;
      if (!odd) continue;
      writer.add(toggle - position);
      position = toggle;
    }
    writer.add(pixels - position);
    chars->resize(static_cast<size_t>(writer.at() - chars->data()));
  }

 private:
  void toggle(int64_t column, int64_t y) {
    const int64_t row = y <= 2 ? 0 : std::min((y + 2) / 5, int64_t{h_});
    toggles_.push_back(static_cast<uint32_t>(column * h_ + row));
  }

  uint32_t h_, w_;
  std::vector<uint32_t> toggles_;
};

bool to_grid(double value, int64_t* on_grid) {
  const double scaled = kScale * value + .5;
  if (!(std::fabs(scaled) <= kMostOnGrid)) return false;  // NaN, too
  *on_grid = truncated(scaled);
  return true;
}

}  // namespace

bool draw_polygon(const double* xy, int64_t num_points, uint32_t h, uint32_t w,
                  std::vector<uint8_t>* chars) {
  PolygonDrawer drawer(h, w);
  Point first{}, before{};
  for (int64_t i = 0; i < num_points; ++i) {
    Point point{};
    if (!to_grid(xy[2 * i], &point.x) || !to_grid(xy[2 * i + 1], &point.y)) return false;
    if (i == 0) {
      first = point;
    } else {
      drawer.add_edge(before, point);
    }
    before = point;
  }
  drawer.add_edge(before, first);
  drawer.finish(chars);
  return true;
}

}  // namespace sa1b::cpu
