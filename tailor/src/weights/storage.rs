//! Raw little-endian values of PyTorch's and safetensors' number types, converted to `f32`.

/// A number type of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Number {
    /// The number type of a PyTorch storage class, such as `FloatStorage`.
    pub fn of_storage(class: &str) -> Option<Number> {
        Some(match class {
            "DoubleStorage" => Number::F64,
            "FloatStorage" => Number::F32,
            "HalfStorage" => Number::F16,
            "BFloat16Storage" => Number::BF16,
            "LongStorage" => Number::I64,
            "IntStorage" => Number::I32,
            "ShortStorage" => Number::I16,
            "CharStorage" => Number::I8,
            "ByteStorage" => Number::U8,
            "BoolStorage" => Number::Bool,
            _ => return None,
        })
    }

    /// Bytes per value.
    pub fn size(self) -> usize {
        match self {
            Number::F64 | Number::I64 => 8,
            Number::F32 | Number::I32 => 4,
            Number::F16 | Number::BF16 | Number::I16 => 2,
            Number::I8 | Number::U8 | Number::Bool => 1,
        }
    }

    /// Value `i` of `bytes`; 0 if it is out of bounds, which callers rule out.
    pub fn get(self, bytes: &[u8], i: usize) -> f32 {
        fn at<const N: usize>(bytes: &[u8], i: usize) -> [u8; N] {
            let value = bytes.get(i * N..).and_then(|rest| rest.first_chunk::<N>());
            value.copied().unwrap_or([0; N])
        }
        match self {
            Number::F64 => f64::from_le_bytes(at(bytes, i)) as f32,
            Number::F32 => f32::from_le_bytes(at(bytes, i)),
            Number::F16 => half_to_f32(u16::from_le_bytes(at(bytes, i))),
            Number::BF16 => f32::from_bits(u32::from(u16::from_le_bytes(at(bytes, i))) << 16),
            Number::I64 => i64::from_le_bytes(at(bytes, i)) as f32,
            Number::I32 => i32::from_le_bytes(at(bytes, i)) as f32,
            Number::I16 => f32::from(i16::from_le_bytes(at(bytes, i))),
            Number::I8 => f32::from(i8::from_le_bytes(at(bytes, i))),
            Number::U8 | Number::Bool => f32::from(u8::from_le_bytes(at(bytes, i))),
        }
    }
}

/// Converts IEEE 754 binary16 to binary32, exactly.
fn half_to_f32(half: u16) -> f32 {
    let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(half >> 10 & 0x1f), f32::from(half & 0x3ff));
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        0x1f if fraction == 0.0 => sign * f32::INFINITY,
        0x1f => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_every_number_type() {
        let cases: [(Number, &[u8], &[f32]); 10] = [
            (Number::F64, &1.5f64.to_le_bytes(), &[1.5]),
            (Number::F32, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0], &[1.0, -2.0]),
            (Number::F16, &[0, 0x3c, 0, 0xc0, 1, 0, 0xff, 0x7b], &[1.0, -2.0, 5.9604645e-8, 65504.0]),
            (Number::BF16, &[0x80, 0x3f, 0x49, 0x40], &[1.0, 3.140625]),
            (Number::I64, &(-7i64).to_le_bytes(), &[-7.0]),
            (Number::I32, &70000i32.to_le_bytes(), &[70000.0]),
            (Number::I16, &(-300i16).to_le_bytes(), &[-300.0]),
            (Number::I8, &[0xff, 5], &[-1.0, 5.0]),
            (Number::U8, &[0xff, 5], &[255.0, 5.0]),
            (Number::Bool, &[1, 0], &[1.0, 0.0]),
        ];
        for (number, bytes, want) in cases {
            assert_eq!(bytes.len(), want.len() * number.size());
            let got: Vec<f32> = (0..want.len()).map(|i| number.get(bytes, i)).collect();
            assert_eq!(got, want, "{number:?}");
        }
        assert_eq!(half_to_f32(0x7c00), f32::INFINITY);
        assert!(half_to_f32(0x7c01).is_nan());
    }
}
