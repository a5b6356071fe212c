//! `tailor completions`: tab completion for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

/// Prints tab completions for a shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: tailor completions bash > ~/.local/share/bash-completion/completions/tailor"
)]
pub struct Completions {
    /// Shell to complete in.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<()> {
        clap_complete::generate(self.shell, &mut super::Cli::command(), "tailor", &mut std::io::stdout());
        Ok(())
    }
}
