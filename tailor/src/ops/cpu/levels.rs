//! A macro that compiles one plain loop for every instruction set and picks at run time.

/// Wraps `fn name(args) -> ret { plain Rust }` as `fn name(level, args) -> ret`, compiled once per [`Level`].
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
                // SAFETY: levels come from `Level::available`: the processor has AVX-512 F, AVX2 and FMA.
                $crate::ops::cpu::level::Level::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above, AVX2 and FMA.
                $crate::ops::cpu::level::Level::Avx2 => unsafe { avx2($($arg),*) },
                _ => plain($($arg),*),
            }
        }
    };
}
pub(crate) use levels;

/// Sums `f(chunk index lane values)` in sixteen lanes: floats are only added in vector order if asked to.
#[inline(always)]
pub(crate) fn lane_sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; 32];
    let whole = n / 32 * 32;
    let mut at = 0;
    while at < whole {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane += f(at + i);
        }
        at += 32;
    }
    let mut sum = 0.;
    for i in whole..n {
        sum += f(i);
    }
    let mut width = 16;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    sum + lanes[0]
}
