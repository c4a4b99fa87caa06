// How an app's values become a tensor of the model and back: layout, normalisation, quantization.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace digits {

constexpr std::size_t kMostDimensions = 8;

using Sizes = std::array<std::size_t, kMostDimensions>;

// `strides` say how far apart neighbours along each axis of `shape` are in the other array.
struct Layout {
  std::size_t dimensions;
  std::size_t elements;
  Sizes shape;
  Sizes strides;
};

// real = scale * (integer - zero_point); a scale of 0 means that the tensor is not quantized.
struct Quantization {
  float scale;
  std::int32_t zero_point;
};

// (value - mean) / std, by channel along `axis` of the layout; no channels means nothing to do.
struct Normalisation {
  std::size_t axis;
  std::size_t channels;
  const float* mean;
  const float* std;
};

// Returns round(real / scale) + zero_point, half to even, clipped to the type's range.
template <typename T>
T Quantize(float real, const Quantization& quantization) {
  static_assert(std::is_integral_v<T>);
  constexpr float low = std::numeric_limits<T>::min();
  constexpr float high = std::numeric_limits<T>::max();
  const float steps =
      std::nearbyint(real / quantization.scale) + static_cast<float>(quantization.zero_point);
  // Written so that a NaN becomes the lowest value instead of undefined behaviour.
  return static_cast<T>(steps >= high ? high : (steps > low ? steps : low));
}

template <typename T>
float Dequantize(T value, const Quantization& quantization) {
  const auto steps = static_cast<std::int32_t>(value) - quantization.zero_point;
  return static_cast<float>(steps) * quantization.scale;
}

// Calls visit(index in the layout's order, index in the other array, position along `axis`).
template <typename Visit>
void ForEach(const Layout& layout, std::size_t axis, Visit visit) {
  Sizes position{};
  std::size_t other = 0;
  for (std::size_t index = 0; index < layout.elements; ++index) {
    visit(index, other, position[axis]);
    for (std::size_t d = layout.dimensions; d-- > 0;) {
      other += layout.strides[d];
      if (++position[d] < layout.shape[d]) break;
      other -= layout.strides[d] * layout.shape[d];
      position[d] = 0;
    }
  }
}

// Writes the app's values into the model's tensor of type T.
template <typename T, typename Value>
void Encode(const Value* values, const Layout& layout, const Normalisation& normalisation,
            const Quantization& quantization, T* tensor) {
  ForEach(layout, normalisation.axis, [&](std::size_t to, std::size_t from, std::size_t along) {
    Value value = values[from];
    if constexpr (std::is_floating_point_v<Value>) {
      if (normalisation.channels > 0) {
        const std::size_t channel = normalisation.channels == 1 ? 0 : along;
        value = (value - normalisation.mean[channel]) / normalisation.std[channel];
      }
      if constexpr (std::is_integral_v<T>) {
        tensor[to] = Quantize<T>(value, quantization);
        return;
      }
    }
    tensor[to] = static_cast<T>(value);
  });
}

// Reads the model's tensor of type T into the app's array.
template <typename T, typename Value>
void Decode(const T* tensor, const Layout& layout, const Quantization& quantization,
            Value* values) {
  ForEach(layout, 0, [&](std::size_t to, std::size_t from, std::size_t) {
    if constexpr (std::is_floating_point_v<Value> && std::is_integral_v<T>) {
      values[to] = Dequantize(tensor[from], quantization);
    } else {
      values[to] = static_cast<Value>(tensor[from]);
    }
  });
}

}  // namespace digits
