// Merged masks, drawn polygons and boxes: against small cases worked out by hand.
#include <cmath>
#include <limits>
#include <string>

#include "../../csrc/coco.h"
#include "check.h"

using sa1b::Batch;

namespace {

// The block of masks (h, w) from their strings.
std::vector<uint8_t> pack(int64_t h, int64_t w, const std::vector<std::string>& strings) {
  const size_t n = strings.size();
  std::vector<int64_t> header(3 * n + 1);
  int64_t at = static_cast<int64_t>(8 * header.size());
  for (size_t i = 0; i < n; ++i) {
    header[2 * i] = h;
    header[2 * i + 1] = w;
    header[2 * n + i] = at;
    at += static_cast<int64_t>(strings[i].size());
  }
  header[3 * n] = at;
  std::vector<uint8_t> block(static_cast<size_t>(at));
  memcpy(block.data(), header.data(), 8 * header.size());
  size_t to = 8 * header.size();
  for (const std::string& string : strings) {
    memcpy(block.data() + to, string.data(), string.size());
    to += string.size();
  }
  return block;
}

std::string merged(int64_t h, int64_t w, const std::vector<std::string>& strings, bool intersect) {
  const std::vector<uint8_t> block = pack(h, w, strings);
  std::vector<uint8_t> chars;
  sa1b::cpu::merge(
      {block.data(), static_cast<int64_t>(block.size()), static_cast<int64_t>(strings.size())},
      intersect, &chars);
  return {chars.begin(), chars.end()};
}

std::string drawn(const std::vector<double>& xy, uint32_t h, uint32_t w) {
  std::vector<uint8_t> chars;
  const auto n = static_cast<int64_t>(xy.size() / 2);
  return sa1b::cpu::draw_polygon(xy.data(), n, h, w, &chars)
             ? std::string(chars.begin(), chars.end())
             : "none";
}

}  // namespace

int main() {
  // Runs [0, 2) and [1, 3) of four pixels.
  CHECK(merged(1, 4, {"022", "121"}, false) == "031");
  CHECK(merged(1, 4, {"022", "121"}, true) == "112");
  CHECK(merged(1, 4, {"022"}, true) == "022");
  CHECK(merged(1, 4, {"022", "121", "4", "04", "112"}, false) == "04");
  CHECK(merged(1, 4, {"022", "121", "04"}, true) == "112");
  CHECK(merged(1, 4, {"022", "022", "4"}, true) == "4");
  CHECK(merged(0, 4, {"0", ""}, false) == "0");
  // A run of length zero inside, [1, 1): the mask is the same.
  CHECK(merged(1, 4, {"103", "4"}, true) == "4");

  CHECK(drawn({0, 0, 2, 0, 2, 2, 0, 2}, 3, 3) == "02103");
  CHECK(drawn({0, 0, 2, 0, 2, 2, 0, 2}, 0, 3) == "0");
  CHECK(drawn({-9, -9, 99, -9, 99, 99, -9, 99}, 2, 3) == "06");
  CHECK(drawn({1, 1}, 2, 2) == "4");
  CHECK(drawn({0, 0, std::numeric_limits<double>::quiet_NaN(), 0, 2, 2}, 3, 3) == "none");
  CHECK(drawn({0, 0, 1e300, 0, 2, 2}, 3, 3) == "none");
  CHECK(drawn({0, 0, 4e8, 1e8, -4e8, -4e8}, 3, 3) != "none");

  const double a[] = {0, 0, 2, 2, 5, 5, 1, 1}, b[] = {1, 0, 2, 2};
  double iou[2];
  const uint8_t crowd[] = {0}, is_crowd[] = {1};
  sa1b::cpu::box_iou(a, 2, b, 1, crowd, iou);
  CHECK(iou[0] == 2.0 / 6.0 && iou[1] == 0);
  sa1b::cpu::box_iou(a, 2, b, 1, is_crowd, iou);
  CHECK(iou[0] == 0.5);

  const std::vector<uint8_t> block = pack(1, 4, {"022", "121"});
  const Batch batch = {block.data(), static_cast<int64_t>(block.size()), 2};
  double boxes[8], ious[4] = {};
  sa1b::cpu::exact_boxes(batch, boxes);
  CHECK(boxes[0] == 0 && boxes[2] == 2 && boxes[4] == 1 && boxes[7] == 1);
  const uint8_t crowds[] = {0, 1};
  sa1b::cpu::mask_iou(batch, batch, crowds, ious);
  CHECK(ious[0] == 1 && ious[1] == 1.0 / 3.0 && ious[2] == 0.5 && ious[3] == 1);
  uint8_t pixels[8] = {};
  sa1b::cpu::decode_columns(batch, pixels);
  CHECK(pixels[0] == 1 && pixels[2] == 0 && pixels[4] == 0 && pixels[6] == 1);
  return 0;
}
