//! A backbone's identity: the hash of its weights, independent of the file they are stored in.

/// Domain of the hash; see FORMAT.md, "Backbone id".
const CONTEXT: &str = "tailor 2026 backbone id v1";

/// Id of a backbone: BLAKE3 (key derivation mode, context `tailor 2026 backbone id v1`) over its
/// backbone-owned tensors in canonical layout (row-major, as in PyTorch) and f32 precision.
///
/// `tensors` yields the name, shape and values of each tensor in any order: they are hashed sorted by name,
/// so every packing of one backbone (per ISA, f16, int8) has the same id. The hash input, all little-endian:
/// the number of tensors (u64), then for each the name's length (u64), the name, the rank (u64), each extent
/// (u64), and the f32 bit patterns.
pub fn backbone_id<'t>(tensors: impl Iterator<Item = (&'t str, &'t [usize], &'t [f32])>) -> [u8; 32] {
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_by_key(|&(name, _, _)| name);
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    let number = |hasher: &mut blake3::Hasher, n: usize| {
        hasher.update(&(n as u64).to_le_bytes());
    };
    number(&mut hasher, tensors.len());
    let mut buffer = Vec::with_capacity(1 << 16);
    for (name, shape, values) in tensors {
        number(&mut hasher, name.len());
        hasher.update(name.as_bytes());
        number(&mut hasher, shape.len());
        shape.iter().for_each(|&extent| number(&mut hasher, extent));
        for part in values.chunks(1 << 14) {
            buffer.clear();
            buffer.extend(part.iter().flat_map(|x| x.to_le_bytes()));
            hasher.update(&buffer);
        }
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Tensor<'a> = (&'a str, &'a [usize], &'a [f32]);

    fn id(tensors: &[Tensor<'_>]) -> [u8; 32] {
        backbone_id(tensors.iter().copied())
    }

    #[test]
    fn everything_but_the_order_matters() {
        let a: Tensor<'_> = ("conv1.weight", &[2, 1, 1, 1], &[1.0, 2.0]);
        let b: Tensor<'_> = ("fc.weight", &[1, 2], &[3.0, -0.0]);
        let base = id(&[a, b]);
        assert_eq!(base, id(&[b, a]));
        for other in [
            id(&[a]),
            id(&[a, ("fc.weight", &[2, 1], &[3.0, -0.0])]),
            id(&[a, ("fc.weight", &[1, 2], &[3.0, 0.0])]),
            id(&[a, ("fc.weigh", &[1, 2], &[3.0, -0.0])]),
            id(&[("conv1.weight", &[2, 1, 1, 1], &[2.0, 1.0]), b]),
        ] {
            assert_ne!(base, other);
        }
    }

    /// Spells out the definition again, without the function's buffering.
    #[test]
    fn hashes_what_the_specification_says() {
        let values: Vec<f32> = (0..40_000).map(|i| i as f32 * 0.5 - 7.0).collect();
        let mut fed = Vec::new();
        for n in [1u64, 1] {
            fed.extend_from_slice(&n.to_le_bytes());
        }
        fed.push(b'w');
        for n in [2u64, 200, 200] {
            fed.extend_from_slice(&n.to_le_bytes());
        }
        values.iter().for_each(|x| fed.extend_from_slice(&x.to_le_bytes()));
        assert_eq!(id(&[("w", &[200, 200], &values)]), blake3::derive_key(CONTEXT, &fed));
    }
}
