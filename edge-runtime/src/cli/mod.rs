//! The commands of the command line, one file each; this module dispatches them and reports errors.

mod args;
mod bench;
mod blocks;
mod image;
mod json;
mod memory;
mod probe;
mod run;
mod self_test;
mod store;
mod tasks;

use args::Args;
use edge_runtime::{Error, Result};
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};

/// A command: its name, description, options and entry point.
struct Command {
    name: &'static str,
    about: &'static str,
    /// Its options.
    options: &'static [args::Spec],
    /// How the help names other arguments; `None` if there may be none.
    files: Option<&'static str>,
    help: &'static str,
    run: fn(&Args) -> Result<()>,
}

const COMMANDS: [Command; 5] =
    [run::COMMAND, tasks::COMMAND, self_test::COMMAND, bench::COMMAND, probe::COMMAND];

/// Runs the command line.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut words = Vec::new();
    for argument in arguments {
        match argument.into_string() {
            Ok(word) => words.push(word),
            Err(word) => {
                eprintln!("error[usage]: {} is not UTF-8; rename the file", word.display());
                return ExitCode::from(2);
            }
        }
    }
    if let Err(error) = dispatch(&words) {
        complain(&error);
    }
    ExitCode::from(FIRST.load(Ordering::Relaxed))
}

/// An error of the command line: what was given, and what was expected.
#[inline(never)] // Two dozen copies would add to the program's size.
pub fn usage(got: String, want: &str) -> Error {
    Error::Usage { got, want: want.into() }
}

/// Exit code of the first error, 0 if there was none.
static FIRST: AtomicU8 = AtomicU8::new(0);

/// Reports an error that does not end the program. Its exit code is that of the first error.
pub fn complain(error: &Error) {
    eprintln!("error[{}]: {error}", error.code());
    let _ = FIRST.compare_exchange(0, error.exit_code(), Ordering::Relaxed, Ordering::Relaxed);
}

fn dispatch(words: &[String]) -> Result<()> {
    let (first, rest) = match words.split_first() {
        None => ("--help", words),
        Some((first, rest)) => (first.as_str(), rest),
    };
    if matches!(first, "-h" | "--help" | "help") {
        return json::print(&overview());
    }
    if matches!(first, "-V" | "--version") {
        return json::print(&format!("edge-runtime {}\n", env!("CARGO_PKG_VERSION")));
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == first) else {
        let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
        return Err(usage(format!("unknown command `{first}`"), &names.join(", ")));
    };
    if rest.iter().any(|word| word == "-h" || word == "--help") {
        return json::print(&help(command));
    }
    let args = Args::parse(command.options, rest)?;
    if let (None, Some(word)) = (command.files, args.files.first()) {
        return Err(usage(format!("`{word}`"), "options only"));
    }
    (command.run)(&args)
}

fn overview() -> String {
    let mut text = "Runs tailored networks: one shared backbone, many small tasks.\n\n\
                    Usage: edge-runtime COMMAND [OPTIONS]\n\nCommands:\n"
        .to_owned();
    for command in &COMMANDS {
        text += &format!("  {:<10} {}\n", command.name, command.about);
    }
    text + "\nedge-runtime COMMAND --help shows a command's options and an example.\n\
            Exit codes: 0 done, 2 usage or unreadable image, 3 signature or corruption, 4 incompatible,\n\
            6 health check failed, 1 other.\n"
}

fn help(command: &Command) -> String {
    let mut text = format!("{}\n\nUsage: edge-runtime {} [OPTIONS]", command.about, command.name);
    text += command.files.unwrap_or_default();
    text += "\n\nOptions:\n";
    for spec in command.options {
        let left = format!("{} {}", spec.name, spec.value.unwrap_or_default());
        text += &format!("  {left:<20} {}\n", spec.about);
    }
    text + "\n" + command.help
}
