// The model as an app uses it: load once, set the inputs, invoke, read the outputs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "digits/constants.h"
#include "tensorflow/lite/micro/micro_interpreter.h"

namespace digits {

enum class Status {
  kOk,
  kModelDiffers,       // the bytes in flash are not those that were compiled
  kSchemaDiffers,      // the TFLM library is of another schema version
  kOperatorMissing,    // the TFLM library lacks a kernel
  kArenaTooSmall,      // this build of TFLM needs more than kArenaBytes
  kTensorsDiffer,      // the file's tensors are not the manifest's
  kNotLoaded,          // Load() was not called, or did not return kOk
  kInvokeFailed,       // a kernel reported an error
};

const char* Text(Status status);

// The best class, its label (nullptr where the task named none) and its score.
struct Prediction {
  std::size_t index;
  const char* label;
  float score;
};

class Model {
 public:
  // Checks the model's hash, registers its operators and plans its memory.
  Status Load();

  // 1 x 8 x 8 x 1 values, pixels from 0 to 1, normalised here.
  void SetImage(const ImageValue (&values)[kImageElements]);
  // The tensor itself, in the file's layout and type, 1 x 8 x 8 x 1.
  ImageTensor* image_tensor();

  Status Invoke();

  // 1 x 10 values: logits.
  void GetLogits(float (&values)[kLogitsElements]) const;
  const LogitsTensor* logits_tensor() const;
  // The class with the largest score, of one sample of the batch.
  Prediction BestLogits(std::size_t sample = 0) const;

  // What this build of TFLM uses of the arena, once loaded.
  std::size_t arena_used_bytes() const;

 private:
  bool TensorsAreTheManifests();

  std::optional<tflite::MicroInterpreter> interpreter_;
  bool is_loaded_ = false;
  alignas(16) std::array<std::uint8_t, kArenaBytes> arena_;
};

}  // namespace digits
