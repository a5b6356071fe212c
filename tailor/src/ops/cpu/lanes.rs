//! A vector register of `f32` lanes in AVX-512, AVX2 and portable form: kernels are written once over the
//! [`Lanes`] trait.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]
// Constant bounds keep register arrays in registers.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Floats in the widest register.
pub(crate) const WIDEST: usize = 16;
/// One pointer per row of a square of registers; only the first [`Lanes::N`] are used.
pub(crate) type Rows<P> = [P; WIDEST];

/// A register of [`Lanes::N`] floats.
///
/// # Safety
/// Every method requires that the CPU supports the instruction set behind the type; those with pointers state
/// further requirements. Pointers need not be aligned.
pub(crate) trait Lanes: Copy {
    /// Floats per register.
    const N: usize;
    /// Number of registers.
    const REGISTERS: usize;
    /// Zero in every lane.
    ///
    /// # Safety
    /// The CPU must support the instruction set.
    unsafe fn zero() -> Self;
    /// `x` in every lane.
    ///
    /// # Safety
    /// The CPU must support the instruction set.
    unsafe fn splat(x: f32) -> Self;
    /// Reads all lanes.
    ///
    /// # Safety
    /// `p` must be valid for reads of `N` floats.
    unsafe fn load(p: *const f32) -> Self;
    /// Reads the first `n` lanes; the others are zero.
    ///
    /// # Safety
    /// `n` must be at most `N`, and `p` valid for reads of `n` floats.
    unsafe fn load_first(p: *const f32, n: usize) -> Self;
    /// Writes all lanes.
    ///
    /// # Safety
    /// `p` must be valid for writes of `N` floats.
    unsafe fn store(self, p: *mut f32);
    /// Writes the first `n` lanes.
    ///
    /// # Safety
    /// `n` must be at most `N`, and `p` valid for writes of `n` floats.
    unsafe fn store_first(self, p: *mut f32, n: usize);
    /// `self * b + c`.
    ///
    /// # Safety
    /// The CPU must support the instruction set.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self + b`.
    ///
    /// # Safety
    /// The CPU must support the instruction set.
    unsafe fn add(self, b: Self) -> Self;
    /// `self - b`.
    ///
    /// # Safety
    /// The CPU must support the instruction set.
    unsafe fn sub(self, b: Self) -> Self;
    /// `self * b`.
    ///
    /// # Safety
    /// The CPU must support the instruction set.
    unsafe fn mul(self, b: Self) -> Self;
    /// Reads `N` rows of `N` floats and writes the columns: float `i` of `from[j]` becomes float `j` of
    /// `to[i]`.
    ///
    /// # Safety
    /// The first `N` pointers of `from` must be valid for reads, and those of `to` for writes, of `N` floats
    /// each.
    unsafe fn transpose(from: &Rows<*const f32>, to: &Rows<*mut f32>);
    /// Sum of all lanes.
    ///
    /// # Safety
    /// The CPU must support the instruction set.
    unsafe fn sum(self) -> f32;
}

/// Sixteen lanes.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx512 {
    const N: usize = 16;
    const REGISTERS: usize = 32;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Avx512(_mm512_setzero_ps())
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Avx512(_mm512_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Avx512(_mm512_loadu_ps(p))
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        Avx512(_mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, p))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        _mm512_storeu_ps(p, self.0)
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        _mm512_mask_storeu_ps(p, ((1u32 << n) - 1) as u16, self.0)
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Avx512(_mm512_fmadd_ps(self.0, b.0, c.0))
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        Avx512(_mm512_add_ps(self.0, b.0))
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        Avx512(_mm512_sub_ps(self.0, b.0))
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        Avx512(_mm512_mul_ps(self.0, b.0))
    }
    #[inline(always)]
    unsafe fn transpose(from: &Rows<*const f32>, to: &Rows<*mut f32>) {
        let mut r = [_mm512_setzero_ps(); 16];
        for i in 0..16 {
            r[i] = _mm512_loadu_ps(from[i]);
        }
        // Squares of 2, then of 4 floats within each 128-bit quarter, then the quarters themselves.
        let mut t = r;
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..4 {
            let (a, b) = (_mm512_castps_pd(t[4 * i]), _mm512_castps_pd(t[4 * i + 2]));
            r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            let (a, b) = (_mm512_castps_pd(t[4 * i + 1]), _mm512_castps_pd(t[4 * i + 3]));
            r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
        for i in 0..4 {
            t[i] = _mm512_shuffle_f32x4::<0x88>(r[i], r[i + 4]);
            t[i + 4] = _mm512_shuffle_f32x4::<0xdd>(r[i], r[i + 4]);
            t[i + 8] = _mm512_shuffle_f32x4::<0x88>(r[i + 8], r[i + 12]);
            t[i + 12] = _mm512_shuffle_f32x4::<0xdd>(r[i + 8], r[i + 12]);
        }
        for i in 0..4 {
            _mm512_storeu_ps(to[i], _mm512_shuffle_f32x4::<0x88>(t[i], t[i + 8]));
            _mm512_storeu_ps(to[i + 4], _mm512_shuffle_f32x4::<0x88>(t[i + 4], t[i + 12]));
            _mm512_storeu_ps(to[i + 8], _mm512_shuffle_f32x4::<0xdd>(t[i], t[i + 8]));
            _mm512_storeu_ps(to[i + 12], _mm512_shuffle_f32x4::<0xdd>(t[i + 4], t[i + 12]));
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        _mm512_reduce_add_ps(self.0)
    }
}

/// Eight lanes.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

/// A mask of the first `n` of eight lanes.
///
/// # Safety
/// The CPU must support AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn mask8(n: usize) -> __m256i {
    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lane)
}

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx2 {
    const N: usize = 8;
    const REGISTERS: usize = 16;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Avx2(_mm256_setzero_ps())
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Avx2(_mm256_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Avx2(_mm256_loadu_ps(p))
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        Avx2(_mm256_maskload_ps(p, mask8(n)))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        _mm256_storeu_ps(p, self.0)
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        _mm256_maskstore_ps(p, mask8(n), self.0)
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Avx2(_mm256_fmadd_ps(self.0, b.0, c.0))
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        Avx2(_mm256_add_ps(self.0, b.0))
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        Avx2(_mm256_sub_ps(self.0, b.0))
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        Avx2(_mm256_mul_ps(self.0, b.0))
    }
    #[inline(always)]
    unsafe fn transpose(from: &Rows<*const f32>, to: &Rows<*mut f32>) {
        let mut r = [_mm256_setzero_ps(); 8];
        for i in 0..8 {
            r[i] = _mm256_loadu_ps(from[i]);
        }
        let mut t = r;
        for i in 0..4 {
            t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..2 {
            r[4 * i] = _mm256_shuffle_ps::<0x44>(t[4 * i], t[4 * i + 2]);
            r[4 * i + 1] = _mm256_shuffle_ps::<0xee>(t[4 * i], t[4 * i + 2]);
            r[4 * i + 2] = _mm256_shuffle_ps::<0x44>(t[4 * i + 1], t[4 * i + 3]);
            r[4 * i + 3] = _mm256_shuffle_ps::<0xee>(t[4 * i + 1], t[4 * i + 3]);
        }
        for i in 0..4 {
            _mm256_storeu_ps(to[i], _mm256_permute2f128_ps::<0x20>(r[i], r[i + 4]));
            _mm256_storeu_ps(to[i + 4], _mm256_permute2f128_ps::<0x31>(r[i], r[i + 4]));
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut lane = [0f32; 8];
        _mm256_storeu_ps(lane.as_mut_ptr(), self.0);
        let four = [lane[0] + lane[4], lane[1] + lane[5], lane[2] + lane[6], lane[3] + lane[7]];
        (four[0] + four[2]) + (four[1] + four[3])
    }
}

/// Four lanes in plain Rust: used on all other processors, and the reference for tests of the fast paths.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 4]);

impl Lanes for Portable {
    const N: usize = 4;
    const REGISTERS: usize = 16;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Portable([0.; 4])
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Portable([x; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Portable(p.cast::<[f32; 4]>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        let mut lane = [0.; 4];
        for (i, lane) in lane.iter_mut().enumerate().take(n) {
            *lane = *p.add(i);
        }
        Portable(lane)
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        p.cast::<[f32; 4]>().write_unaligned(self.0)
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        for (i, lane) in self.0.iter().enumerate().take(n) {
            *p.add(i) = *lane;
        }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] + b.0[i]))
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] - b.0[i]))
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] * b.0[i]))
    }
    #[inline(always)]
    unsafe fn transpose(from: &Rows<*const f32>, to: &Rows<*mut f32>) {
        let rows: [Portable; 4] = std::array::from_fn(|j| Portable::load(from[j]));
        for (i, &to) in to.iter().enumerate().take(4) {
            Portable(std::array::from_fn(|j| rows[j].0[i])).store(to);
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        (self.0[0] + self.0[2]) + (self.0[1] + self.0[3])
    }
}
