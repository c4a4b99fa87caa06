// The cycle counter of a Cortex-M core with a DWT unit (Armv7-M and Armv8-M; not M0, M0+, M1, M23).
#pragma once

#include <cstdint>

#if defined(__ARM_ARCH) && __ARM_ARCH_PROFILE == 'M' && !defined(__ARM_ARCH_6M__) && \
    !defined(__ARM_ARCH_8M_BASE__)
#define DIGITS_HAS_CYCLE_COUNTER 1

namespace digits {

// Armv7-M Architecture Reference Manual, C1.6.5 (DEMCR) and C1.8.7 to C1.8.8 (DWT).
inline volatile std::uint32_t& Register(std::uintptr_t address) {
  return *reinterpret_cast<volatile std::uint32_t*>(address);
}

// Starts the counter; false where this core was made without one.
inline bool StartCycleCounter() {
  constexpr std::uint32_t kTraceEnable = 1U << 24, kCounterEnable = 1U, kNoCounter = 1U << 25;
  Register(0xE000EDFC) = Register(0xE000EDFC) | kTraceEnable;
  Register(0xE0001FB0) = 0xC5ACCE55;  // the lock that Cortex-M7 puts on the unit
  if ((Register(0xE0001000) & kNoCounter) != 0) return false;
  Register(0xE0001004) = 0;
  Register(0xE0001000) = Register(0xE0001000) | kCounterEnable;
  return true;
}

// Cycles since the start, modulo 2^32: differences are right across one wrap.
inline std::uint32_t ReadCycleCounter() { return Register(0xE0001004); }

}  // namespace digits
#endif
