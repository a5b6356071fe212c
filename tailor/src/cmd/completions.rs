//! `tailor completions`: shell tab completion.

use crate::output;
use clap::CommandFactory;
use clap_complete::Shell;

/// Prints tab completions for a shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: tailor completions bash > ~/.local/share/bash-completion/completions/tailor"
)]
pub struct Completions {
    /// Shell to generate completions for.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "tailor", &mut script);
        output::text(&String::from_utf8_lossy(&script));
        Ok(())
    }
}
