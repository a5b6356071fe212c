//! Counted things in words.

/// `1 block`, `2 blocks`.
pub(crate) fn counted(n: u64, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}
