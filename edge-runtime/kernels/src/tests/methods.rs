//! The method chosen for a shape, and packing kernels in pieces.

use super::*;
use crate::conv::Method;

#[test]
fn the_rule_picks_the_methods_measured_fastest() {
    let cases = [
        (64, 56, 64, 3, 1, Method::Winograd4),
        (128, 28, 128, 3, 1, Method::Winograd4),
        (256, 14, 256, 3, 1, Method::Winograd2),
        (512, 7, 512, 3, 1, Method::Winograd2),
        (16, 32, 16, 3, 1, Method::Winograd4),
        (32, 16, 32, 3, 1, Method::Winograd4),
        (64, 8, 64, 3, 1, Method::Winograd4),
        (64, 56, 128, 3, 2, Method::Direct),
        (64, 56, 128, 1, 1, Method::Direct),
    ];
    for isa in [Isa::Avx2, Isa::Avx512, Isa::Neon] {
        for (c_in, size, c_out, kernel, stride, want) in cases {
            let pad = kernel / 2;
            let s = ConvShape { c_in, h: size, w: size, c_out, kernel, stride, pad, input_nchw: false };
            assert_eq!(Method::of(isa, &s), want, "{isa}, {s:?}");
        }
    }
}

#[test]
fn packing_in_runs_equals_packing_at_once() {
    for isa in Isa::ALL {
        for (c_in, c_out, kernel, plain) in [(5, 3, 1, false), (64, 50, 1, false), (9, 40, 5, true)] {
            let s = ConvShape { c_in, h: 9, w: 9, c_out, kernel, stride: 2, pad: 0, input_nchw: plain };
            let per_channel = c_in * kernel * kernel;
            let w: Vec<f32> = (0..c_out * per_channel).map(|i| i as f32 + 1.0).collect();
            let mut all = vec![f32::NAN; packed_len(isa, &s)];
            pack(isa, &s, &w, &mut all).unwrap();
            let run = run(isa, &s).unwrap();
            for step in [run, 2 * run, 8 * run] {
                let mut out = vec![f32::NAN; all.len()];
                for (i, w) in w.chunks(step * per_channel).enumerate() {
                    pack_run(isa, &s, i * step, w, &mut out).unwrap();
                }
                assert_eq!(out, all, "{isa}, {s:?} in runs of {step}");
            }
            // Half a channel, channels past the last, half a run, and a start in the middle of a run.
            let whole = &w[..run.min(c_out) * per_channel];
            for (first, w) in
                [(0, &w[..1]), (c_out.next_multiple_of(run), whole), (usize::MAX, whole), (1, whole)]
            {
                assert!(pack_run(isa, &s, first, w, &mut all).is_err(), "{isa}, {s:?}, {first}");
            }
        }
    }
    let winograd =
        ConvShape { c_in: 64, h: 56, w: 56, c_out: 64, kernel: 3, stride: 1, pad: 1, input_nchw: false };
    assert_eq!(run(Isa::Avx2, &winograd), None);
    assert!(pack_run(Isa::Avx2, &winograd, 0, &[0.0; 576], &mut vec![0.0; 1 << 20]).is_err());
}
