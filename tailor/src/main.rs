//! The `tailor` command.
fn main() {}
