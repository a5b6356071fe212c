//! A macro that compiles a plain loop for every instruction set and selects one at run time; and sums that
//! vectorise.

/// Turns `fn name(args) -> ret { plain Rust }` into `fn name(level, args) -> ret`, compiled once per
/// [`Level`].
///
/// [`Level`]: super::level::Level
macro_rules! levels {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        pub(crate) fn $name(level: $crate::ops::cpu::level::Level, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn plain($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { plain($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { plain($($arg),*) }
            match level {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: levels come from `Level::available`, so the CPU has AVX-512 F, AVX2 and FMA.
                $crate::ops::cpu::level::Level::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above, the CPU has AVX2 and FMA.
                $crate::ops::cpu::level::Level::Avx2 => unsafe { avx2($($arg),*) },
                _ => plain($($arg),*),
            }
        }
    };
}
pub(crate) use levels;

/// Sums several values per position, in 32 lanes of fixed order (the compiler does not reorder float sums by
/// itself).
///
/// `f` gets the elements of all slices at one position. The slices must have the same length.
#[inline(always)]
pub(crate) fn lane_sums<const N: usize, const M: usize>(
    xs: [&[f32]; N],
    f: impl Fn([f32; N]) -> [f32; M],
) -> [f32; M] {
    const LANES: usize = 32;
    let n = xs[0].len();
    let xs = xs.map(|x| &x[..n]);
    let mut lanes = [[0f32; LANES]; M];
    let whole = n / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let chunk: [&[f32]; N] = xs.map(|x| &x[at..at + LANES]);
        for i in 0..LANES {
            let values = f(chunk.map(|x| x[i]));
            for m in 0..M {
                lanes[m][i] += values[m];
            }
        }
    }
    let mut sums = [0f32; M];
    for i in whole..n {
        let values = f(xs.map(|x| x[i]));
        for m in 0..M {
            sums[m] += values[m];
        }
    }
    for m in 0..M {
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[m][i] += lanes[m][i + width];
            }
            width /= 2;
        }
        sums[m] += lanes[m][0];
    }
    sums
}
