//! The byte-shuffle filter: all first bytes of the elements, then all second bytes, ...

/// Groups byte `i` of every `width`-byte element: `out[i * n + j] = raw[j * width + i]`, `n` elements.
pub(super) fn shuffle(raw: &[u8], width: usize) -> Vec<u8> {
    (0..width).flat_map(|i| raw.iter().skip(i).step_by(width).copied()).collect()
}

/// Undoes [`shuffle`]; both slices have the same length, a multiple of `width`.
pub(super) fn unshuffle(shuffled: &[u8], width: usize, out: &mut [u8]) {
    let n = shuffled.len() / width.max(1);
    for (i, plane) in shuffled.chunks_exact(n.max(1)).enumerate() {
        for (byte, element) in plane.iter().zip(out.chunks_exact_mut(width)) {
            if let Some(slot) = element.get_mut(i) {
                *slot = *byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_by_hand_and_back() {
        let raw = [1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24];
        let shuffled = shuffle(&raw, 4);
        assert_eq!(shuffled, [1, 11, 21, 2, 12, 22, 3, 13, 23, 4, 14, 24]);
        for width in [1, 2, 4] {
            let mut out = [0; 12];
            unshuffle(&shuffle(&raw, width), width, &mut out);
            assert_eq!(out, raw);
        }
    }
}
