//! Convolutions with products in half precision: how kernels are stored, and how far sums are off.

use super::*;
use crate::conv::Method;
use bundles::container::{f16_to_f32, f32_to_f16};

/// Packed weights as the halves they hold, widened.
fn widened(packed: &[f32]) -> Vec<f32> {
    let bits = packed.iter().map(|x| x.to_bits());
    bits.flat_map(|x| [f16_to_f32(x as u16), f16_to_f32((x >> 16) as u16)]).collect()
}

#[test]
fn kernels_of_halves_have_the_order_of_those_of_floats() {
    let stem = ConvShape { input_nchw: true, ..shape(3, 9, 21, 7, 2) };
    // Same blocks, kept in floats.
    let floats = Isa::Avx2;
    assert_eq!(Isa::NeonFp16.block(), floats.block());
    for s in [shape(5, 9, 3, 1, 1), shape(24, 9, 40, 1, 1), shape(13, 9, 17, 3, 2), stem] {
        let w = Random(5).floats(s.c_out * s.c_in * s.kernel * s.kernel);
        let pack = |isa| {
            let mut packed = vec![f32::NAN; Method::Direct.packed_len(isa, &s)];
            Method::Direct.pack(isa, &s, &w, &mut packed).unwrap();
            packed
        };
        let rounded: Vec<f32> = pack(floats).into_iter().map(|x| f16_to_f32(f32_to_f16(x))).collect();
        let halves = pack(Isa::NeonFp16);
        assert!(holds_halves(Isa::NeonFp16, &s, halves.len()) && !holds_halves(floats, &s, rounded.len()));
        assert_eq!(widened(&halves), rounded, "{s:?}");
    }
}

#[test]
fn direct_convolution_is_preferred_where_halves_make_it_the_leaner_one() {
    let method = |isa, s: &ConvShape| {
        let reads = |m: &Method| m.packed_len(isa, s) == packed_len(isa, s);
        Method::all(isa, s).find(reads)
    };
    for (channels, size, half) in
        [(64, 56, Method::Winograd4), (256, 14, Method::Direct), (512, 7, Method::Direct)]
    {
        let s = shape(channels, size, channels, 3, 1);
        assert_eq!(method(Isa::NeonFp16, &s), Some(half), "{s:?}");
        assert_ne!(method(Isa::Neon, &s), Some(Method::Direct), "{s:?}");
    }
}

#[test]
fn a_kernel_is_read_as_what_it_was_packed_as_on_maps_of_any_size() {
    let isa = Isa::NeonFp16;
    for channels in [16, 64, 256] {
        for packed_for in [7, 14, 56] {
            for on in [7, 14, 56].map(|size| shape(channels, size, channels, 3, 1)) {
                let packed = shape(channels, packed_for, channels, 3, 1);
                for method in Method::all(isa, &packed) {
                    let len = method.packed_len(isa, &packed);
                    assert!(accepts(isa, &on, len), "{method:?}, {on:?}");
                    assert_eq!(holds_halves(isa, &on, len), method == Method::Direct, "{method:?}, {on:?}");
                }
                assert!(!accepts(isa, &on, packed_len(isa, &packed) - 1));
            }
        }
    }
}

/// A sum of 4,608 ones, which in half precision alone would stop at 2,048; then of as many thousandths, each
/// of which is rounded the same way.
#[test]
fn long_sums_do_not_lose_what_half_precision_would() {
    if !Isa::NeonFp16.runs_here() {
        return;
    }
    let isa = Isa::NeonFp16;
    for (weight, off) in [(1.0, 0.0), (1e-3, 1e-2)] {
        let s = ConvShape { pad: 0, ..shape(512, 3, 8, 3, 1) };
        let mut packed = vec![0.0; Method::Direct.packed_len(isa, &s)];
        Method::Direct.pack(isa, &s, &vec![weight; 512 * 9 * 8], &mut packed).unwrap();
        let (mut out, mut scratch) = (vec![0.0; 8], vec![0.0; Method::Direct.scratch_len(isa, &s, 1)]);
        let (input, e) = (vec![1.0; 512 * 9], Epilogue::default());
        Method::Direct.conv(isa, &s, &packed, &input, &e, &mut out, &mut scratch, &Pool::single()).unwrap();
        let want = 4608.0 * weight;
        assert!(out.iter().all(|sum| (sum - want).abs() <= off * want), "{weight}: {out:?}");
    }
}
