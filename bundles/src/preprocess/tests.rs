//! The resampler compared with Pillow, and the inputs it refuses.

use super::*;

struct Golden {
    from: (usize, usize),
    channels: usize,
    to: (usize, usize),
    pixels: &'static [u8],
}

fn size((width, height): (usize, usize)) -> Size {
    Size { height, width }
}

/// Same formula as in the script that ran Pillow: `(37x + 91y + 53c + 7xy) mod 256`.
fn picture(size: Size, channels: usize) -> Vec<u8> {
    let value = |y, x, c| (x * 37 + y * 91 + c * 53 + x * y * 7) as u8;
    let row = |y| (0..size.width).flat_map(move |x| (0..channels).map(move |c| value(y, x, c)));
    (0..size.height).flat_map(row).collect()
}

fn resized(from: Size, to: Size, channels: usize, source: &[u8]) -> Vec<u8> {
    let mut out = vec![7; to.area() * channels];
    Resizer::new(from, to, channels).unwrap().resize(source, &mut out).unwrap();
    out
}

/// `Image.fromarray(picture).resize(to, Image.BILINEAR)` of Pillow 13.0.0, which orders its passes by another
/// rule and so rounds a few pixels the other way.
#[test]
fn resizes_like_pillow_within_one_level() {
    let cases = [
        Golden {
            from: (7, 5),
            channels: 3,
            to: (3, 4),
            pixels: &[
                56, 109, 149, 120, 147, 174, 158, 143, 113, 147, 154, 137, 125, 110, 122, 114, 129, 136, 110,
                117, 133, 142, 154, 139, 145, 128, 135, 140, 152, 122, 136, 129, 133, 168, 139, 110,
            ],
        },
        Golden {
            from: (8, 8),
            channels: 1,
            to: (11, 3),
            pixels: &[
                80, 107, 120, 111, 144, 126, 103, 121, 153, 130, 77, 105, 116, 130, 142, 124, 147, 160, 117,
                156, 149, 109, 105, 116, 124, 125, 94, 123, 149, 109, 159, 166, 141,
            ],
        },
        Golden {
            from: (5, 4),
            channels: 1,
            to: (9, 7),
            pixels: &[
                0, 12, 33, 53, 74, 95, 115, 136, 148, 33, 46, 68, 89, 112, 134, 145, 117, 99, 85, 99, 123,
                148, 172, 195, 193, 86, 21, 137, 153, 179, 149, 104, 130, 142, 98, 71, 170, 187, 216, 139,
                35, 64, 93, 121, 138, 76, 94, 125, 116, 95, 126, 157, 188, 206, 17, 36, 69, 101, 133, 165,
                197, 230, 249,
            ],
        },
        Golden {
            from: (64, 48),
            channels: 1,
            to: (6, 5),
            pixels: &[
                128, 130, 127, 125, 130, 130, 122, 126, 123, 126, 129, 126, 127, 129, 134, 129, 133, 133,
                134, 138, 147, 125, 127, 130, 133, 128, 129, 126, 132, 129,
            ],
        },
        Golden {
            from: (6, 6),
            channels: 1,
            to: (6, 4),
            pixels: &[
                34, 74, 113, 153, 97, 136, 133, 183, 90, 139, 104, 125, 66, 125, 156, 131, 190, 107, 165, 74,
                144, 117, 186, 96,
            ],
        },
        Golden {
            from: (6, 3),
            channels: 3,
            to: (2, 3),
            pixels: &[46, 99, 152, 139, 192, 181, 146, 167, 156, 96, 85, 106, 150, 107, 96, 117, 170, 159],
        },
        Golden {
            from: (1, 1),
            channels: 3,
            to: (2, 2),
            pixels: &[0, 53, 106, 0, 53, 106, 0, 53, 106, 0, 53, 106],
        },
    ];
    for case in cases {
        let (from, to) = (size(case.from), size(case.to));
        let got = resized(from, to, case.channels, &picture(from, case.channels));
        assert_eq!(got.len(), case.pixels.len());
        let furthest = got.iter().zip(case.pixels).map(|(&a, &b)| a.abs_diff(b)).max();
        assert!(furthest <= Some(1), "{:?} to {:?}: {got:?}", case.from, case.to);
    }
}

#[test]
fn uniform_images_stay_uniform_at_every_size() {
    for from in 1..40 {
        for to in [1, 2, 3, 7, 8, 31, 32, 33, 64] {
            for value in [0, 1, 127, 254, 255] {
                let (a, b) = (size((from, 40 - from)), size((to, 65 - to)));
                let out = resized(a, b, 1, &vec![value; a.area()]);
                assert!(out.iter().all(|&v| v == value), "{from} to {to}: {value}");
            }
        }
    }
}

#[test]
fn an_image_of_the_right_size_is_unchanged() {
    let from = size((9, 4));
    assert_eq!(resized(from, from, 3, &picture(from, 3)), picture(from, 3));
}

#[test]
fn impossible_sizes_and_lengths_are_refused() {
    let good = size((4, 4));
    for bad in [size((0, 4)), size((4, 0)), size((MAX_SIDE + 1, 1)), size((MAX_SIDE, MAX_SIDE))] {
        assert!(Resizer::new(bad, good, 3).is_err());
        assert!(Resizer::new(good, bad, 3).is_err());
    }
    let words = format!("sides of 1 to {MAX_SIDE} pixels, 2^{} pixels in all", MAX_AREA.ilog2());
    assert_eq!((LIMITS, 1 << MAX_AREA.ilog2()), (&*words, MAX_AREA));
    for channels in [0, 2, 4] {
        assert!(Resizer::new(good, good, channels).is_err());
    }
    let mut resizer = Resizer::new(good, size((2, 2)), 3).unwrap();
    assert!(resizer.resize(&[0; 47], &mut [0; 12]).is_err());
    assert!(resizer.resize(&[0; 48], &mut [0; 11]).is_err());
}

#[test]
fn normalises_by_the_formula_and_replicates_grey() {
    let (mean, std) = ([0.5, 0.25, 0.1], [0.25, 0.5, 1.0]);
    let normaliser = Normaliser::new(mean, std).unwrap();
    let mut input = [0.0; 6];
    normaliser.normalise(&[0, 128, 255, 10, 20, 30], 3, &mut input).unwrap();
    let formula = |v: f32, c: usize| (v / 255.0 - mean[c]) / std[c];
    let want = [(0, 0), (10, 0), (128, 1), (20, 1), (255, 2), (30, 2)];
    assert_eq!(input, want.map(|(v, c)| formula(v as f32, c)));
    normaliser.normalise(&[51, 204], 1, &mut input).unwrap();
    let want = [(51, 0), (204, 0), (51, 1), (204, 1), (51, 2), (204, 2)];
    assert_eq!(input, want.map(|(v, c)| formula(v as f32, c)));
    assert_eq!(normaliser.value(2, 204), formula(204.0, 2));

    assert!(normaliser.normalise(&[0; 5], 3, &mut input).is_err());
    assert!(Normaliser::new(mean, [1.0, 0.0, 1.0]).is_err());
    assert!(Normaliser::new([f32::NAN, 0.0, 0.0], std).is_err());
}
