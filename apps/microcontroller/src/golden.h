// Inputs that the artifact was sealed with and what it answered, as the file holds both.
#pragma once

#include <cstddef>

#include "digits/constants.h"

namespace digits {

constexpr std::size_t kGoldenInvocations = 16;
// The sum of squared differences that leaves 40 dB of signal to noise.
constexpr float kMaximumNoise = 0.31838527f;

extern const ImageTensor kGoldenImage[kGoldenInvocations * kImageElements];
extern const LogitsTensor kWantedLogits[kGoldenInvocations * kLogitsElements];

}  // namespace digits
