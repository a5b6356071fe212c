//! Operations on images small enough to work out by hand.

use super::colour::*;
use super::policy::{OPERATIONS, Operation, rand_augment};
use super::warp::*;
use super::*;

const SQUARE: Size = Size { height: 3, width: 3 };

/// A grey image from its values.
fn grey(values: &[u8]) -> Vec<u8> {
    values.iter().flat_map(|&v| [v; 3]).collect()
}

/// The first channel; the others must equal it.
#[track_caller]
fn values(image: &[u8]) -> Vec<u8> {
    assert!(image.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]), "{image:?}");
    image.iter().step_by(3).copied().collect()
}

#[test]
fn pixels_move_where_they_should() {
    #[rustfmt::skip]
    let before = [1, 2, 3,
                  4, 5, 6,
                  7, 8, 9];
    #[rustfmt::skip]
    let cases: [(&str, Affine, [u8; 9]); 7] = [
        ("right by one, whatever the fraction", translate(1.9, 0.0), [0, 1, 2,  0, 4, 5,  0, 7, 8]),
        ("left and up", translate(-1.0, -1.0), [5, 6, 0,  8, 9, 0,  0, 0, 0]),
        ("a quarter turn counter-clockwise", rotate(90.0, SQUARE), [3, 6, 9,  2, 5, 8,  1, 4, 7]),
        ("a quarter turn clockwise", rotate(-90.0, SQUARE), [7, 4, 1,  8, 5, 2,  9, 6, 3]),
        // The centres of rows 0, 1, 2 are at y = 0.5, 1.5, 2.5: with 0.4 they start 0.2, 0.6, 1.0 further
        // right.
        ("sheared along rows", shear_x(0.4), [1, 2, 3,  5, 6, 0,  8, 9, 0]),
        ("sheared along rows, the other way", shear_x(-0.4), [1, 2, 3,  0, 4, 5,  0, 7, 8]),
        ("sheared along columns", shear_y(0.4), [1, 5, 6,  4, 8, 9,  7, 0, 0]),
    ];
    for (what, affine, want) in cases {
        let mut image = grey(&before);
        warp(&mut image, SQUARE, affine);
        assert_eq!(values(&image), want, "{what}");
    }
}

#[test]
fn values_change_as_published() {
    let of = |change: &dyn Fn(&mut [u8]), before: &[u8]| {
        let mut image = grey(before);
        change(&mut image);
        values(&image)
    };
    assert_eq!(of(&|i| brightness(i, 0.5), &[0, 101, 255]), [0, 51, 128]);
    assert_eq!(of(&|i| brightness(i, 1.5), &[10, 100, 200]), [15, 150, 255]);
    // The mean is 100.
    assert_eq!(of(&|i| contrast(i, 0.5), &[0, 100, 200]), [50, 100, 150]);
    assert_eq!(of(&|i| contrast(i, 2.0), &[40, 100, 160]), [0, 100, 220]);
    assert_eq!(of(&|i| saturation(i, 0.1), &[7, 100, 255]), [7, 100, 255]);
    assert_eq!(of(&|i| posterize(i, 2), &[63, 64, 200, 255]), [0, 64, 192, 192]);
    assert_eq!(of(&|i| posterize(i, 8), &[63, 64, 201, 255]), [63, 64, 201, 255]);
    assert_eq!(of(&|i| solarize(i, 128.0), &[0, 127, 128, 255]), [0, 127, 127, 0]);
    assert_eq!(of(&autocontrast, &[50, 100, 150]), [0, 128, 255]);
    assert_eq!(of(&autocontrast, &[9, 9, 9]), [9, 9, 9]);
    // A smooth spot: nine ones and a 27 in the middle: (8 * 1 + 5 * 27) / 13 = 11.
    let spot = [1, 1, 1, 1, 27, 1, 1, 1, 1];
    assert_eq!(of(&|i| sharpness(i, SQUARE, 0.0), &spot)[4], 11);
    assert_eq!(of(&|i| sharpness(i, SQUARE, 2.0), &spot), [1, 1, 1, 1, 43, 1, 1, 1, 1]);
    assert_eq!(of(&|i| sharpness(i, SQUARE, 1.0), &spot), spot);

    // 255 pixels each of 10 and 20 and one of 30: a step is 510 / 255 = 2, so 10 becomes 1 / 2 = 0,
    // 20 becomes (1 + 255) / 2 = 128 and 30 (1 + 510) / 2 = 255.
    let many: Vec<u8> = [vec![10; 255], vec![20; 255], vec![30]].concat();
    let mut spread = of(&equalize, &many);
    spread.dedup();
    assert_eq!(spread, [0, 128, 255]);
    assert_eq!(of(&equalize, &[1, 2, 3]), [1, 2, 3], "too few pixels to spread");

    // Pure red has luma 76 (0.299 * 255): half of its colour is (166, 38, 38).
    let mut red = vec![255, 0, 0];
    saturation(&mut red, 0.5);
    assert_eq!(red, [166, 38, 38]);
}

#[test]
fn magnitudes_are_those_of_randaugment() {
    let size = Size { height: 1, width: 30 };
    let before: Vec<u8> = (1..=30).collect();
    let of = |operation, magnitude, sign| {
        let mut image = grey(&before);
        rand_augment(operation, magnitude, sign, &mut image, size);
        values(&image)
    };
    for operation in OPERATIONS {
        // Magnitude 0 changes nothing (fewest bits removed, highest threshold), except in the two operations
        // without a magnitude.
        if !matches!(operation, Operation::AutoContrast | Operation::Equalize) {
            assert_eq!(of(operation, 0, 1.0), before, "{operation:?}");
        }
    }
    // 30 * 150 / 331 * 15 / 30 = 6.8 pixels, truncated.
    assert_eq!(of(Operation::TranslateX, 15, 1.0)[..8], [0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(of(Operation::TranslateX, 15, -1.0)[..2], [7, 8]);
    // 1 - 0.9 * 20 / 30 = 0.4.
    assert_eq!(of(Operation::Brightness, 20, -1.0)[9], 4);
    // Down to 8 - 4 bits.
    assert_eq!(of(Operation::Posterize, 30, 1.0)[14..17], [0, 16, 16]);
    assert_eq!(of(Operation::Solarize, 30, 1.0)[0], 254);
}

fn image(size: Size, seed: u64) -> Vec<u8> {
    let mut random = Random::new(&[seed]);
    (0..3 * size.area()).map(|_| random.below(256) as u8).collect()
}

fn changed(augment: Augment, key: [u64; 4]) -> Vec<u8> {
    let size = Size { height: 8, width: 8 };
    let mut out = vec![9; 5];
    augment.apply(&image(size, 1), size, key, &mut out);
    out
}

#[test]
fn changes_are_a_function_of_their_key_and_differ_between_keys() {
    let trivial = Augment { policy: Policy::Trivial, ..Augment::default() };
    let policies = [
        Augment { policy: "randaugment:2,20".parse().unwrap(), ..Augment::default() },
        trivial,
        Augment { jitter: Jitter::all(0.5), ..Augment::default() },
        Augment { erase: 1.0, ..Augment::default() },
        Augment { crop_pad: 2, flip: true, ..Augment::default() },
    ];
    for augment in policies {
        let keys: [[u64; 4]; 5] = [[1, 2, 3, 0], [2, 2, 3, 0], [1, 3, 3, 0], [1, 2, 4, 0], [1, 2, 3, 1]];
        let all = keys.map(|key| changed(augment, key));
        assert_eq!(all, keys.map(|key| changed(augment, key)));
        let different = all.iter().enumerate().filter(|(i, a)| all[..*i].iter().all(|b| b != *a)).count();
        assert!(different >= 3, "{augment:?}: {different} different images from 5 keys");
    }
    assert_eq!(changed(Augment::default(), [1, 2, 3, 0]), image(Size { height: 8, width: 8 }, 1));
    // Shifts are the same with and without later operations.
    let shifted = Augment { crop_pad: 3, ..Augment::default() };
    let both = Augment { policy: Policy::RandAugment { operations: 1, magnitude: 0 }, ..shifted };
    let same = (0..20).filter(|&i| changed(shifted, [0, 0, i, 0]) == changed(both, [0, 0, i, 0])).count();
    assert!(same >= 12, "{same} of 20: only two of 14 operations change anything at magnitude 0");
}

#[test]
fn jitter_stays_within_its_strength_and_uses_it() {
    let size = Size { height: 1, width: 1 };
    let augment = Augment { jitter: Jitter::all(0.2), ..Augment::default() };
    let (mut low, mut high) = (255, 0);
    for i in 0..300 {
        let mut out = Vec::new();
        // Contrast and saturation leave a single grey pixel unchanged, so only brightness shows.
        augment.apply(&[100; 3], size, [0, 0, i, 0], &mut out);
        let value = values(&out)[0];
        (low, high) = (low.min(value), high.max(value));
    }
    assert!((80..84).contains(&low) && (117..=120).contains(&high), "{low} to {high}");
}

#[test]
fn erasing_takes_a_rectangle_of_the_size_it_may_take_as_often_as_asked() {
    let size = Size { height: 20, width: 20 };
    let augment = Augment { erase: 0.5, ..Augment::default() };
    let before = vec![7; 3 * size.area()];
    let (mut erased, mut total) = (0, 400);
    for i in 0..total {
        let mut out = Vec::new();
        augment.apply(&before, size, [3, 0, i, 0], &mut out);
        let hit: Vec<usize> = (0..size.area()).filter(|p| out[3 * p..3 * p + 3] != [7; 3]).collect();
        if hit.is_empty() {
            continue;
        }
        erased += 1;
        let (rows, columns): (Vec<_>, Vec<_>) = hit.iter().map(|p| (p / 20, p % 20)).unzip();
        let side = |of: &[usize]| of.iter().max().unwrap() - of.iter().min().unwrap() + 1;
        assert_eq!(side(&rows) * side(&columns), hit.len(), "not a rectangle");
        // Sides are rounded, so areas are off by a few pixels.
        assert!((5..=150).contains(&hit.len()), "{} pixels", hit.len());
    }
    total /= 2;
    assert!((erased as i64 - total as i64).abs() < 50, "{erased}, not about {total}");
}

#[test]
fn each_of_the_three_has_a_strength_of_its_own() {
    let size = Size { height: 1, width: 2 };
    // A colourless image keeps its colours whatever the saturation, and an even one whatever the contrast.
    let changes = |jitter: Jitter, before: [u8; 6]| {
        let augment = Augment { jitter, ..Augment::default() };
        (0..20).any(|i| {
            let mut out = Vec::new();
            augment.apply(&before, size, [0, 0, i, 0], &mut out);
            out != before
        })
    };
    let (even, grey, colourful) = ([90; 6], [40, 40, 40, 160, 160, 160], [200, 40, 40, 200, 40, 40]);
    let brightness = Jitter { brightness: 0.5, ..Jitter::NONE };
    let contrast = Jitter { contrast: 0.5, ..Jitter::NONE };
    let saturation = Jitter { saturation: 0.5, ..Jitter::NONE };
    for (jitter, want) in
        [(brightness, [true; 3]), (contrast, [false, true, true]), (saturation, [false, false, true])]
    {
        assert_eq!([even, grey, colourful].map(|image| changes(jitter, image)), want, "{jitter}");
    }
}

#[test]
fn jitter_is_read_as_it_is_written() {
    for text in ["0", "0.3", "0.5,0.2,0.2"] {
        assert_eq!(text.parse::<Jitter>().unwrap().to_string(), text);
    }
    for text in ["", "a", "0.1,0.2", "0.1,0.2,0.3,0.4"] {
        let error = text.parse::<Jitter>().unwrap_err().to_string();
        assert!(error.contains("0.5,0.2,0.2"), "{error}");
    }
}

#[test]
fn shifts_fill_with_black_or_with_the_mirrored_image() {
    let size = Size { height: 2, width: 4 };
    #[rustfmt::skip]
    let before = [1, 2, 3, 4,
                  5, 6, 7, 8];
    let shifted = |offset, mirror, padding| {
        let mut out = Vec::new();
        shift(&grey(&before), size, offset, mirror, padding, &mut out);
        values(&out)
    };
    assert_eq!(shifted((0, 2), false, Padding::Black), [3, 4, 0, 0, 7, 8, 0, 0]);
    assert_eq!(shifted((0, 2), false, Padding::Reflect), [3, 4, 3, 2, 7, 8, 7, 6]);
    assert_eq!(shifted((0, -2), false, Padding::Reflect), [3, 2, 1, 2, 7, 6, 5, 6]);
    assert_eq!(shifted((1, 0), false, Padding::Black), [5, 6, 7, 8, 0, 0, 0, 0]);
    assert_eq!(shifted((1, 0), false, Padding::Reflect), [5, 6, 7, 8, 1, 2, 3, 4]);
    assert_eq!(shifted((0, 1), true, Padding::Reflect), [3, 4, 3, 2, 7, 8, 7, 6], "mirrored, then shifted");
    let line = Size { height: 1, width: 1 };
    let mut out = Vec::new();
    shift(&grey(&[7]), line, (0, 0), true, Padding::Reflect, &mut out);
    assert_eq!(values(&out), [7]);
}

#[test]
fn policies_are_read_as_they_are_written() {
    for text in ["none", "trivial", "randaugment:2,9", "randaugment:1,30"] {
        assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "randaugment",
        "randaugment:2",
        "randaugment:0,9",
        "randaugment:2,31",
        "randaugment:15,1",
        "light",
    ] {
        let error = text.parse::<Policy>().unwrap_err().to_string();
        assert!(error.contains("randaugment:N,M"), "{error}");
    }
}

#[test]
fn strengths_that_are_none_are_refused() {
    let bad = [
        ("--crop 17", Augment { crop_pad: 17, ..Augment::default() }),
        ("--jitter 1.5", Augment { jitter: Jitter::all(1.5), ..Augment::default() }),
        (
            "--jitter 0,-0.1,0",
            Augment { jitter: Jitter { contrast: -0.1, ..Jitter::NONE }, ..Augment::default() },
        ),
        ("--erase -0.1", Augment { erase: -0.1, ..Augment::default() }),
        ("--jitter NaN", Augment { jitter: Jitter::all(f32::NAN), ..Augment::default() }),
    ];
    for (option, augment) in bad {
        let error = augment.check(32).unwrap_err().to_string();
        assert!(error.starts_with(option), "{error}");
    }
}
