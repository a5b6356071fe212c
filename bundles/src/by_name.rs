//! Positions in a list of names, in the order of the names.

/// The positions of `names`, sorted by name; those of equal names stay in order. Both users share this one
/// sort, which keeps 4 KB out of the device's program.
pub(crate) fn by_name(names: &[&str]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_unstable_by_key(|&at| (names.get(at), at));
    order
}
