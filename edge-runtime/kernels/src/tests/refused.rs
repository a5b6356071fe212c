//! What kernels refuse: slices and shapes that do not fit, instruction sets this machine does not support.

use super::*;

#[test]
fn short_slices_and_impossible_shapes_are_refused() {
    let pool = Pool::single();
    let good = shape(20, 6, 24, 3, 1);
    for isa in Isa::available() {
        let y = Shape::new(24, 6, 6);
        let mut packed = vec![0.0; packed_len(isa, &good)];
        pack(isa, &good, &vec![0.0; 24 * 20 * 9], &mut packed).unwrap();
        let (input, mut out) =
            (vec![0.0; blocked_len(isa, Shape::new(20, 6, 6))], vec![0.0; blocked_len(isa, y)]);
        let mut scratch = vec![0.0; scratch_len(isa, &good, packed_len(isa, &good), 1)];
        let vector = vec![0.0; isa.padded(24)];
        let e = Epilogue::default();
        let mut run = |s: &ConvShape, cut: &str| {
            let less = |name: &str, len: usize| len - usize::from(cut == name && len > 0);
            let add = vec![0.0; less("add", out.len())];
            let e = Epilogue {
                scale: Some(&vector[..less("scale", vector.len())]),
                shift: Some(&vector[..less("shift", vector.len())]),
                add: Some((&add, 1.0)),
                ..e
            };
            let (out_len, scratch_len) = (less("out", out.len()), less("scratch", scratch.len()));
            conv(
                isa,
                s,
                &packed[..less("weights", packed.len())],
                &input[..less("input", input.len())],
                &e,
                &mut out[..out_len],
                &mut scratch[..scratch_len],
                &pool,
            )
        };
        assert_eq!(run(&good, ""), Ok(()));
        for cut in ["weights", "input", "out", "scale", "shift", "add"] {
            assert!(matches!(run(&good, cut), Err(KernelError::Short { .. })), "{isa}: {cut} cut by one");
        }
        if scratch_len(isa, &good, packed_len(isa, &good), 1) > 0 {
            assert!(matches!(run(&good, "scratch"), Err(KernelError::Short { .. })), "{isa}: scratch");
        }
        let huge = usize::MAX / 2;
        for bad in [
            ConvShape { stride: 0, ..good },
            ConvShape { kernel: 0, ..good },
            ConvShape { kernel: 9, ..good },
            ConvShape { c_in: 0, ..good },
            ConvShape { c_out: 0, ..good },
            ConvShape { c_out: huge, ..good },
            ConvShape { c_in: huge, kernel: 1, ..good },
            ConvShape { h: huge, w: huge, ..good },
            ConvShape { pad: huge, ..good },
            ConvShape { h: 1 << 24, w: 1 << 24, c_in: 1 << 24, ..good },
        ] {
            assert!(run(&bad, "").is_err(), "{isa}: {bad:?}");
            assert!(pack(isa, &bad, &[0.0; 8], &mut [0.0; 8]).is_err(), "{isa}: {bad:?}");
        }
    }
    let nothing = Shape::new(usize::MAX, usize::MAX, usize::MAX);
    let window = Window { kernel: 3, stride: 2, pad: 1 };
    for x in [nothing, Shape::new(0, 4, 4), Shape::new(4, 0, usize::MAX), Shape::new(4, 4, 4)] {
        assert!(max_pool(Isa::Portable, x, window, &[], &mut [], &pool).is_err());
        assert!(global_avg_pool(Isa::Portable, x, &[], &mut [], &pool).is_err());
        assert!(to_blocked(Isa::Portable, x, &[], &mut [], &pool).is_err());
        assert!(from_blocked(Isa::Portable, x, &[], &mut [], &pool).is_err());
        assert!(subsample(Isa::Portable, x, 2, &[], &mut [], &pool).is_err());
        assert!(pad_channels(Isa::Portable, x, 1, usize::MAX, &[], &mut [], &pool).is_err());
        assert!(affine(Isa::Portable, x, &[], &[], true, &[], &mut [], &pool).is_err());
    }
    assert!(linear(Isa::Portable, usize::MAX, 3, &[], None, &[], &mut [], &pool).is_err());
}

#[test]
fn unsupported_instruction_sets_are_refused() {
    let pool = Pool::single();
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.runs_here()) {
        let n = isa.block();
        let (one, mut out) = (vec![1.0; n], vec![0.0; n]);
        let shape = Shape::new(n, 1, 1);
        let done = affine(isa, shape, &one, &one, false, &one, &mut out, &pool);
        assert!(matches!(done, Err(KernelError::Isa { .. })), "{isa}");
        assert!(matches!(relu(isa, &mut out, &pool), Err(KernelError::Isa { .. })), "{isa}");
        assert!(
            matches!(global_avg_pool(isa, shape, &one, &mut out, &pool), Err(KernelError::Isa { .. })),
            "{isa}"
        );
    }
}
