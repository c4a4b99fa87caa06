#include "digits/self_test.h"

#include <cmath>
#include <cstring>

#include "golden.h"

namespace digits {
namespace {

// Adds the differences of one output, and counts a NaN as a failure.
template <typename T>
void Compare(const T* got, const T* wanted, std::size_t elements,
             const Quantization& quantization, SelfTest& result) {
  for (std::size_t i = 0; i < elements; ++i) {
    float difference = static_cast<float>(got[i]) - static_cast<float>(wanted[i]);
    if (quantization.scale != 0.0F) difference *= quantization.scale;
    result.differing += got[i] != wanted[i];
    result.largest_difference = std::fmax(result.largest_difference, std::fabs(difference));
    result.noise += difference * difference;
  }
}

}  // namespace

SelfTest RunSelfTest(Model& model) {
  SelfTest result{Status::kOk, false, 0, 0, 0.0F, 0.0F};
  for (std::size_t i = 0; i < kGoldenInvocations; ++i) {
    // Load() does nothing the second time; without it there are no tensors to write to.
    result.status = model.Load();
    if (result.status != Status::kOk) return result;
    std::memcpy(model.image_tensor(), kGoldenImage + i * kImageElements,
                kImageElements * sizeof(ImageTensor));
    result.status = model.Invoke();
    if (result.status != Status::kOk) return result;
    Compare(model.logits_tensor(), kWantedLogits + i * kLogitsElements,
            kLogitsElements, kLogitsQuantization, result);
    ++result.invocations;
  }
  result.passed = result.noise <= kMaximumNoise;  // false for NaN
  return result;
}

}  // namespace digits
