//! The `edge-runtime` command: runs tailored networks from a shell.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os().skip(1))
}
