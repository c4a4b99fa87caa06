// SHA-256, to know that the model in flash is the one that was compiled.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace digits {

// FIPS 180-4, sections 4 to 6.2.
std::array<std::uint8_t, 32> Sha256(const std::uint8_t* data, std::size_t bytes);

}  // namespace digits
