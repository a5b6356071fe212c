//! Byte order in a compressed block: bytes of equal significance are stored together, as they vary least.
//!
//! Sections of four-byte elements come first, then two-byte, then one-byte ones. With `n` elements of width
//! `w` in all sections of that width together, byte `i` of element `j` is at offset `i * n + j`.

/// Element widths, in the order in which they are stored in a block.
pub(super) const WIDTHS: [usize; 3] = [4, 2, 1];

/// Arranges the bytes of sections (each with its element width) as in a compressed block, one vector per
/// plane.
pub(super) fn gather(sections: &[(usize, &[u8])]) -> Vec<Vec<u8>> {
    let plane = |width: usize, i: usize| {
        let own = sections.iter().filter(move |(w, _)| *w == width);
        own.flat_map(move |(_, raw)| raw.iter().skip(i).step_by(width).copied()).collect()
    };
    WIDTHS.into_iter().flat_map(|width| (0..width).map(move |i| plane(width, i))).collect()
}

/// The place of one section's elements in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Offset in the block of the elements of this width.
    pub base: usize,
    /// Number of elements of this width in the block.
    pub all: usize,
    /// Number of them before this section's.
    pub first: usize,
    /// Number of elements in this section.
    pub len: usize,
}

impl Place {
    /// The sub-range of `len` elements from index `start` on; `None` if it is out of range.
    pub fn run(self, start: usize, len: usize) -> Option<Place> {
        let fits = start.checked_add(len).is_some_and(|end| end <= self.len);
        fits.then(|| Place { first: self.first.saturating_add(start), len, ..self })
    }

    /// For each `i`, byte `i` of all the section's elements; `None` if the block is too short.
    fn planes<const W: usize>(self, block: &[u8]) -> Option<[&[u8]; W]> {
        let mut planes = [&[][..]; W];
        for (i, plane) in planes.iter_mut().enumerate() {
            let start = i.checked_mul(self.all)?.checked_add(self.base)?.checked_add(self.first)?;
            *plane = block.get(start..start.checked_add(self.len)?)?;
        }
        Some(planes)
    }

    /// Converts each element in one pass over all planes, which the compiler can vectorise. False if the
    /// block is too short or `out` has another length than the section.
    pub fn scatter<T, const W: usize>(
        self,
        block: &[u8],
        out: &mut [T],
        value: impl Fn([u8; W]) -> T,
    ) -> bool {
        let Some(planes) = self.planes::<W>(block) else { return false };
        // Without this check, the compiler would bounds-check every index.
        if planes.iter().any(|plane| plane.len() != out.len()) {
            return false;
        }
        for (j, to) in out.iter_mut().enumerate() {
            *to = value(std::array::from_fn(|i| planes[i][j]));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sections_round_trip() {
        for len in [15, 16, 17, 100] {
            let raw: Vec<u8> = (0..4 * len).map(|i| i as u8).collect();
            let before = [1; 12];
            let block = gather(&[(4, &before[..]), (4, &raw)]).concat();
            let mut out = vec![[0; 4]; len];
            assert!(Place { base: 0, all: len + 3, first: 3, len }.scatter(&block, &mut out, |x| x));
            assert_eq!(out.as_flattened(), raw);
        }
    }

    #[test]
    fn gathers_by_hand_and_back() {
        let (floats, halves) = ([1, 2, 3, 4, 11, 12, 13, 14], [5, 6, 15, 16]);
        let (more, bytes) = ([21, 22, 23, 24], [7, 8, 9]);
        let block = gather(&[(1, &bytes[..]), (4, &floats), (2, &halves), (4, &more)]).concat();
        assert_eq!(block, [1, 11, 21, 2, 12, 22, 3, 13, 23, 4, 14, 24, 5, 15, 6, 16, 7, 8, 9]);
        let mut out = [[0; 4]; 2];
        let place = Place { base: 0, all: 3, first: 0, len: 2 };
        assert!(place.scatter(&block, &mut out, |x| x));
        assert_eq!(out.as_flattened(), floats);
        assert!(Place { first: 2, len: 1, ..place }.scatter(&block, &mut out[..1], |x| x));
        assert_eq!(out[0], more);
        let mut out = [[0; 2]; 2];
        assert!(Place { base: 12, all: 2, first: 0, len: 2 }.scatter(&block, &mut out, |x| x));
        assert_eq!(out.as_flattened(), halves);
        let mut out = [0; 3];
        let place = Place { base: 16, all: 3, first: 0, len: 3 };
        assert!(place.scatter(&block, &mut out, |[x]| x));
        assert_eq!(out, bytes);
        assert!(place.run(1, 2).unwrap().scatter(&block, &mut out[..2], |[x]| x));
        assert_eq!(out, [8, 9, 9]);
        assert_eq!((place.run(1, 3), place.run(usize::MAX, 1)), (None, None));
        assert!(!place.scatter(&block[..18], &mut out, |[x]| x), "a block that is too short");
        assert!(!place.scatter(&block, &mut out[..2], |[x]| x), "another length");
        assert!(!Place { first: usize::MAX, ..place }.scatter(&block, &mut out, |[x]| x));
    }
}
