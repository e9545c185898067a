// Calls a fuzzer: from libFuzzer, or without it with the files that are named, or, without files,
// with random inputs.
#include <fstream>
#include <iterator>

#include "fuzz.h"

#if defined(SA1B_LIBFUZZER)

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sa1b::test::Input input(data, size);
  sa1b::test::run(input);
  return 0;
}

#else

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    sa1b::test::Input input(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    sa1b::test::run(input);
  }
  for (uint64_t seed = 0; argc == 1 && seed < 20000; ++seed) {
    sa1b::test::Random random(seed);
    std::vector<uint8_t> bytes(static_cast<size_t>(random.below(400)));
    for (uint8_t& byte : bytes) byte = random.byte();
    sa1b::test::Input input(bytes.data(), bytes.size());
    sa1b::test::run(input);
  }
}

#endif
