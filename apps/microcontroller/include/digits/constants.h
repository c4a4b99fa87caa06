// What the manifest says of the model: digits, int8, for nucleo_h7a3zi_q.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "digits/tensors.h"

namespace digits {

// 10608 bytes proven on TFLM built for x86. Added: a quarter for what another
// build aligns and records otherwise, and 2304 for CMSIS-NN's scratch buffer.
constexpr std::size_t kArenaBytes = 16384;

// Input image: image values from 0 to 1, rows of interleaved pixels, 1 x 8 x 8 x 1.
using ImageValue = float;
using ImageTensor = std::int8_t;
constexpr std::size_t kImageElements = 64;
constexpr Layout kImageLayout{4, 64, {1, 8, 8, 1}, {64, 8, 1, 1}};
constexpr Quantization kImageQuantization{0.010450295f, -50};
constexpr std::array<float, 1> kImageMean{0.30506754f};
constexpr std::array<float, 1> kImageStd{0.37525913f};

// Output logits: logits, 1 x 10.
using LogitsTensor = std::int8_t;
constexpr std::size_t kLogitsElements = 10;
constexpr Layout kLogitsLayout{2, 10, {1, 10}, {10, 1}};
constexpr Quantization kLogitsQuantization{0.09824219f, -14};
constexpr std::size_t kLogitsClasses = 10;
constexpr std::array<const char*, 10> kLogitsLabels{
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
};

}  // namespace digits
