// The part of TensorFlow Lite Micro's interface that generated code uses, for compiling without it.
// Its interpreter computes nothing: an inference calls whatever a test has put in its place.
#pragma once

#include <cstddef>
#include <cstdint>

#ifndef TF_LITE_STATIC_MEMORY
#error "TFLM's structures are laid out by TF_LITE_STATIC_MEMORY"
#endif

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };

enum TfLiteType {
  kTfLiteFloat32 = 1, kTfLiteInt32 = 2, kTfLiteUInt8 = 3, kTfLiteInt64 = 4,
  kTfLiteInt16 = 7, kTfLiteInt8 = 9,
};

struct TfLiteTensor {
  TfLiteType type;
  union { char* raw; } data;
  std::size_t bytes;
};
