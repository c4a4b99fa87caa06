// The file that TensorFlow Lite Micro reads, in flash, and the hash that it was compiled with.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace digits {

constexpr std::size_t kModelBytes = 92624;

extern const std::uint8_t kModel[kModelBytes];
extern const std::array<std::uint8_t, 32> kModelSha256;

}  // namespace digits
