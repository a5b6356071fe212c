//! The `tailor` command.

use clap::Parser;
use std::process::ExitCode;

/// Activations freed in one step are needed again in the next; this allocator keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tailor::startup::run(|| tailor::cmd::Cli::parse().run())
}
