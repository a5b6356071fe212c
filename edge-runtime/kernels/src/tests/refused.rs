//! What kernels refuse: slices and shapes that do not fit, instruction sets this machine does not support.

use super::*;

#[test]
fn short_slices_and_impossible_shapes_are_refused() {
    let pool = Pool::single();
    let good = shape(20, 6, 24, 3, 1);
    for isa in Isa::supported() {
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
        assert!(subsample(Isa::Portable, x, 2, &[], &mut [], &pool).is_err());
        assert!(pad_channels(Isa::Portable, x, 1, usize::MAX, &[], &mut [], &pool).is_err());
        assert!(affine(Isa::Portable, x, &[], &[], true, &[], &mut [], &pool).is_err());
    }
    assert!(linear(Isa::Portable, usize::MAX, 3, &[], None, &[], &mut [], &pool).is_err());
}

#[test]
fn sums_of_pointwise_convolutions_that_do_not_fit_are_refused() {
    let pool = Pool::single();
    let (y, channels) = (Shape::new(20, 3, 5), 12);
    for isa in Isa::supported() {
        let s = ConvShape { h: y.h, w: y.w, ..shape(channels, 1, y.c, 1, 1) };
        let weights = vec![0.0; packed_len(isa, &s)];
        let input = vec![0.0; blocked_len(isa, Shape { c: channels, ..y })];
        let (vector, map) = (vec![0.0; isa.padded(y.c)], vec![0.0; blocked_len(isa, y)]);
        let run = |y: Shape, channels: usize, count: usize, cut: &str| {
            let of = |name: &str, len: usize| len - usize::from(cut == name);
            let (weights, input) =
                (&weights[..of("weights", weights.len())], &input[..of("input", input.len())]);
            let e = Epilogue {
                scale: Some(&vector[..of("scale", vector.len())]),
                shift: Some(&vector[..of("shift", vector.len())]),
                add: Some((&map[..of("add", map.len())], 1.0)),
                ..Epilogue::default()
            };
            let mut out = vec![0.0; of("out", map.len())];
            // The last of the terms is the one that does not fit.
            let mut terms = vec![Term { channels: 1, weights, input }; count];
            terms.iter_mut().next_back().into_iter().for_each(|last| last.channels = channels);
            pointwise(isa, y, &terms, &e, &mut out, &pool)
        };
        for count in 1..=MAX_TERMS {
            assert_eq!(run(y, channels, count, ""), Ok(()), "{isa}: {count} terms");
            for cut in ["weights", "input", "out", "scale", "shift", "add"] {
                let refused = run(y, channels, count, cut);
                assert!(matches!(refused, Err(KernelError::Short { .. })), "{isa}: {cut} cut by one");
            }
        }
        for count in [0, MAX_TERMS + 1] {
            let refused = run(y, channels, count, "");
            assert!(matches!(refused, Err(KernelError::Shape { .. })), "{isa}: {count} terms");
        }
        for huge in [usize::MAX, usize::MAX / 2, 1 << 40] {
            assert!(run(y, huge, 1, "").is_err(), "{isa}: {huge} channels");
            assert!(run(Shape { c: huge, ..y }, channels, 1, "").is_err(), "{isa}: {huge} output channels");
            assert!(run(Shape { h: huge, w: huge, ..y }, channels, 1, "").is_err(), "{isa}: {huge} rows");
        }
    }
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
        let done = add_scaled(isa, n, &one, 1.0, false, true, &mut out, &pool);
        assert!(matches!(done, Err(KernelError::Isa { .. })), "{isa}");
        assert!(
            matches!(global_avg_pool(isa, shape, &one, &mut out, &pool), Err(KernelError::Isa { .. })),
            "{isa}"
        );
        let (weights, e) = (vec![0.0; n * n], Epilogue::default());
        let terms = [Term { channels: n, weights: &weights, input: &one }];
        let done = pointwise(isa, shape, &terms, &e, &mut out, &pool);
        assert!(matches!(done, Err(KernelError::Isa { .. })), "{isa}");
    }
}
