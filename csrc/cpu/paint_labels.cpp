// Paints masks into a map of labels, later ones over earlier ones.
//
// Runs are long in one column and short in one row, so pixels are painted where columns are
// contiguous: in a buffer of some columns that stays in cache. All masks are read side by side,
// each up to the end of the buffer; then the buffer goes to the rows of the output, 4 x 4 pixels at
// a time. Every character is read once and every pixel of the output written once; (N, H, W) exists
// nowhere. Work is split into planes, and where those are few, into ranges of columns, for which
// each thread reads the strings from their start.
//
// Bound: the output, written twice in cache and once in memory: about 1 ns a pixel.
#include <vector>

#include "../labels.h"
#include "candidates.h"
#include "count_blocks.h"
#include "parallel.h"
#include "run_reader.h"

namespace sa1b::cpu {
namespace {

constexpr int64_t kBufferPixels = 1 << 17;  // 512 KB
constexpr int64_t kMinColumns = 128;        // of a part; each part reads all strings

// A mask where reading it stands: its run [start, end), of which all before `start` is painted.
struct Painter {
  Painter(const Mask& mask, int32_t of_label) : runs(mask), label(of_label) { next(); }

  void next() {
    if (!runs.next(&start, &end)) start = end = kNone;
  }

  // Paints positions [begin, stop), which follow those painted before, to buffer[position - begin].
  void paint(uint32_t begin, uint32_t stop, int32_t* buffer) {
    while (start < stop) {
      const uint32_t last = std::min(end, stop);
      if (last > begin) {
        std::fill(buffer + (std::max(start, begin) - begin), buffer + (last - begin), label);
      }
      if (end > stop) {
        start = stop;
        return;
      }
      next();
    }
  }

  static constexpr uint32_t kNone = ~0u;  // no position, since h*w < 2**32
  RunReader runs;
  uint32_t start = 0, end = 0;
  int32_t label;
};

// Writes a block of pixels, columns `rows` elements apart, to the rows of a plane.
void write_block(const int32_t* from, int64_t rows, int32_t* to, int64_t stride, int64_t h,
                 int64_t w) {
  for (int64_t y = 0; y < h; ++y) {
    for (int64_t x = 0; x < w; ++x) to[y * stride + x] = from[x * rows + y];
  }
}

#if SA1B_GROUPS_OF_16

// The same for a block of 4 x 4.
void write_4x4(const int32_t* from, int64_t rows, int32_t* to, int64_t stride) {
  const auto load = [&](int64_t x) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + x * rows));
  };
  const auto store = [&](int64_t y, __m128i four) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + y * stride), four);
  };
  const __m128i a = load(0), b = load(1), c = load(2), d = load(3);
  const __m128i ab_top = _mm_unpacklo_epi32(a, b), ab_bottom = _mm_unpackhi_epi32(a, b);
  const __m128i cd_top = _mm_unpacklo_epi32(c, d), cd_bottom = _mm_unpackhi_epi32(c, d);
  store(0, _mm_unpacklo_epi64(ab_top, cd_top));
  store(1, _mm_unpackhi_epi64(ab_top, cd_top));
  store(2, _mm_unpacklo_epi64(ab_bottom, cd_bottom));
  store(3, _mm_unpackhi_epi64(ab_bottom, cd_bottom));
}

#else

void write_4x4(const int32_t* from, int64_t rows, int32_t* to, int64_t stride) {
  write_block(from, rows, to, stride, 4, 4);
}

#endif

// Writes a buffer of columns to the rows of a plane, `stride` elements apart.
void write_rows(const int32_t* buffer, int64_t rows, int64_t columns, int32_t* out,
                int64_t stride) {
  int64_t y = 0;
  for (; rows - y >= 4; y += 4) {
    int64_t x = 0;
    for (; columns - x >= 4; x += 4) {
      write_4x4(buffer + x * rows + y, rows, out + y * stride + x, stride);
    }
    write_block(buffer + x * rows + y, rows, out + y * stride + x, stride, 4, columns - x);
  }
  write_block(buffer + y, rows, out + y * stride, stride, rows - y, columns);
}

// Columns [first, last) of a plane, from masks of h rows each.
void paint_columns(std::vector<Painter>& painters, int64_t h, int64_t first, int64_t last,
                   const LabelPlanes& planes, int32_t* plane, int32_t* buffer) {
  const int64_t columns = std::max<int64_t>(1, kBufferPixels / h);
  const int64_t rows = std::min(h, kBufferPixels);  // of one column if it does not fit
  for (int64_t x = first; x < last; x += columns) {
    const int64_t n = std::min(columns, last - x);
    for (int64_t y = 0; y < h; y += rows) {
      const int64_t m = std::min(rows, h - y);
      std::fill_n(buffer, n * m, planes.background);
      const auto begin = static_cast<uint32_t>(x * h + y);
      const auto stop = static_cast<uint32_t>(begin + n * m);
      for (Painter& painter : painters) painter.paint(begin, stop, buffer);
      write_rows(buffer, m, n, plane + y * planes.out_w + x, planes.out_w);
    }
  }
}

// Whether `order` holds indices of masks, those of each image where they belong.
bool is_order(const int64_t* order, const std::vector<Image>& images) {
  for (const Image& image : images) {
    for (int64_t i = image.first_row; i < image.first_row + image.rows; ++i) {
      if (order[i] < image.first_row || order[i] >= image.first_row + image.rows) return false;
    }
  }
  return true;
}

}  // namespace

int64_t paint_labels(const Batch& batch, const LabelPlanes& planes, int num_threads) {
  std::vector<Image> images;
  const int64_t status = find_images(batch, batch, planes.num_images, &images);
  if (status != kOk) return status;
  if (!is_order(planes.order, images)) return kBadPlane;
  for (int64_t i = 0; i < batch.num_masks; ++i) {
    if (batch.word(2 * i) > planes.out_h || batch.word(2 * i + 1) > planes.out_w) return kBadWindow;
  }
  const auto num_planes = static_cast<int64_t>(images.size());
  const int64_t pixels = planes.out_h * planes.out_w;
  if (num_planes == 0 || pixels == 0) return kOk;
  const int64_t bytes = num_planes * pixels * static_cast<int64_t>(sizeof(int32_t));
  const int threads = useful_threads(num_threads, num_planes * planes.out_w, bytes);
  const int64_t parts =
      num_planes >= threads ? 1 : std::clamp<int64_t>(planes.out_w / kMinColumns, 1, threads);
  std::vector<std::vector<int32_t>> buffers(threads, std::vector<int32_t>(kBufferPixels));
  std::vector<std::vector<Painter>> painters(threads);
  int64_t most = 0;
  for (const Image& image : images) most = std::max(most, image.rows);
  for (auto& each : painters) each.reserve(most);

  parallel_for(num_planes * parts, threads, [&](int64_t item, int thread) {
    const Image& image = images[item / parts];
    const int64_t part = item % parts;
    const int64_t first = planes.out_w * part / parts, end = planes.out_w * (part + 1) / parts;
    int32_t* const plane = planes.out + item / parts * pixels;
    std::vector<Painter>& masks = painters[thread];
    masks.clear();
    for (int64_t i = image.first_row; i < image.first_row + image.rows; ++i) {
      Mask mask;
      batch.mask(planes.order[i], &mask);
      masks.emplace_back(mask, planes.labels[planes.order[i]]);
    }
    const int64_t h = image.rows > 0 ? batch.word(2 * image.first_row) : 0;
    const int64_t w = image.rows > 0 ? batch.word(2 * image.first_row + 1) : 0;
    const int64_t last = std::min(end, w);  // of the columns that a mask has
    if (h > 0 && first < last) {
      paint_columns(masks, h, first, last, planes, plane, buffers[thread].data());
    }
    // What lies right of the masks and below them.
    for (int64_t y = 0; y < planes.out_h; ++y) {
      const int64_t x = y < h ? std::max(first, last) : first;
      if (x < end)
        std::fill(plane + y * planes.out_w + x, plane + y * planes.out_w + end, planes.background);
    }
  });
  return kOk;
}

}  // namespace sa1b::cpu
