//! IEEE 754 half precision, for tensors stored as f16.

/// Converts to f32, exactly.
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    let magnitude = match exponent {
        // Subnormal: fraction * 2^-24, exact in f32.
        0 => (fraction as f32 * f32::from_bits(0x3380_0000)).to_bits(),
        31 => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// Rounds to the nearest f16, ties to even; overflow gives infinity.
pub fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    if magnitude < 0x3880_0000 {
        // Below 2^-14. Adding 0.5 leaves the multiple of 2^-24 in the low fraction bits, rounded by the FPU.
        let shifted = f32::from_bits(magnitude) + 0.5;
        return sign | (shifted.to_bits() - 0x3f00_0000) as u16;
    }
    let odd = magnitude >> 13 & 1;
    let rounded = (magnitude - 0x3800_0000 + 0xfff + odd) >> 13;
    sign | rounded.min(0x7c00) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_round_trips() {
        for bits in 0..=u16::MAX {
            let x = f16_to_f32(bits);
            if x.is_nan() {
                assert!(f16_to_f32(f32_to_f16(x)).is_nan());
            } else {
                assert_eq!(f32_to_f16(x), bits, "{bits:#06x} = {x}");
            }
        }
    }

    #[test]
    fn rounds_to_nearest_even() {
        for (x, bits) in [
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (65504.0, 0x7bff),
            (65519.9, 0x7bff),
            (65520.0, 0x7c00),
            (f32::INFINITY, 0x7c00),
            (1e30, 0x7c00),
            (1.0 + 1.0 / 2048.0, 0x3c00), // tie, down to even
            (1.0 + 3.0 / 2048.0, 0x3c02), // tie, up to even
            (5.960_464_5e-8, 0x0001),     // smallest subnormal
            (2.980_232_2e-8, 0x0000),     // half of it: tie, down to even
            (2.99e-8, 0x0001),
            (6.103_515_6e-5, 0x0400), // smallest normal
            (6.1e-5, 0x0400 - 1),
            (0.1, 0x2e66),
        ] {
            assert_eq!(f32_to_f16(x), bits, "{x}");
        }
    }
}
