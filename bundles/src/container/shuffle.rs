//! The byte-shuffle filter: all first bytes of the elements, then all second bytes, ...

/// Groups byte `i` of every `width`-byte element: `out[i * n + j] = raw[j * width + i]`, `n` elements.
pub(super) fn shuffle(raw: &[u8], width: usize) -> Vec<u8> {
    (0..width).flat_map(|i| raw.iter().skip(i).step_by(width).copied()).collect()
}

/// Undoes [`shuffle`]; both slices have the same length, a multiple of `width`.
pub(super) fn unshuffle(shuffled: &[u8], width: usize, out: &mut [u8]) {
    match width {
        4 => interleave::<4>(shuffled, out),
        2 => interleave::<2>(shuffled, out),
        _ => out.copy_from_slice(shuffled),
    }
}

/// One pass over all planes, so that the compiler can turn it into vector interleaves.
fn interleave<const W: usize>(shuffled: &[u8], out: &mut [u8]) {
    let n = shuffled.len() / W;
    let mut planes = [&[][..]; W];
    for (plane, bytes) in planes.iter_mut().zip(shuffled.chunks_exact(n.max(1))) {
        *plane = bytes;
    }
    if planes.iter().any(|plane| plane.len() != n) {
        return;
    }
    let (elements, _) = out.as_chunks_mut::<W>();
    for (j, element) in elements.iter_mut().enumerate().take(n) {
        *element = std::array::from_fn(|i| planes[i][j]);
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
